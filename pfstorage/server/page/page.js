// Ties the page together: what the visitor does, and what is shown of it.

import { token } from "./api.js";
import { forget, look } from "./jobs.js";
import { folder, goOn, mayStore, show, showLocked, showMore } from "./listing.js";
import { isBusy } from "./transfers.js";
import { chosen, filesOf, upload } from "./uploads.js";
import { at } from "./words.js";

let isLocked = false; // until the server is asked with another token, or once more

// Tell what went wrong; a token that is missing or wrong is asked for.
function report(error) {
  if (error.status === 401) {
    isLocked = true;
    askForToken(token.get() ? "The server does not take this token." : "The server asks for a token.");
    return;
  }
  at("alert").textContent = error.message;
}

function refresh() {
  isLocked = false;
  at("alert").textContent = "";
  return show(report);
}

function askForToken(reason) {
  if (at("token-dialog").open) return;
  at("token-reason").textContent = reason;
  at("token").value = "";
  at("token-forget").hidden = !token.get();
  at("token-dialog").showModal();
}

function begin(files) {
  at("alert").textContent = "";
  upload(files, folder(), showSoon, report);
}

// Files that are stored one after the other are shown together.
let due;
function showSoon() {
  due ??= setTimeout(() => {
    due = undefined;
    show(report);
  }, 500);
}

const changeToken = () => askForToken(token.get() ? "This tab has a token." : "");
at("token-button").addEventListener("click", changeToken);
at("unlock").addEventListener("click", changeToken);
at("token-cancel").addEventListener("click", () => at("token-dialog").close());
at("token-dialog").addEventListener("close", () => {
  if (isLocked) showLocked();
  else if (!document.activeElement.offsetParent) at("listing").focus({ preventScroll: true }); // what opened it is out of sight
});
at("token-forget").addEventListener("click", () => {
  token.forget();
  location.reload(); // and with it all that the token has shown
});
at("token-form").addEventListener("submit", () => {
  token.keep(at("token").value.trim());
  at("token").value = "";
  at("rows").replaceChildren();
  forget();
  refresh();
  look(report);
});
at("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the folder
  at("listing").focus();
});
at("refresh").addEventListener("click", () => {
  refresh();
  look(report);
});
at("more").addEventListener("click", () => showMore(report));
for (const [button, input] of [["upload", "files"], ["upload-folder", "tree"]]) {
  at(button).addEventListener("click", () => at(input).click());
  at(input).addEventListener("change", () => {
    begin(chosen(at(input).files));
    at(input).value = ""; // or the same could not be chosen again
  });
}

const hasFiles = (event) => event.dataTransfer.types.includes("Files");
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault(); // or the browser would open the file
    document.body.classList.add("dropping");
  });
}
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
document.addEventListener("drop", async (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (!mayStore()) {
    at("alert").textContent = at("hint").textContent; // which may be out of sight
    return;
  }
  try {
    begin(await filesOf(event.dataTransfer));
  } catch (error) {
    at("alert").textContent = `What was dropped can't be read: ${error.message}`;
  }
});

window.addEventListener("hashchange", async () => {
  const left = folder();
  await refresh();
  goOn(left);
});
window.addEventListener("beforeunload", (event) => {
  if (isBusy()) event.preventDefault(); // the browser asks
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look(report);
});
refresh();
look(report);
