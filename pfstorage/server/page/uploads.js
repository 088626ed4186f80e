// Upload files, a few at a time.

import { Refusal, objectExists, put } from "./api.js";
import { Row, announce, announceSoon } from "./transfers.js";
import { byId, formatCount, visible } from "./format.js";

const MAX_RUNNING = 3;
let waiting = [];
const running = new Set();
let stored = 0;

// Ask whether to replace an existing object. The answer may apply to all files of one upload.
let asking = Promise.resolve();
function askToReplace(upload) {
  asking = asking.then(async () => {
    if (upload.stop.signal.aborted) return false;
    if (upload.group.answer !== undefined) return upload.group.answer;
    byId("replace-name").textContent = visible(upload.key);
    byId("replace-all").checked = false;
    const dialog = byId("replace-dialog");
    dialog.returnValue = "keep"; // Escape leaves this value
    upload.stop.signal.onabort = () => dialog.close();
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    upload.stop.signal.onabort = null;
    const answer = dialog.returnValue === "replace";
    if (byId("replace-all").checked) upload.group.answer = answer;
    return answer;
  });
  return asking;
}

// Upload `files`, pairs of a path and a File, below `prefix`. Call `onStored` after each file, and `report`
// with an error that concerns several files.
export function upload(files, prefix, onStored, report) {
  const group = { answer: undefined, mayStore: false, onStored, report };
  for (const [path, file] of files) new Upload(prefix + path, file, group).wait();
}

function startWaiting() {
  while (running.size < MAX_RUNNING && waiting.length) {
    const next = waiting.shift();
    running.add(next);
    next.run().finally(() => {
      running.delete(next);
      startWaiting();
    });
  }
  const left = running.size + waiting.length;
  if (left) announceSoon(`${formatCount(left, "file")} to go, ${stored} stored`);
  else announce(`${formatCount(stored, "file")} stored`);
}

// If the token may not store the first file of a group, cancel the others.
function refuseRest(first) {
  const { group } = first;
  const isRest = (each) => each.group === group && each !== first && !each.stop.signal.aborted;
  const rest = [...running, ...waiting].filter(isRest);
  if (!rest.length) return;
  const refusal = new Refusal(403, "refused");
  waiting = waiting.filter((each) => each.group !== group);
  for (const each of rest) {
    each.stop.abort(refusal); // ends a running upload
    if (!running.has(each)) each.fail(refusal);
  }
  const others = `the other ${formatCount(rest.length, "file")} of this upload ${rest.length === 1 ? "is" : "are"} refused too`;
  group.report(new Refusal(403, `Your token does not allow you to store files here: ${others}.`));
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
    if (!waiting.includes(this)) return; // a running upload ends by itself
    waiting = waiting.filter((each) => each !== this);
    this.fail(this.stop.signal.reason);
    startWaiting();
  }

  async run() {
    this.row.say("");
    try {
      if (!(await this.store())) return this.row.end("not replaced");
      stored += 1;
      this.row.bar.value = 1;
      this.row.end("stored");
      this.group.onStored();
    } catch (error) {
      this.fail(error);
    }
  }

  // Store the file unless the user keeps an existing object. Return whether it was stored.
  async store() {
    const { signal } = this.stop;
    if (!(await objectExists(this.key, signal))) {
      try {
        await this.send(true);
        return true;
      } catch (error) {
        if (error.status !== 412) throw error; // 412: another client has stored the object meanwhile
      }
    }
    const isWanted = await askToReplace(this);
    signal.throwIfAborted();
    if (isWanted) await this.send(false);
    return isWanted;
  }

  async send(ifAbsent) {
    const onProgress = (sent, size) => this.row.progress(sent, size);
    try {
      await put(this.key, this.file, { ifAbsent, onProgress, signal: this.stop.signal });
      this.group.mayStore = true;
    } catch (error) {
      if (error.status === 412) this.group.mayStore = true;
      if (error.status === 403 && !this.group.mayStore && !this.stop.signal.aborted) refuseRest(this);
      throw error;
    }
  }

  fail(error) {
    this.row.fail(error, () => this.wait());
    if (error.status === 401) this.group.report(error);
  }
}

// Return the chosen files as pairs of a path and a File. The path is relative to the parent of a chosen folder.
export function chosenFiles(files) {
  return [...files].map((file) => [file.webkitRelativePath || file.name, file]);
}

// Return the dropped files, including those in folders, as pairs of a path and a File.
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return chosenFiles(transfer.files);
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
    if (!some.length) return; // each call returns a part of the entries
    for (const each of some) await gather(each, `${path}/`, found);
  }
}
