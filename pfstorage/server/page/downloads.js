// Download objects with the token, which a download of the browser itself can't send.

import { Refusal, fetchObject } from "./api.js";
import { Row, announce } from "./transfers.js";
import { element, fileName, visible } from "./format.js";

// From this size on, ask for a file to save to, because that avoids a second copy. Not all browsers support it, and
// none does over plain HTTP from another machine.
const LARGE = 64 * 1024 ** 2;

// Save the object `key` of `size` bytes. Call `report` with an error that concerns more than this object.
export async function download(key, size, report) {
  let file;
  try {
    file = size >= LARGE ? await window.showSaveFilePicker?.({ suggestedName: fileName(key) }) : undefined;
  } catch (error) {
    if (error.name === "AbortError") return; // the user has cancelled the dialog
  }
  await new Download(key, size, file, report).run();
}

class Download {
  constructor(key, size, file, report) {
    Object.assign(this, { key, size, file, report });
    this.row = new Row(key, "Download");
  }

  async run() {
    const stop = new AbortController();
    this.row.begin("started", () => stop.abort());
    try {
      await this.save(stop.signal);
      this.row.bar.value = 1;
      this.row.end("downloaded");
      announce(`${visible(fileName(this.key))} is downloaded.`);
    } catch (error) {
      const broken = error.name === "AbortError" || error instanceof Refusal ? error : new Refusal(0, `The download is incomplete: ${error.message}`);
      this.row.fail(broken, () => this.run());
      if (error.status === 401) this.report(error);
    }
  }

  // Save only a complete download: the browser replaces a chosen file when its stream is closed.
  async save(signal) {
    const bytes = await fetchObject(this.key, { signal, onProgress: (done) => this.row.progress(done, this.size) });
    if (this.file) await bytes.pipeTo(await this.file.createWritable(), { signal });
    else saveBlob(await toBlob(bytes), fileName(this.key));
  }
}

// Return a Blob, which the browser keeps on disk if it is large. Its type is never that of a page.
function toBlob(bytes) {
  return new Response(bytes, { headers: { "Content-Type": "application/octet-stream" } }).blob();
}

function saveBlob(blob, name) {
  const address = URL.createObjectURL(blob);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // the browser reads the URL after the click
}
