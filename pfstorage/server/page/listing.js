// The folder that the address names: its rows, a page at a time, and the way back up.

import { addressOf, listed, token } from "./api.js";
import { download } from "./downloads.js";
import { at, element, fileName, inBytes, moment, named, shown } from "./words.js";

const PAGE = 500;
const MOST = 10_000; // rows that the server gives at once

let running = new AbortController();
let present = { prefix: "", marker: null, size: 0 };
let isWritable = true;

export const folder = () => present.prefix;
export const mayStore = () => isWritable;

export function placeOf(prefix) {
  return `#/${encodeURIComponent(prefix)}`;
}

function prefixOf(hash) {
  try {
    return decodeURIComponent(hash.replace(/^#\/?/, "")).replace(/[^/]$/, "$&/");
  } catch {
    return ""; // somebody has written the address by hand
  }
}

// Show the folder of the address, as far as it was shown before. What was asked for another one is given up.
export async function show(report) {
  running.abort();
  running = new AbortController();
  const prefix = prefixOf(location.hash);
  const isSame = prefix === present.prefix && at("rows").hasChildNodes();
  if (!isSame) clear("Loading…");
  const shownSoFar = isSame ? present.size + (present.marker === null ? PAGE : 0) : 0;
  const limit = Math.min(MOST, Math.max(PAGE, shownSoFar));
  present = { prefix, marker: "", size: 0 };
  showCrumbs(prefix);
  document.title = prefix ? `${shown(prefix)} - pfstorage` : "pfstorage";
  await showMore(report, limit, true);
}

// Leave no row, and say why there is none.
function clear(text) {
  at("rows").replaceChildren();
  at("summary").textContent = text;
  at("more").hidden = at("unlock").hidden = true;
  at("objects").hidden = false;
}

// In the list's place, say what is missing, and offer to give it.
export function showLocked() {
  clear("A token is needed to see what is stored here.");
  at("objects").hidden = true;
  at("unlock").hidden = false;
  at("unlock").focus();
}

export async function showMore(report, limit = PAGE, isFirst = false) {
  const { signal } = running;
  at("more").disabled = true; // a second click would ask for the same rows
  try {
    const page = await listed(present.prefix, present.marker, limit, signal);
    const inner = isFirst && page.objects.length ? innerOf(page.objects[0]) : "";
    if (inner) {
      history.replaceState(null, "", placeOf(inner));
      return await show(report);
    }
    append(page, report, isFirst);
  } catch (error) {
    if (error.name === "AbortError") return;
    at("summary").textContent = "";
    if ([401, 403].includes(error.status)) at("rows").replaceChildren(); // they are not for this token
    report(error);
  } finally {
    if (!signal.aborted) at("more").disabled = false;
  }
}

function append(page, report, isFirst) {
  const focused = document.activeElement.dataset.key;
  const rows = page.objects.filter((row) => row.name !== present.prefix).map((row) => rowOf(row, report));
  if (isFirst) at("rows").replaceChildren(...rows);
  else at("rows").append(...rows);
  present = { ...present, marker: page.marker, size: present.size + rows.length };
  at("more").hidden = page.marker === null;
  allowUploads(page.writable);
  const counted = `${present.size.toLocaleString()} ${present.size === 1 ? "entry" : "entries"}`;
  at("summary").textContent = present.size ? counted + (page.marker === null ? "" : ", and more") : "Nothing is here.";
  if (!isFirst) rows[0]?.querySelector("a").focus();
  else if (focused !== undefined) (linkOf((key) => key === focused) ?? at("listing")).focus();
}

function allowUploads(allowed) {
  isWritable = allowed;
  at("upload").hidden = at("upload-folder").hidden = !allowed;
  at("hint").textContent = allowed ? "Drop files or folders here to upload them." : "Your token may read here, and store nothing.";
}

// A token for some keys alone sees the folder that they are in where others see those above it.
function innerOf(row) {
  const name = (row.subdir ?? row.name).slice(present.prefix.length);
  const end = name.replace(/\/$/, "").lastIndexOf("/");
  return end < 0 ? "" : present.prefix + name.slice(0, end + 1);
}

function linkOf(isIt) {
  return [...at("rows").querySelectorAll("a")].find((link) => isIt(link.dataset.key));
}

// Bring the focus to where a visitor who comes from the folder `left` goes on: its row, or the listing.
export function goOn(left) {
  const link = linkOf((key) => key.endsWith("/") && left.startsWith(key));
  (link ?? at("listing")).focus({ preventScroll: !link });
}

function showCrumbs(prefix) {
  const names = prefix.split("/").slice(0, -1);
  const places = names.map((name, i) => [name, `${names.slice(0, i + 1).join("/")}/`]);
  const items = [["All objects", ""], ...places].map(([name, place]) =>
    element("li", {}, element("a", { href: placeOf(place) }, place ? named(name) : name)),
  );
  items.at(-1).firstChild.setAttribute("aria-current", "page");
  at("crumbs").replaceChildren(...items);
}

function rowOf(row, report) {
  const key = row.subdir ?? row.name;
  const name = key.slice(present.prefix.length);
  const link = row.subdir === undefined ? linkTo(row, name, report) : element("a", { href: placeOf(key), className: "folder" }, named(name));
  link.dataset.key = key;
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, link),
    element("td", { className: "number" }, row.subdir === undefined ? inBytes(row.bytes) : ""),
    element("td", {}, row.subdir === undefined ? moment(row.last_modified) : ""),
  );
}

// Without a token, the browser downloads by itself.
function linkTo(row, name, report) {
  const link = element("a", { href: addressOf(row.name), download: fileName(row.name) }, named(name));
  link.addEventListener("click", (event) => {
    if (!token.get()) return;
    event.preventDefault();
    download(row.name, row.bytes, report);
  });
  return link;
}
