// How things are said, and elements made. Text goes into the page as text, never as markup.

const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;
const MOMENT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

// A name with what can't be seen in it, or turns it round, spelled out.
export function shown(name) {
  return name.replace(HIDDEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

const LONGEST = 200; // bytes; file systems take 255, and browsers add a suffix meanwhile

// The name of a file to be saved. Nothing in it turns it round, so that it would look like another
// kind, and its end, which tells the kind, is kept.
export function fileName(key) {
  const letters = [...key.split("/").at(-1).replace(HIDDEN, "_")];
  while (new TextEncoder().encode(letters.join("")).length > LONGEST) letters.shift();
  return letters.join("");
}

const UNKNOWN = "unknown"; // what the store does not tell is null

export function inBytes(size) {
  if (size === null) return UNKNOWN;
  if (size < 1024) return `${size} B`;
  const unit = Math.min(4, Math.floor(Math.log2(size) / 10));
  return `${(size / 1024 ** unit).toFixed(1)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

// `utc` is as the server writes it: ISO 8601 without a zone.
export function moment(utc) {
  if (utc === null) return UNKNOWN;
  const date = new Date(`${utc}Z`);
  return element("time", { dateTime: date.toISOString(), title: date.toISOString() }, MOMENT.format(date));
}

export function count(number, what) {
  return `${number.toLocaleString()} ${what}${number === 1 ? "" : "s"}`;
}

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function named(name) {
  return element("bdi", {}, shown(name) || "(no name)");
}

export const at = (id) => document.getElementById(id);
