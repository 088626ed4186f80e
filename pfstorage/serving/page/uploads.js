// Files on their way into the store, a few at a time.

import { Refusal, isThere, put } from "./api.js";
import { Row, announce } from "./transfers.js";
import { at, count, shown } from "./words.js";

const AT_ONCE = 3;
const MOST_REFUSALS = 3; // in a row: a token that may not write is told of once for all files
let waiting = [];
let running = 0;
let stored = 0;

// Ask what to do about a key that is taken; the answer may hold for all files of one upload.
let asking = Promise.resolve();
function mayReplace(upload) {
  asking = asking.then(async () => {
    if (upload.stop.signal.aborted) return false;
    if (upload.group.answer !== undefined) return upload.group.answer;
    at("replace-name").textContent = shown(upload.key);
    at("replace-all").checked = false;
    const dialog = at("replace-dialog");
    dialog.returnValue = "keep"; // as Escape leaves it
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    const answer = dialog.returnValue === "replace";
    if (at("replace-all").checked) upload.group.answer = answer;
    return answer;
  });
  return asking;
}

// Upload `files`, pairs of a path and a File, below `prefix`. `onStored` is called as each is stored,
// `report` with what is wrong with more than one file.
export function upload(files, prefix, onStored, report) {
  const group = { answer: undefined, refusals: 0, onStored, report };
  for (const [path, file] of files) new Upload(prefix + path, file, group).wait();
}

function startWaiting() {
  while (running < AT_ONCE && waiting.length) {
    running += 1;
    waiting
      .shift()
      .run()
      .finally(() => {
        running -= 1;
        startWaiting();
      });
  }
  const left = running + waiting.length;
  announce(left ? `${count(left, "file")} to go, ${stored} stored` : `${count(stored, "file")} stored`);
}

class Upload {
  constructor(key, file, group) {
    Object.assign(this, { key, file, group });
    this.row = new Row(key, "Upload");
  }

  wait() {
    this.stop = new AbortController();
    this.row.begin("waiting", () => this.cancel());
    waiting.push(this);
    startWaiting();
  }

  cancel() {
    this.stop.abort();
    if (!waiting.includes(this)) return; // whoever runs sees it
    waiting = waiting.filter((each) => each !== this);
    this.fail(this.stop.signal.reason);
    startWaiting();
  }

  async run() {
    this.row.say("");
    try {
      if (this.group.refusals >= MOST_REFUSALS) throw this.group.refusal;
      if (!(await this.store())) return this.row.end("kept as it was");
      stored += 1;
      this.group.refusals = 0;
      this.row.bar.value = 1;
      this.row.end("stored");
      this.group.onStored();
    } catch (error) {
      this.fail(error);
    }
  }

  // Tell whether the file was stored. Nothing is sent before it is known that it may be.
  async store() {
    const { signal } = this.stop;
    const send = (onlyNew) =>
      put(this.key, this.file, { onlyNew, signal, onProgress: (sent, size) => this.row.progress(sent, size) });
    if (!(await isThere(this.key, signal))) {
      try {
        await send(true);
        return true;
      } catch (error) {
        if (error.status !== 412) throw error; // else somebody has stored one meanwhile
      }
    }
    const isWanted = await mayReplace(this);
    signal.throwIfAborted();
    if (isWanted) await send(false);
    return isWanted;
  }

  fail(error) {
    this.row.fail(error, () => {
      this.group.refusals = 0; // whoever tries again may have another token now
      this.wait();
    });
    if (error.status === 401) this.group.report(error);
    if (error.status !== 403 || error === this.group.refusal) return;
    this.group.refusals += 1;
    this.group.refusal = new Refusal(403, `Not sent: ${error.message}`);
    if (this.group.refusals === MOST_REFUSALS) this.group.report(error);
  }
}

// The files of a drop, with those in its folders: pairs of a path and a File.
export async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => [file.name, file]);
  const found = [];
  for (const entry of entries) await gather(entry, "", found);
  return found;
}

async function gather(entry, above, found) {
  const path = above + entry.name;
  if (entry.isFile) {
    found.push([path, await new Promise((resolve, reject) => entry.file(resolve, reject))]);
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return; // it gives out so many at a time
    for (const each of some) await gather(each, `${path}/`, found);
  }
}
