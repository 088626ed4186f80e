// The listing of the current folder, which the URL fragment names, and the links to its parents.

import { urlOf, listFolder, token } from "./api.js";
import { download } from "./downloads.js";
import { byId, element, fileName, formatSize, timeElement, nameElement, visible } from "./format.js";

const PAGE_ROWS = 500;
const MAX_ROWS = 10_000; // the server returns no more rows at once

let running = new AbortController();
let current = { prefix: "", marker: null, size: 0 };
let isWritable = true;

export const folder = () => current.prefix;
export const canUpload = () => isWritable;

export function folderUrl(prefix) {
  return `#/${encodeURIComponent(prefix)}`;
}

function prefixOf(hash) {
  try {
    return decodeURIComponent(hash.replace(/^#\/?/, "")).replace(/[^/]$/, "$&/");
  } catch {
    return ""; // an invalid fragment, perhaps typed by hand
  }
}

// Show the folder of the URL, with as many rows as before. Cancel the requests for another folder.
export async function show(report) {
  running.abort();
  running = new AbortController();
  const prefix = prefixOf(location.hash);
  const isSame = prefix === current.prefix && byId("rows").hasChildNodes();
  if (!isSame) clear("Loading…");
  const shownSoFar = isSame ? current.size + (current.marker === null ? PAGE_ROWS : 0) : 0;
  const limit = Math.min(MAX_ROWS, Math.max(PAGE_ROWS, shownSoFar));
  current = { prefix, marker: "", size: 0 };
  showCrumbs(prefix);
  document.title = prefix ? `${visible(prefix)} - pfstorage` : "pfstorage";
  await showMore(report, limit, true);
}

// Remove all rows, and show `text` instead.
function clear(text) {
  byId("rows").replaceChildren();
  byId("summary").textContent = text;
  byId("more").hidden = byId("unlock").hidden = true;
  byId("objects").hidden = false;
}

// Replace the listing by a button that asks for a token.
export function showLocked() {
  clear("You need a token to see the objects.");
  byId("objects").hidden = true;
  byId("unlock").hidden = false;
  byId("unlock").focus();
}

export async function showMore(report, limit = PAGE_ROWS, isFirst = false) {
  const { signal } = running;
  byId("more").disabled = true; // a second click would request the same rows
  try {
    const page = await listFolder(current.prefix, current.marker, limit, signal);
    const inner = isFirst && page.objects.length ? innerFolder(page.objects[0]) : "";
    if (inner) {
      history.replaceState(null, "", folderUrl(inner));
      return await show(report);
    }
    append(page, report, isFirst);
  } catch (error) {
    if (error.name === "AbortError") return;
    byId("summary").textContent = "";
    if ([401, 403].includes(error.status)) byId("rows").replaceChildren(); // another token has shown these rows
    report(error);
  } finally {
    if (!signal.aborted) byId("more").disabled = false;
  }
}

function append(page, report, isFirst) {
  const focused = document.activeElement.dataset.key;
  const rows = page.objects.filter((row) => row.name !== current.prefix).map((row) => rowOf(row, report));
  if (isFirst) byId("rows").replaceChildren(...rows);
  else byId("rows").append(...rows);
  current = { ...current, marker: page.marker, size: current.size + rows.length };
  byId("more").hidden = page.marker === null;
  allowUploads(page.writable);
  const counted = `${current.size.toLocaleString()} ${current.size === 1 ? "entry" : "entries"}`;
  byId("summary").textContent = current.size ? counted + (page.marker === null ? "" : ", and more") : "This folder is empty.";
  if (!isFirst) rows[0]?.querySelector("a").focus();
  else if (focused !== undefined) (findLink((key) => key === focused) ?? byId("listing")).focus();
}

function allowUploads(allowed) {
  isWritable = allowed;
  byId("upload").hidden = byId("upload-folder").hidden = !allowed;
  byId("hint").textContent = allowed ? "Drop files or folders here to upload them." : "Your token may read this folder, but not upload to it.";
}

// Return the folder of the first key below the current folder. A token with a prefix sees no folders above its keys.
function innerFolder(row) {
  const name = (row.subdir ?? row.name).slice(current.prefix.length);
  const end = name.replace(/\/$/, "").lastIndexOf("/");
  return end < 0 ? "" : current.prefix + name.slice(0, end + 1);
}

function findLink(isIt) {
  return [...byId("rows").querySelectorAll("a")].find((link) => isIt(link.dataset.key));
}

// After leaving the folder `left`, focus its row, or else the listing.
export function restoreFocus(left) {
  const link = findLink((key) => key.endsWith("/") && left.startsWith(key));
  (link ?? byId("listing")).focus({ preventScroll: !link });
}

function showCrumbs(prefix) {
  const names = prefix.split("/").slice(0, -1);
  const places = names.map((name, i) => [name, `${names.slice(0, i + 1).join("/")}/`]);
  const items = [["All objects", ""], ...places].map(([name, place]) =>
    element("li", {}, element("a", { href: folderUrl(place) }, place ? nameElement(name) : name)),
  );
  items.at(-1).firstChild.setAttribute("aria-current", "page");
  byId("crumbs").replaceChildren(...items);
}

function rowOf(row, report) {
  const key = row.subdir ?? row.name;
  const name = key.slice(current.prefix.length);
  const link = row.subdir === undefined ? linkTo(row, name, report) : element("a", { href: folderUrl(key), className: "folder" }, nameElement(name));
  link.dataset.key = key;
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, link),
    element("td", { className: "number" }, row.subdir === undefined ? formatSize(row.bytes) : ""),
    element("td", {}, row.subdir === undefined ? timeElement(row.last_modified) : ""),
  );
}

// Without a token, the browser can download by itself.
function linkTo(row, name, report) {
  const link = element("a", { href: urlOf(row.name), download: fileName(row.name) }, nameElement(name));
  link.addEventListener("click", (event) => {
    if (!token.get()) return;
    event.preventDefault();
    download(row.name, row.bytes, report);
  });
  return link;
}
