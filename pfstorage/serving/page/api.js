// What the page asks the server for, with the token that this tab holds.

const KEPT_AS = "pfstorage.token";
const OBJECTS = "/api/v1/objects";

export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEPT_AS) ?? "",
  keep: (text) => sessionStorage.setItem(KEPT_AS, text),
  forget: () => sessionStorage.removeItem(KEPT_AS),
};

function authorization() {
  return token.get() ? { Authorization: `Bearer ${token.get()}` } : {};
}

// The message of an answer that is no success; the server's own where it has one.
function refusalOf(status, text) {
  let message = "";
  try {
    message = JSON.parse(text).msg ?? "";
  } catch {
    message = ""; // a proxy in between has answered, not in JSON
  }
  if (status === 0) message = "The server does not answer.";
  if (status === 403) message = `Your token does not allow that: ${message}`;
  return new Refusal(status, message || `The server answered ${status}.`);
}

async function asked(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, ...authorization() } });
  } catch (error) {
    throw error.name === "AbortError" ? error : refusalOf(0, "");
  }
  if (!response.ok) throw refusalOf(response.status, await response.text());
  return response;
}

// The whole key is one component, so no browser makes anything of a "/../" in it.
export function addressOf(key) {
  return `${OBJECTS}/${encodeURIComponent(key)}`;
}

// A page of the folder `prefix`, after `marker`: {objects, marker}.
export async function listed(prefix, marker, signal) {
  const query = new URLSearchParams({ prefix, marker, delimiter: "/", limit: "500" });
  return (await asked(`${OBJECTS}?${query}`, { signal })).json();
}

export async function isThere(key, signal) {
  const query = new URLSearchParams({ prefix: key, limit: "1" });
  const page = await (await asked(`${OBJECTS}?${query}`, { signal })).json();
  return page.objects[0]?.name === key; // a key comes before those that it begins
}

// Store `file` under `key`. Browsers tell how far an upload is by XMLHttpRequest alone.
export function put(key, file, { onlyNew, onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", addressOf(key));
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    if (onlyNew) request.setRequestHeader("If-None-Match", "*");
    request.upload.onprogress = (event) => onProgress(event.loaded, event.total);
    request.onload = () =>
      request.status < 300 ? resolve() : reject(refusalOf(request.status, request.responseText));
    request.onerror = () => reject(refusalOf(0, ""));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

// The bytes of `key`; a browser keeps what is large in a file, not in memory.
export async function fetched(key) {
  return (await asked(addressOf(key))).blob();
}

export async function sent(action, meta = {}) {
  const response = await asked("/api/v1/cmd", {
    method: "POST",
    body: JSON.stringify({ action, meta }),
    headers: { "Content-Type": "application/json" },
  });
  return response.json();
}

// What becomes of a job, until its end. EventSource could not send the token.
export async function* events(job) {
  const response = await asked(`/api/v1/jobs/${encodeURIComponent(job)}/events`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) yield JSON.parse(part.slice("data: ".length));
  }
}
