// Requests to the server, with the token of this tab.

const STORAGE_KEY = "pfstorage.token";
// Relative, because a proxy may serve the server below another path.
const API = "api/v1";
const OBJECTS = `${API}/objects`;

export class Refusal extends Error {
  constructor(status, message, type = "") {
    super(message);
    this.status = status;
    this.type = type; // the name of the error in the reply
  }
}

export const token = {
  get: () => sessionStorage.getItem(STORAGE_KEY) ?? "",
  keep: (text) => sessionStorage.setItem(STORAGE_KEY, text),
  forget: () => sessionStorage.removeItem(STORAGE_KEY),
};

// A header is bytes, and the tokens of the server are UTF-8.
function authorization() {
  const bytes = new TextEncoder().encode(token.get());
  return bytes.length ? { Authorization: `Bearer ${String.fromCharCode(...bytes)}` } : {};
}

// Return the error of a failed request, with the message of the server if there is one.
function errorOf(status, text) {
  let message = "";
  let type = "";
  try {
    const reply = JSON.parse(text);
    message = reply.msg ?? "";
    type = reply.error?.type ?? "";
  } catch {
    message = ""; // not JSON: the response of a proxy
  }
  if (status === 0) message = "The server does not answer.";
  if (status === 403) message = `Your token does not allow that: ${message}`;
  return new Refusal(status, message || `The server answered ${status}.`, type);
}

async function fetchOk(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, ...authorization() } });
  } catch {
    throw options.signal?.aborted ? options.signal.reason : errorOf(0, "");
  }
  if (!response.ok) throw errorOf(response.status, await response.text());
  return response;
}

// Encode the whole key as one path component, so that browsers do not normalize a "/../" or a "//" in it.
// Browsers can't request the keys "." and ".." in any encoding, and the server refuses keys with such a component.
export function urlOf(key) {
  return `${OBJECTS}/${encodeURIComponent(key)}`;
}

async function requestRows(options, signal) {
  try {
    return await (await fetchOk(`${OBJECTS}?${new URLSearchParams(options)}`, { signal })).json();
  } catch (error) {
    // The container does not exist yet: the first upload creates it.
    if (error.type === "ContainerNotFoundError") return { objects: [], marker: null, writable: true };
    throw error;
  }
}

// Return up to `limit` rows of the folder `prefix`, after `marker`: {objects, marker, writable}.
export function listFolder(prefix, marker, limit, signal) {
  return requestRows({ prefix, marker, delimiter: "/", limit }, signal);
}

export async function objectExists(key, signal) {
  const page = await requestRows({ prefix: key, limit: "1" }, signal);
  return page.objects[0]?.name === key; // a key sorts before longer keys that begin with it
}

// Upload `file` as `key`. Only XMLHttpRequest reports the progress of an upload.
export function put(key, file, { ifAbsent, onProgress, signal }) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const request = new XMLHttpRequest();
    request.open("PUT", urlOf(key));
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    if (ifAbsent) request.setRequestHeader("If-None-Match", "*");
    request.upload.onprogress = (event) => onProgress(event.loaded, event.total);
    request.onload = () =>
      request.status < 300 ? resolve() : reject(errorOf(request.status, request.responseText));
    request.onerror = () => reject(errorOf(0, ""));
    request.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

// Return the bytes of `key` as a stream. An incomplete download ends with an error.
export async function fetchObject(key, { onProgress, signal }) {
  if ([".", ".."].includes(key)) throw new Refusal(400, "A browser can't request an object with this name.");
  const { body } = await fetchOk(urlOf(key), { signal });
  let size = 0;
  const transform = (chunk, out) => {
    size += chunk.length;
    onProgress(size);
    out.enqueue(chunk);
  };
  return body.pipeThrough(new TransformStream({ transform }));
}

export async function sendMessage(action, meta = {}) {
  const response = await fetchOk(`${API}/cmd`, {
    method: "POST",
    body: JSON.stringify({ action, meta }),
    headers: { "Content-Type": "application/json" },
  });
  return response.json();
}

// Yield the events of a job until it ends. EventSource can't send the token.
export async function* events(job, signal) {
  for (let pause = 0; pause !== null; ) {
    await new Promise((go) => setTimeout(go, pause));
    pause = null;
    for await (const part of readEvents(`${API}/jobs/${encodeURIComponent(job)}/events`, signal)) {
      if (part.startsWith("retry: ")) pause = Number(part.slice("retry: ".length));
      else yield JSON.parse(part.slice("data: ".length));
    }
  }
}

async function* readEvents(path, signal) {
  const response = await fetchOk(path, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const found = (text + value).split("\n\n");
    text = found.pop();
    yield* found;
  }
}
