// The folder that the address names: its rows, a page at a time, and the way back up.

import { addressOf, fetched, listed, token } from "./api.js";
import { at, element, inBytes, moment, named, shown } from "./words.js";

let running = new AbortController();
let present = { prefix: "", marker: null, size: 0 };

export const folder = () => present.prefix;

export function placeOf(prefix) {
  return `#/${encodeURIComponent(prefix)}`;
}

function prefixOf(hash) {
  try {
    return decodeURIComponent(hash.replace(/^#\/?/, ""));
  } catch {
    return ""; // somebody has written the address by hand
  }
}

// Show the folder of the address. What was asked for another one is given up.
export async function show(report) {
  running.abort();
  running = new AbortController();
  const before = present.prefix;
  present = { prefix: prefixOf(location.hash), marker: "", size: 0 };
  showCrumbs(present.prefix);
  document.title = present.prefix ? `${shown(present.prefix)} - pfstorage` : "pfstorage";
  if (present.prefix !== before) at("rows").replaceChildren();
  at("summary").textContent = "Loading…";
  at("more").hidden = true;
  await showMore(report, true);
}

export async function showMore(report, isFirst = false) {
  const { signal } = running;
  at("more").hidden = true; // until this page is there
  const focused = document.activeElement?.dataset?.key;
  try {
    const page = await listed(present.prefix, present.marker ?? "", signal);
    const rows = page.objects.filter((row) => row.name !== present.prefix).map((row) => rowOf(row, report));
    if (isFirst) at("rows").replaceChildren(...rows);
    else at("rows").append(...rows);
    present = { ...present, marker: page.marker, size: present.size + rows.length };
    at("more").hidden = page.marker === null;
    at("summary").textContent = summary();
    if (!isFirst) rows[0]?.querySelector("a").focus();
    else if (focused !== undefined) refocus(focused);
  } catch (error) {
    if (error.name === "AbortError") return;
    at("summary").textContent = "";
    if (isFirst) at("rows").replaceChildren();
    report(error);
  }
}

function summary() {
  if (!present.size) return "Nothing is here.";
  const more = present.marker === null ? "" : ", and more";
  return `${present.size.toLocaleString()} ${present.size === 1 ? "entry" : "entries"}${more}`;
}

function refocus(key) {
  [...at("rows").querySelectorAll("a")].find((link) => link.dataset.key === key)?.focus();
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
  const link = row.subdir === undefined ? linkTo(key, name, report) : element("a", { href: placeOf(key), className: "folder" }, named(name));
  link.dataset.key = key;
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, link),
    element("td", { className: "number" }, row.subdir === undefined ? inBytes(row.bytes) : ""),
    element("td", {}, row.subdir === undefined ? moment(row.last_modified) : ""),
  );
}

// Without a token, the browser downloads by itself. It could not send one.
function linkTo(key, name, report) {
  const link = element("a", { href: addressOf(key), download: name.split("/").at(-1) }, named(name));
  link.addEventListener("click", (event) => {
    if (!token.get()) return;
    event.preventDefault();
    save(key, link.download).catch(report);
  });
  return link;
}

async function save(key, name) {
  at("summary").textContent = `Downloading ${shown(name)}…`;
  const address = URL.createObjectURL(await fetched(key));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // the browser reads it after the click
  at("summary").textContent = `${shown(name)} is downloaded.`;
}
