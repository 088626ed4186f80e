// The list of what is on its way, up or down: how far it is, and what can be done about it.

import { at, element, inBytes, named, shown } from "./words.js";

const MEASURED_EVERY = 0.5; // seconds
const rows = new Set();

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
    this.isOver = false;
    this.bar.value = 0;
    this.seen = { at: performance.now(), done: 0, rate: 0 };
    this.say(text);
    this.offer("Cancel", cancel);
  }

  progress(done, size) {
    const share = size ? done / size : 1;
    this.bar.value = share;
    const facts = [`${inBytes(done)} of ${inBytes(size)}`, `${Math.floor(100 * share)} %`];
    const rate = this.rate(done);
    if (rate) facts.push(`${inBytes(rate)}/s`);
    this.say(facts.join(", "));
  }

  // Bytes a second of late: what is older counts less.
  rate(done) {
    const now = performance.now();
    const seconds = (now - this.seen.at) / 1000;
    if (seconds >= MEASURED_EVERY) {
      const latest = (done - this.seen.done) / seconds;
      this.seen = { at: now, done, rate: this.seen.rate ? (2 * this.seen.rate + latest) / 3 : latest };
    }
    return Math.round(this.seen.rate);
  }

  end(text) {
    this.isOver = true;
    this.say(text);
    this.offer("Clear", () => this.remove());
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
    at("transfers-clear").hidden = ![...rows].some((row) => row.isOver);
  }

  // Take the row away; the focus goes to the one after it.
  remove() {
    const next = this.item.nextElementSibling ?? this.item.previousElementSibling;
    const hadFocus = this.item.contains(document.activeElement);
    rows.delete(this);
    this.item.remove();
    at("transfers").hidden = rows.size === 0;
    if (hadFocus) (next?.querySelector("button") ?? at("listing")).focus({ preventScroll: !next });
  }
}

export const isBusy = () => [...rows].some((row) => !row.isOver);

export function announce(text) {
  at("transfers-status").textContent = text;
}

at("transfers-clear").addEventListener("click", () => {
  for (const row of [...rows].filter((each) => each.isOver)) row.remove();
  at("transfers-clear").hidden = true;
  at("listing").focus({ preventScroll: true });
});
