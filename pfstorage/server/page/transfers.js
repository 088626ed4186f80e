// The list of uploads and downloads, with their progress and a button for each.

import { byId, element, formatSize, nameElement, visible } from "./format.js";

const rows = new Set();
const finished = new Set(); // a subset of rows
const UPDATE_MS = 250; // ms
const ANNOUNCE_MS = 5000;
const SMOOTHING_MS = 3000;

// Bytes per second as an exponentially weighted average. Times are in milliseconds.
export class Rate {
  constructor(begun) {
    Object.assign(this, { begun, last: begun, done: 0, sum: 0 });
  }

  // Add a measurement, and return the rate, or 0 while there are too few measurements.
  add(done, now) {
    const passed = now - this.last;
    if (passed > 0) {
      const weight = 1 - Math.exp(-passed / SMOOTHING_MS);
      this.sum += weight * ((1000 * (done - this.done)) / passed - this.sum);
    }
    Object.assign(this, { last: now, done });
    const all = now - this.begun;
    return all < UPDATE_MS ? 0 : this.sum / (1 - Math.exp(-all / SMOOTHING_MS)); // corrects for the start at 0
  }
}

// One upload or download. `what` is "Upload" or "Download".
export class Row {
  constructor(key, what) {
    this.title = `${what} of ${visible(key)}`;
    this.bar = element("progress", { max: 1, value: 0, ariaLabel: this.title });
    this.status = element("span", { className: "status" });
    this.button = element("button", { type: "button", className: "quiet" });
    this.item = element("li", { tabIndex: -1 }, nameElement(key), this.bar, this.status, this.button);
    rows.add(this);
    byId("transfers-list").append(this.item);
    byId("transfers").hidden = false;
  }

  begin(text, cancel) {
    finished.delete(this);
    this.rate = undefined; // no bytes yet
    this.saidAt = 0;
    this.quarters = 0;
    this.bar.value = 0;
    this.say(text);
    this.offer("Cancel", cancel);
  }

  progress(done, size) {
    const now = performance.now();
    this.rate ??= new Rate(now);
    const isKnown = size !== null;
    const part = size ? Math.min(1, done / size) : Number(isKnown);
    this.bar.value = part;
    if (part < 1 && now - this.saidAt < UPDATE_MS) return;
    this.saidAt = now;
    const rate = this.rate.add(done, now);
    const percent = `${Math.floor(100 * part)} %`;
    const facts = isKnown ? [`${formatSize(done)} of ${formatSize(size)}`, percent] : [formatSize(done)];
    if (part < 1 && rate) facts.push(`${formatSize(Math.round(rate))}/s`);
    this.say(facts.join(", "));
    const quarters = Math.floor(4 * part);
    if (quarters > this.quarters && part < 1) announceSoon(`${this.title}: ${percent}`);
    this.quarters = quarters;
  }

  end(text) {
    finished.add(this);
    this.say(text);
    this.offer("Clear", () => this.remove()); // removes the row, not the object
  }

  fail(error, again) {
    this.end(error.name === "AbortError" ? "cancelled" : error.message);
    this.offer("Try again", again);
  }

  say(text) {
    this.status.textContent = text;
  }

  offer(text, act) {
    this.button.textContent = text;
    this.button.setAttribute("aria-label", `${text}: ${this.title}`);
    this.button.onclick = act;
    byId("transfers-clear").hidden = finished.size === 0;
  }

  // Remove the row, and focus the next one.
  remove() {
    const next = this.item.nextElementSibling ?? this.item.previousElementSibling;
    const hadFocus = this.item.contains(document.activeElement);
    rows.delete(this);
    finished.delete(this);
    this.item.remove();
    byId("transfers").hidden = rows.size === 0;
    if (hadFocus) (next?.querySelector("button") ?? byId("listing")).focus({ preventScroll: !next });
  }
}

export const isBusy = () => rows.size > finished.size;

let due;
let announcedAt = -ANNOUNCE_MS;

// Let a screen reader announce `text` at once.
export function announce(text) {
  clearTimeout(due);
  announcedAt = performance.now();
  byId("transfers-status").textContent = text;
}

// Let a screen reader announce `text`, at most once in `ANNOUNCE_MS`. A newer text replaces it.
export function announceSoon(text) {
  clearTimeout(due);
  due = setTimeout(() => announce(text), Math.max(0, announcedAt + ANNOUNCE_MS - performance.now()));
}

byId("transfers-clear").addEventListener("click", () => {
  for (const row of [...finished]) row.remove();
  byId("transfers-clear").hidden = true;
  byId("listing").focus({ preventScroll: true });
});
