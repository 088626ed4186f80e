// Files on their way into the store: a few at a time, each with its progress.

import { isThere, put } from "./api.js";
import { at, count, element, named } from "./words.js";

const AT_ONCE = 3;
const waiting = [];
let running = 0;
let done = 0;

// Ask what to do about a key that is taken; the answer may hold for all files of one upload.
let asking = Promise.resolve();
function mayReplace(upload) {
  asking = asking.then(async () => {
    if (upload.group.answer !== undefined) return upload.group.answer;
    at("replace-name").textContent = upload.key;
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

// Upload `files`, pairs of a path and a File, below `prefix`; `onStored` is called as each is stored.
export function upload(files, prefix, onStored) {
  const group = { answer: undefined };
  at("uploads").hidden = false;
  for (const [path, file] of files) waiting.push(new Upload(prefix + path, file, group, onStored));
  startWaiting();
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
  at("uploads-status").textContent = left ? `${count(left, "file")} to go, ${done} stored` : `${count(done, "file")} stored`;
}

class Upload {
  constructor(key, file, group, onStored) {
    Object.assign(this, { key, file, group, onStored });
    this.bar = element("progress", { max: 1, value: 0, ariaLabel: `Upload of ${key}` });
    this.said = element("span", { className: "said" });
    this.button = element("button", { type: "button", className: "quiet" });
    this.row = element("li", {}, named(key), this.bar, this.said, this.button);
  }

  async run() {
    this.stop = new AbortController();
    this.offer("Cancel", () => this.stop.abort());
    this.say("");
    at("uploads-list").append(this.row);
    try {
      const replaces = await isThere(this.key, this.stop.signal);
      if (replaces && !(await mayReplace(this))) return this.end("kept as it was");
      await put(this.key, this.file, {
        onlyNew: !replaces,
        onProgress: (sent, size) => (this.bar.value = size ? sent / size : 1),
        signal: this.stop.signal,
      });
      done += 1;
      this.bar.value = 1;
      this.end("stored");
      this.onStored(this.key);
    } catch (error) {
      this.end(error.name === "AbortError" ? "cancelled" : error.message);
      this.offer("Try again", () => {
        this.row.remove(); // it comes back with its turn
        waiting.push(this);
        startWaiting();
      });
    }
  }

  say(text) {
    this.said.textContent = text;
  }

  end(text) {
    this.say(text);
    this.offer("Remove", () => this.row.remove());
  }

  offer(text, act) {
    this.button.textContent = text;
    this.button.setAttribute("aria-label", `${text}: ${this.key}`);
    this.button.onclick = act;
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
