// The list of what is on its way, up or down: how far it is, and what can be done about it.

import { at, element, inBytes, named, shown } from "./words.js";

const rows = new Set();
const finished = new Set(); // of them
const SAID_EVERY = 250; // ms
const READ_OUT_EVERY = 5000;
const SMOOTHED_OVER = 3000;

// Bytes per second of what is told to be done so far, at times in ms: what was long ago counts little.
export class Rate {
  constructor(begun) {
    Object.assign(this, { begun, last: begun, done: 0, sum: 0 });
  }

  // It is 0 as long as there is too little to tell it from.
  add(done, now) {
    const passed = now - this.last;
    if (passed > 0) {
      const weight = 1 - Math.exp(-passed / SMOOTHED_OVER);
      this.sum += weight * ((1000 * (done - this.done)) / passed - this.sum);
    }
    Object.assign(this, { last: now, done });
    const all = now - this.begun;
    return all < SAID_EVERY ? 0 : this.sum / (1 - Math.exp(-all / SMOOTHED_OVER)); // the sum began at 0
  }
}

// One file on its way. `what` is "Upload" or "Download".
export class Row {
  constructor(key, what) {
    this.title = `${what} of ${shown(key)}`;
    this.bar = element("progress", { max: 1, value: 0, ariaLabel: this.title });
    this.said = element("span", { className: "said" });
    this.button = element("button", { type: "button", className: "quiet" });
    this.item = element("li", { tabIndex: -1 }, named(key), this.bar, this.said, this.button);
    rows.add(this);
    at("transfers-list").append(this.item);
    at("transfers").hidden = false;
  }

  begin(text, cancel) {
    finished.delete(this);
    this.rate = undefined; // it is not yet on its way
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
    if (part < 1 && now - this.saidAt < SAID_EVERY) return;
    this.saidAt = now;
    const rate = this.rate.add(done, now);
    const percent = `${Math.floor(100 * part)} %`;
    const facts = isKnown ? [`${inBytes(done)} of ${inBytes(size)}`, percent] : [inBytes(done)];
    if (part < 1 && rate) facts.push(`${inBytes(Math.round(rate))}/s`);
    this.say(facts.join(", "));
    const quarters = Math.floor(4 * part);
    if (quarters > this.quarters && part < 1) announceSoon(`${this.title}: ${percent}`);
    this.quarters = quarters;
  }

  end(text) {
    finished.add(this);
    this.say(text);
    this.offer("Clear", () => this.remove()); // the row: what is stored stays
  }

  fail(error, again) {
    this.end(error.name === "AbortError" ? "cancelled" : error.message);
    this.offer("Try again", again);
  }

  say(text) {
    this.said.textContent = text;
  }

  offer(text, act) {
    this.button.textContent = text;
    this.button.setAttribute("aria-label", `${text}: ${this.title}`);
    this.button.onclick = act;
    at("transfers-clear").hidden = finished.size === 0;
  }

  // Take the row away; the focus goes to the one after it.
  remove() {
    const next = this.item.nextElementSibling ?? this.item.previousElementSibling;
    const hadFocus = this.item.contains(document.activeElement);
    rows.delete(this);
    finished.delete(this);
    this.item.remove();
    at("transfers").hidden = rows.size === 0;
    if (hadFocus) (next?.querySelector("button") ?? at("listing")).focus({ preventScroll: !next });
  }
}

export const isBusy = () => rows.size > finished.size;

let due;
let announcedAt = -READ_OUT_EVERY;

// Have a screen reader say what is worth an interruption.
export function announce(text) {
  clearTimeout(due);
  announcedAt = performance.now();
  at("transfers-status").textContent = text;
}

// Have it say how far things are, but now and then only, and nothing that is outdated.
export function announceSoon(text) {
  clearTimeout(due);
  due = setTimeout(() => announce(text), Math.max(0, announcedAt + READ_OUT_EVERY - performance.now()));
}

at("transfers-clear").addEventListener("click", () => {
  for (const row of [...finished]) row.remove();
  at("transfers-clear").hidden = true;
  at("listing").focus({ preventScroll: true });
});
