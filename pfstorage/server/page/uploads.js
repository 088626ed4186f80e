// Files on their way into the store, a few at a time.

import { Refusal, isThere, put } from "./api.js";
import { Row, announce, announceSoon } from "./transfers.js";
import { at, count, shown } from "./words.js";

const AT_ONCE = 3;
let waiting = [];
const running = new Set();
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
    upload.stop.signal.onabort = () => dialog.close();
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    upload.stop.signal.onabort = null;
    const answer = dialog.returnValue === "replace";
    if (at("replace-all").checked) upload.group.answer = answer;
    return answer;
  });
  return asking;
}

// Upload `files`, pairs of a path and a File, below `prefix`. `onStored` is called as each is stored,
// `report` with what is wrong with more than one file.
export function upload(files, prefix, onStored, report) {
  const group = { answer: undefined, mayStore: false, onStored, report };
  for (const [path, file] of files) new Upload(prefix + path, file, group).wait();
}

function startWaiting() {
  while (running.size < AT_ONCE && waiting.length) {
    const next = waiting.shift();
    running.add(next);
    next.run().finally(() => {
      running.delete(next);
      startWaiting();
    });
  }
  const left = running.size + waiting.length;
  if (left) announceSoon(`${count(left, "file")} to go, ${stored} stored`);
  else announce(`${count(stored, "file")} stored`);
}

// A token that may not store the first file of a group is not tried on the others.
function refuseRest(first) {
  const { group } = first;
  const isRest = (each) => each.group === group && each !== first && !each.stop.signal.aborted;
  const rest = [...running, ...waiting].filter(isRest);
  if (!rest.length) return;
  const refusal = new Refusal(403, "refused");
  waiting = waiting.filter((each) => each.group !== group);
  for (const each of rest) {
    each.stop.abort(refusal); // whoever runs sees it
    if (!running.has(each)) each.fail(refusal);
  }
  const others = `the other ${count(rest.length, "file")} of this upload ${rest.length === 1 ? "is" : "are"} refused too`;
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
    if (!waiting.includes(this)) return; // whoever runs sees it
    waiting = waiting.filter((each) => each !== this);
    this.fail(this.stop.signal.reason);
    startWaiting();
  }

  async run() {
    this.row.say("");
    try {
      if (!(await this.store())) return this.row.end("kept as it was");
      stored += 1;
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
    if (!(await isThere(this.key, signal))) {
      try {
        await this.send(true);
        return true;
      } catch (error) {
        if (error.status !== 412) throw error; // else somebody has stored one meanwhile
      }
    }
    const isWanted = await mayReplace(this);
    signal.throwIfAborted();
    if (isWanted) await this.send(false);
    return isWanted;
  }

  async send(onlyNew) {
    const onProgress = (sent, size) => this.row.progress(sent, size);
    try {
      await put(this.key, this.file, { onlyNew, onProgress, signal: this.stop.signal });
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

// Files that were chosen, and where they are below the folder that was: pairs of a path and a File.
export function chosen(files) {
  return [...files].map((file) => [file.webkitRelativePath || file.name, file]);
}

// The files of a drop, with those in its folders: pairs of a path and a File.
export async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return chosen(transfer.files);
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
