// Objects on their way to a file. The browser's own download could not send the token.

import { Refusal, fetched } from "./api.js";
import { Row, announce } from "./transfers.js";
import { element, fileName, shown } from "./words.js";

// Bytes from which on it is worth a question where to save: what goes straight to a file of the
// visitor's needs no second copy. Not all browsers can, and none does over plain HTTP from afar.
const LARGE = 64 * 1024 ** 2;

// Save the object `key` of `size` bytes; `report` is called with what is wrong with more than this one.
export async function download(key, size, report) {
  let file;
  try {
    file = size >= LARGE ? await window.showSaveFilePicker?.({ suggestedName: fileName(key) }) : undefined;
  } catch (error) {
    if (error.name === "AbortError") return; // the visitor has thought better of it
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
    this.row.begin("begun", () => stop.abort());
    try {
      await this.save(stop.signal);
      this.row.bar.value = 1;
      this.row.end("downloaded");
      announce(`${shown(fileName(this.key))} is downloaded.`);
    } catch (error) {
      const broken = error.name === "AbortError" || error instanceof Refusal ? error : new Refusal(0, `It broke off: ${error.message}`);
      this.row.fail(broken, () => this.run());
      if (error.status === 401) this.report(error);
    }
  }

  // What has broken off leaves nothing behind: a chosen file is replaced at the end, by a whole one.
  async save(signal) {
    const bytes = await fetched(this.key, { signal, onProgress: (done) => this.row.progress(done, this.size) });
    if (this.file) await bytes.pipeTo(await this.file.createWritable(), { signal });
    else hand(await whole(bytes), fileName(this.key));
  }
}

// Bytes that the browser keeps, in a file of its own if they are many, and never takes for a page.
function whole(bytes) {
  return new Response(bytes, { headers: { "Content-Type": "application/octet-stream" } }).blob();
}

function hand(blob, name) {
  const address = URL.createObjectURL(blob);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // the browser reads it after the click
}
