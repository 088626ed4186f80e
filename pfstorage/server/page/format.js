// Format values, and create elements. Text is never inserted as markup.

const HIDDEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;
const TIME_FORMAT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

// Return a name with its invisible and direction-changing characters escaped.
export function visible(name) {
  return name.replace(HIDDEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
}

const MAX_NAME_BYTES = 200; // file systems allow 255, and browsers add a suffix during the download

// Return the name of a file to save. It has no direction-changing characters, which could hide its extension, and a
// long name loses its start, so that the extension stays.
export function fileName(key) {
  const letters = [...key.split("/").at(-1).replace(HIDDEN, "_")];
  while (new TextEncoder().encode(letters.join("")).length > MAX_NAME_BYTES) letters.shift();
  return letters.join("");
}

const UNKNOWN = "unknown"; // for null: the store does not report the value

export function formatSize(size) {
  if (size === null) return UNKNOWN;
  if (size < 1024) return `${size} B`;
  const unit = Math.min(4, Math.floor(Math.log2(size) / 10));
  return `${(size / 1024 ** unit).toFixed(1)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

// `utc` is an ISO 8601 time without a zone, as in replies.
export function timeElement(utc) {
  if (utc === null) return UNKNOWN;
  const date = new Date(`${utc}Z`);
  return element("time", { dateTime: date.toISOString(), title: date.toISOString() }, TIME_FORMAT.format(date));
}

export function formatCount(number, what) {
  return `${number.toLocaleString()} ${what}${number === 1 ? "" : "s"}`;
}

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function nameElement(name) {
  return element("bdi", {}, visible(name) || "(no name)");
}

export const byId = (id) => document.getElementById(id);
