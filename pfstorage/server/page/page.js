// Connect the events of the page to its parts.

import { token } from "./api.js";
import { clearJobs, refreshJobs } from "./jobs.js";
import { folder, restoreFocus, canUpload, show, showLocked, showMore } from "./listing.js";
import { isBusy } from "./transfers.js";
import { chosenFiles, droppedFiles, upload } from "./uploads.js";
import { byId } from "./format.js";

let isLocked = false; // the server refused the last request without a valid token

// Show an error. If the token is missing or wrong, ask for one.
function report(error) {
  if (error.status === 401) {
    isLocked = true;
    askForToken(token.get() ? "The server does not take this token." : "The server asks for a token.");
    return;
  }
  byId("alert").textContent = error.message;
}

function refresh() {
  isLocked = false;
  byId("alert").textContent = "";
  return show(report);
}

function askForToken(reason) {
  if (byId("token-dialog").open) return;
  byId("token-reason").textContent = reason;
  byId("token").value = "";
  byId("token-forget").hidden = !token.get();
  byId("token-dialog").showModal();
}

function startUpload(files) {
  byId("alert").textContent = "";
  upload(files, folder(), refreshSoon, report);
}

// Refresh the listing once for several files that are stored shortly after each other.
let due;
function refreshSoon() {
  due ??= setTimeout(() => {
    due = undefined;
    show(report);
  }, 500);
}

const changeToken = () => askForToken(token.get() ? "This tab has a token." : "");
byId("token-button").addEventListener("click", changeToken);
byId("unlock").addEventListener("click", changeToken);
byId("token-cancel").addEventListener("click", () => byId("token-dialog").close());
byId("token-dialog").addEventListener("close", () => {
  if (isLocked) showLocked();
  else if (!document.activeElement.offsetParent) byId("listing").focus({ preventScroll: true }); // the button that opened it is hidden
});
byId("token-forget").addEventListener("click", () => {
  token.forget();
  location.reload(); // removes everything that the token has shown
});
byId("token-form").addEventListener("submit", () => {
  token.keep(byId("token").value.trim());
  byId("token").value = "";
  byId("rows").replaceChildren();
  clearJobs();
  refresh();
  refreshJobs(report);
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the folder
  byId("listing").focus();
});
byId("refresh").addEventListener("click", () => {
  refresh();
  refreshJobs(report);
});
byId("more").addEventListener("click", () => showMore(report));
for (const [button, input] of [["upload", "files"], ["upload-folder", "tree"]]) {
  byId(button).addEventListener("click", () => byId(input).click());
  byId(input).addEventListener("change", () => {
    startUpload(chosenFiles(byId(input).files));
    byId(input).value = ""; // otherwise, choosing the same files again has no effect
  });
}

const hasFiles = (event) => event.dataTransfer.types.includes("Files");
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault(); // otherwise, the browser opens the file
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
  if (!canUpload()) {
    byId("alert").textContent = byId("hint").textContent; // the hint may be out of sight
    return;
  }
  try {
    startUpload(await droppedFiles(event.dataTransfer));
  } catch (error) {
    byId("alert").textContent = `The dropped files can't be read: ${error.message}`;
  }
});

window.addEventListener("hashchange", async () => {
  const left = folder();
  await refresh();
  restoreFocus(left);
});
window.addEventListener("beforeunload", (event) => {
  if (isBusy()) event.preventDefault(); // the browser asks for a confirmation
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refreshJobs(report);
});
refresh();
refreshJobs(report);
