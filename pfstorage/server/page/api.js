// What the page asks the server for, with the token that this tab holds.

const KEPT_AS = "pfstorage.token";
// Relative: a proxy may serve all of it below a path of its own.
const API = "api/v1";
const OBJECTS = `${API}/objects`;

export class Refusal extends Error {
  constructor(status, message, type = "") {
    super(message);
    this.status = status;
    this.type = type; // as the server calls it
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEPT_AS) ?? "",
  keep: (text) => sessionStorage.setItem(KEPT_AS, text),
  forget: () => sessionStorage.removeItem(KEPT_AS),
};

// A header is bytes, and the tokens of the server are UTF-8.
function authorization() {
  const bytes = new TextEncoder().encode(token.get());
  return bytes.length ? { Authorization: `Bearer ${String.fromCharCode(...bytes)}` } : {};
}

// The message of an answer that is no success; the server's own where it has one.
function refusalOf(status, text) {
  let message = "";
  let type = "";
  try {
    const reply = JSON.parse(text);
    message = reply.msg ?? "";
    type = reply.error?.type ?? "";
  } catch {
    message = ""; // a proxy in between has answered, not in JSON
  }
  if (status === 0) message = "The server does not answer.";
  if (status === 403) message = `Your token does not allow that: ${message}`;
  return new Refusal(status, message || `The server answered ${status}.`, type);
}

async function asked(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, ...authorization() } });
  } catch {
    throw options.signal?.aborted ? options.signal.reason : refusalOf(0, "");
  }
  if (!response.ok) throw refusalOf(response.status, await response.text());
  return response;
}

// The whole key is one component, so no browser makes anything of a "/../" or a "//" in it.
// That leaves the keys "." and "..", which a browser can't ask for, however they are written;
// the server gives out no key with such a component.
export function addressOf(key) {
  return `${OBJECTS}/${encodeURIComponent(key)}`;
}

async function rowsOf(options, signal) {
  try {
    return await (await asked(`${OBJECTS}?${new URLSearchParams(options)}`, { signal })).json();
  } catch (error) {
    // the store has never had an object: the first upload makes the container
    if (error.type === "ContainerNotFoundError") return { objects: [], marker: null, writable: true };
    throw error;
  }
}

// Up to `limit` rows of the folder `prefix`, after `marker`: {objects, marker, writable}.
export function listed(prefix, marker, limit, signal) {
  return rowsOf({ prefix, marker, delimiter: "/", limit }, signal);
}

export async function isThere(key, signal) {
  const page = await rowsOf({ prefix: key, limit: "1" }, signal);
  return page.objects[0]?.name === key; // a key comes before those that it begins
}

// Store `file` under `key`. Browsers tell how far an upload is by XMLHttpRequest alone.
export function put(key, file, { onlyNew, onProgress, signal }) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const request = new XMLHttpRequest();
    request.open("PUT", addressOf(key));
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    if (onlyNew) request.setRequestHeader("If-None-Match", "*");
    request.upload.onprogress = (event) => onProgress(event.loaded, event.total);
    request.onload = () =>
      request.status < 300 ? resolve() : reject(refusalOf(request.status, request.responseText));
    request.onerror = () => reject(refusalOf(0, ""));
    request.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

// The bytes of `key`, as a stream. One that breaks off ends with an error.
export async function fetched(key, { onProgress, signal }) {
  if ([".", ".."].includes(key)) throw new Refusal(400, "A browser can't ask for an object of this name.");
  const { body } = await asked(addressOf(key), { signal });
  let size = 0;
  const transform = (chunk, out) => {
    size += chunk.length;
    onProgress(size);
    out.enqueue(chunk);
  };
  return body.pipeThrough(new TransformStream({ transform }));
}

export async function sent(action, meta = {}) {
  const response = await asked(`${API}/cmd`, {
    method: "POST",
    body: JSON.stringify({ action, meta }),
    headers: { "Content-Type": "application/json" },
  });
  return response.json();
}

// What becomes of a job, until its end. EventSource could not send the token.
export async function* events(job, signal) {
  for (let pause = 0; pause !== null; ) {
    await new Promise((go) => setTimeout(go, pause));
    pause = null;
    for await (const part of parts(`${API}/jobs/${encodeURIComponent(job)}/events`, signal)) {
      if (part.startsWith("retry: ")) pause = Number(part.slice("retry: ".length));
      else yield JSON.parse(part.slice("data: ".length));
    }
  }
}

async function* parts(path, signal) {
  const response = await asked(path, { signal });
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
