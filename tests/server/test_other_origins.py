"""Other origins: their pages learn nothing about objects, and no object runs in the origin of the server."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from selenium import webdriver

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.backends.contract import Attributes
from tests.conftest import serving
from tests.support.exchange import Answer, answer, answers, exchange, message, post, request

ORIGIN = "https://chris.example.org"
OBJECTS = "/api/v1/objects"
SANDBOX = "sandbox; default-src 'none'"


@pytest.fixture
def server() -> Iterator[ThreadedHTTPServer]:
    with open_storage(type="memory") as storage:
        storage.put("s/a.txt", io.BytesIO(b"hello"), 5)
        with serving(StoreHandler(storage), cors_origins=(ORIGIN,)) as server:
            yield server


def asked(server: ThreadedHTTPServer, path: str, *headers: str, method: str = "GET") -> Answer:
    data = exchange(server.server_port, request(method, path, *headers))
    has_no_body = method == "HEAD" or data.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304"))
    return answers(data, to_head=has_no_body)[0]


@pytest.mark.parametrize(
    ("status", "method", "path", "headers"),
    [
        (200, "GET", "/s/a.txt", ()),
        (200, "HEAD", "/s/a.txt", ()),
        (206, "GET", "/s/a.txt", ("Range: bytes=1-2",)),
        (304, "GET", "/s/a.txt", ("If-None-Match: *",)),
        (412, "GET", "/s/a.txt", ("If-Match: x",)),
        (416, "GET", "/s/a.txt", ("Range: bytes=99-",)),
        (404, "GET", "/s/b.txt", ()),
        (404, "HEAD", "/s/b.txt", ()),
        (400, "GET", "/s/%ff", ()),
        (405, "DELETE", "/s/a.txt", ()),
        (411, "PUT", "/s/a.txt", ("Content-Type: a/b",)),
        (403, "GET", "/s/a.txt", ("Sec-Fetch-Site: cross-site",)),
        (403, "GET", "/s/a.txt", ("Service-Worker: script",)),
        (403, "PUT", "/s/a.txt", ("Origin: null", "Content-Length: 0")),
    ],
)
def test_each_answer_about_an_object_is_a_file_that_no_page_shows(
    server: ThreadedHTTPServer, status: int, method: str, path: str, headers: tuple[str, ...]
) -> None:
    found = asked(server, f"{OBJECTS}{path}", *headers, method=method)
    assert found.status == status
    assert found.headers["cross-origin-resource-policy"] == "same-origin"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-security-policy"] == SANDBOX
    assert found.headers["content-disposition"].startswith("attachment")
    assert found.headers["cache-control"] == "no-store"
    is_there = status in (200, 206, 304)
    assert found.headers["content-disposition"].endswith("filename*=UTF-8''a.txt") == is_there


def test_a_put_and_a_request_that_needs_a_token_are_refused_too(
    server: ThreadedHTTPServer, token_file: str
) -> None:
    stored = answer(server.server_port, request("PUT", f"{OBJECTS}/s/b", "Content-Length: 1", body=b"b"))
    with (
        open_storage(type="memory") as storage,
        serving(StoreHandler(storage), token_path=token_file) as guarded,
    ):
        refused = asked(guarded, f"{OBJECTS}/s/a.txt")
    assert (stored.status, refused.status) == (201, 401)
    for found in (stored, refused):
        assert found.headers["cross-origin-resource-policy"] == "same-origin"
        assert (found.headers["content-disposition"], found.headers["content-security-policy"]) == (
            "attachment",
            SANDBOX,
        )


@pytest.mark.parametrize(
    "path", ["/api/v1/cmd?action=ls", OBJECTS, "/healthz", "/api/v1/openapi.json", "/nothing", "/"]
)
def test_no_other_origin_may_embed_an_answer(server: ThreadedHTTPServer, path: str) -> None:
    assert asked(server, path).headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "kind",
    [
        *(
            "text/javascript",
            "application/javascript",
            "application/x-javascript",
            "text/ecmascript",
            "text/jscript",
        ),
        *("text/javascript1.5", "TEXT/JavaScript; charset=utf-8", "text/livescript ;x=y", "text/css"),
        *(
            "text/plain, text/javascript",
            "text/plain,text/css",
            "text/css,",
            "a/b;x=1 ,application/ecmascript;y",
        ),
    ],
)
def test_no_object_is_a_script_or_a_style_sheet_of_the_page(server: ThreadedHTTPServer, kind: str) -> None:
    storage = server.handler.storage
    storage.put("evil", io.BytesIO(b"alert(1)"), 8, Attributes(kind))
    for method in ("GET", "HEAD"):
        found = asked(server, f"{OBJECTS}/evil", method=method)
        assert (found.status, found.headers["content-type"]) == (200, "application/octet-stream")
    assert storage.head("evil").content_type == kind


@pytest.mark.parametrize(
    "kind", ["text/html", "application/json", "text/javascriptx", "text/css-x", "image/svg+xml"]
)
def test_other_types_are_sent_unchanged(server: ThreadedHTTPServer, kind: str) -> None:
    server.handler.storage.put("other", io.BytesIO(b"x"), 1, Attributes(kind))
    assert asked(server, f"{OBJECTS}/other").headers["content-type"] == kind


@pytest.mark.parametrize("path", [f"{OBJECTS}/s/a.txt", "/page/page.js", "/", "/api/v1/cmd?action=ls"])
def test_nothing_is_a_service_worker(server: ThreadedHTTPServer, path: str) -> None:
    found = asked(server, path, "Service-Worker: script", "Sec-Fetch-Site: same-origin")
    assert (found.status, found.json["error"]["type"]) == (403, "ForbiddenError")


@pytest.mark.parametrize("use", ["script", "style", "worker", "sharedworker", "iframe", "object", "embed"])
def test_no_object_is_asked_for_as_a_part_of_a_page(server: ThreadedHTTPServer, use: str) -> None:
    given = ("Sec-Fetch-Site: same-origin", f"Sec-Fetch-Dest: {use}")
    for path in (f"{OBJECTS}/s/a.txt", f"{OBJECTS}/none", "/api/v1/cmd?action=ls"):
        assert asked(server, path, *given).status == 403
    assert asked(server, "/page/page.js", *given).status == 200
    for harmless in ("empty", "document", "image"):
        assert asked(server, f"{OBJECTS}/s/a.txt", given[0], f"Sec-Fetch-Dest: {harmless}").status == 200


NO_CORS = ("Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: image")


@pytest.mark.parametrize(
    "path", [f"{OBJECTS}/s/a.txt", f"{OBJECTS}/none", OBJECTS, "/api/v1/cmd?action=ls", "/?action=ls"]
)
@pytest.mark.parametrize("site", ["cross-site", "same-site", "of-tomorrow"])
def test_a_page_of_another_origin_gets_the_same_refusal_for_every_request(
    server: ThreadedHTTPServer, path: str, site: str
) -> None:
    for more in (
        NO_CORS,
        ("Sec-Fetch-Mode: navigate",),
        ("Origin: https://evil.example.org",),
        ("Origin: null",),
    ):
        found = asked(server, path, f"Sec-Fetch-Site: {site}", *more)
        assert (found.status, found.json["msg"]) == (
            403,
            "pages of other origins may not request this: see --corsOrigin",
        )


def test_other_sites_may_link_to_the_page_itself(server: ThreadedHTTPServer) -> None:
    for path in ("/", "/healthz"):
        assert asked(server, path, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate").status == 200


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_the_page_and_a_typed_address_get_objects(server: ThreadedHTTPServer, site: str) -> None:
    assert asked(server, f"{OBJECTS}/s/a.txt", f"Sec-Fetch-Site: {site}").body == b"hello"


def test_an_origin_that_is_named_gets_objects_and_sends_messages(server: ThreadedHTTPServer) -> None:
    given = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors", f"Origin: {ORIGIN}")
    found = asked(server, f"{OBJECTS}/s/a.txt", *given)
    assert (found.status, found.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert answer(server.server_port, post(message("ls"), *given)).status == 200
    asks = (*given, "Access-Control-Request-Method: GET")
    assert asked(server, f"{OBJECTS}/s/a.txt", *asks, method="OPTIONS").status == 204


# in a real browser

LEARNT = """
const [base, done] = arguments, found = {};
const loaded = (name, key) => new Promise((resolve) => {
  const each = Object.assign(document.createElement(name), {
    onload: () => resolve("loaded"), onerror: () => resolve("error"),
  });
  each[name === "link" ? "href" : "src"] = base + key;
  if (name === "link") each.rel = "stylesheet";
  document.body.append(each);
});
const fetched = (key, options) => fetch(base + key, options).then((answer) => answer.type, () => "error");
(async () => {
  for (const key of ["s/a.svg", "s/none.svg"]) {
    found[key] = [];
    for (const name of ["img", "script", "link"]) found[key].push(await loaded(name, key));
    found[key].push(await fetched(key, { mode: "no-cors" }), await fetched(key, {}));
    const entry = performance.getEntriesByName(base + key).at(-1);
    found[key].push(entry ? entry.encodedBodySize : 0);
  }
  done(found);
})();
"""
RUN = """
const [address, done] = arguments;
const failed = (promise) => promise.then(() => "done", (error) => error.name);
const loaded = new Promise((resolve) => {
  document.body.append(Object.assign(document.createElement("script"), {
    src: address, onload: () => resolve("loaded"), onerror: () => resolve("error"),
  }));
});
const worked = new Promise((resolve) => {
  try {
    Object.assign(new Worker(address), { onmessage: () => resolve("works"), onerror: () => resolve("error") });
  } catch (error) { resolve("error"); }
});
Promise.all([
  failed(navigator.serviceWorker.register(address)), failed(import(address)), loaded, worked,
]).then(done);
"""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """The address of a page of another site."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><body>")

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as pages:
        thread = threading.Thread(target=pages.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://localhost:{pages.server_port}/"
        pages.shutdown()
        thread.join()


def test_a_page_of_another_origin_can_not_find_out_whether_an_object_exists(
    server: ThreadedHTTPServer, chromium: webdriver.Chrome, elsewhere: str
) -> None:
    picture = b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"
    kind = Attributes("image/svg+xml")
    server.handler.storage.put("s/a.svg", io.BytesIO(picture), len(picture), kind)
    chromium.get(elsewhere)
    found = chromium.execute_async_script(LEARNT, f"http://127.0.0.1:{server.server_port}{OBJECTS}/")
    assert found["s/a.svg"] == found["s/none.svg"] == ["error"] * 5 + [0]


def test_no_object_runs_in_the_name_of_the_server(
    server: ThreadedHTTPServer, chromium: webdriver.Chrome
) -> None:
    script = b"document.title = 'evil'; postMessage('evil')"
    server.handler.storage.put("evil.js", io.BytesIO(script), len(script), Attributes("text/javascript"))
    chromium.get(f"http://127.0.0.1:{server.server_port}/")
    found = chromium.execute_async_script(RUN, f"{OBJECTS}/evil.js")
    assert found == ["SecurityError", "TypeError", "error", "error"]
    assert chromium.title != "evil"
    chromium.get_log("browser")
