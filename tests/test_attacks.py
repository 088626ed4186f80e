"""Requests that mean harm: each is refused in JSON, and nothing outside of what is served has changed or is told."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.serving.options import ServerOptions
from tests.conftest import read_tree, running_server, write_tree
from tests.exchange import answers, exchange, message, multipart, post, request

CMD = "/api/v1/cmd"
TOKEN = "w-0123456789abcdef0123456789"
BEARER = f"Authorization: Bearer {TOKEN}"
SECRET = "what nobody may read"


@dataclass(frozen=True)
class Row:
    """A request, and the statuses that it may get."""

    name: str
    data: bytes
    statuses: tuple[int, ...] = (400, 403)


def told(action: str, **meta: Any) -> bytes:
    return post(message(action, **meta), BEARER)


def objects(method: str, path: str, *headers: str, body: bytes = b"x") -> bytes:
    content = body if method == "PUT" else b""
    length = [f"Content-Length: {len(content)}"] if method == "PUT" else []
    return request(method, f"/api/v1/objects{path}", BEARER, *length, *headers, body=content)


OUTSIDE = [
    "../secret",
    "/etc/passwd",
    "root/../../secret",
    "link-out/secret",
    "/proc/self/root/etc/passwd",
    "a\0b",
]
"""Local paths that lead out of what is served, or nowhere."""

LOCAL = [
    row
    for path in OUTSIDE
    for row in (
        Row(f"a push of {path!r}", told("objPut", putSpec=path, inLocation="own/x"), (200, 400, 403)),
        Row(f"a push of the file {path!r}", told("objPut", file=path, inLocation="own/x"), (200, 400, 403)),
        Row(
            f"a pull into {path!r}",
            told("objPull", fromLocation="own", mapLocationOver=path),
            (200, 400, 403),
        ),
        Row(
            f"a comparison with {path!r}",
            told("objVerify", fromLocation="own", mapLocationOver=path),
            (200, 400, 403),
        ),
    )
]

KEYS = [
    Row(
        "a push to other keys",
        told("objPut", putSpec="data", inLocation="other", mapLocationOver="data"),
        (403,),
    ),
    Row(
        "a push to keys above",
        told("objPut", putSpec="data", inLocation="own/../other", mapLocationOver="data"),
    ),
    Row("a push to nothing", told("objPut", putSpec="data", mapLocationOver="data")),
    Row(
        "an upload to other keys",
        post(
            multipart(("d_msg", message("objPut", toObject="other/x").encode()), ("local", b"x")),
            BEARER,
            "Content-Type: multipart/form-data; boundary=limit",
        ),
        (403,),
    ),
    Row("a listing of other keys", told("ls", path="other/"), (403,)),
    Row("a look at another key", told("objStat", obj="other/secret"), (403,)),
    Row("whether another key exists", told("objExists", obj="other/secret"), (403,)),
    Row("a pull of other keys", told("objPull", fromLocation="other", mapLocationOver="data"), (403,)),
    Row("another object", objects("GET", "/other/secret"), (403,)),
    Row("another object, encoded", objects("GET", "/own/%2e%2e/other/secret")),
    Row("another object, twice encoded", objects("GET", "/own/%252e%252e/other/secret"), (404,)),
    Row("another object by a backslash", objects("GET", "/own\\..\\other\\secret"), (403, 404)),
    Row("another object by a semicolon", objects("GET", "/own;/../other/secret")),
    Row("another object by slashes", objects("GET", "//other/secret"), (403,)),
    Row("storing another object", objects("PUT", "/other/x"), (403,)),
    Row("storing above", objects("PUT", "/own/../other/x")),
    Row("a key with a NUL", objects("PUT", "/own/%00")),
    Row("a key that is no UTF-8", objects("PUT", "/own/%ff")),
    Row("a key with a line break", objects("GET", "/own/%0d%0aX:%20y"), (404,)),
    Row("a listing of other objects", objects("GET", "?prefix=other/"), (403,)),
]

ORDERS = [
    Row("an order to quit", post(json.dumps({"meta": {"ctl": {"serverCmd": "quit"}}}), BEARER), (403,)),
    Row("a change of the settings", told("internalctl", var="/swift/key", set="x"), (403,)),
    Row("a replacement in the settings", told("internalctl", var="testing", valueReplace="x"), (403,)),
    Row("an order from a page", post(message("ls"), BEARER, "Origin: https://evil.example.org"), (403,)),
    Row("an order from no origin", post(message("ls"), BEARER, "Origin: null"), (403,)),
    Row("an object from a page", objects("PUT", "/own/x", "Origin: https://evil.example.org"), (403,)),
    Row(
        "another name for this host",
        post(message("ls"), BEARER).replace(b"localhost", b"evil.example.org"),
        (403,),
    ),
    Row("two names", post(message("ls"), BEARER, "Host: evil.example.org"), (400,)),
    Row("no token", post(message("ls")), (401,)),
    Row("a wrong token", post(message("ls"), "Authorization: Bearer x"), (401,)),
    Row("a part of the token", post(message("ls"), f"Authorization: Bearer {TOKEN[:-1]}"), (401,)),
    Row("two tokens", post(message("ls"), BEARER, "Authorization: Bearer x"), (401,)),
    Row("a token as a password", post(message("ls"), f"Authorization: Basic {TOKEN}"), (401,)),
    Row("a token in the query", request("GET", f"{CMD}?action=ls&token={TOKEN}"), (401,)),
    Row("no token for objects", request("GET", "/api/v1/objects/own/a"), (401,)),
    Row("no token for metrics", request("GET", "/metrics"), (401,)),
    Row("no token for a job", request("GET", "/api/v1/jobs/1/events"), (401,)),
    Row("another method by a header", post(message("ls"), "X-HTTP-Method-Override: GET"), (401,)),
    Row("a page of the file system", request("GET", "/../../etc/passwd", BEARER), (404,)),
    Row("slashes in the path", post(message("ls"), BEARER, path="/api//v1/cmd"), (404,)),
    Row("an encoded path", post(message("ls"), BEARER, path="/api/v1/%63md"), (404,)),
    Row("dots in the path", post(message("ls"), BEARER, path="/api/v1/x/../cmd"), (404,)),
    Row("a path with parameters", post(message("ls"), BEARER, path="/api/v1/cmd;x=1"), (404,)),
    Row("a job of nobody", told("jobStatus", job="../../x"), (404,)),
    Row("a job that waits for ever", told("jobStatus", job="x", wait=1e9), (400, 404)),
]

BODIES = [
    Row("a length below zero", request("POST", CMD, BEARER, "Content-Length: -1"), (400,)),
    Row("a gigantic length", request("POST", CMD, BEARER, f"Content-Length: {10**18}"), (400, 413)),
    Row("a length in words", request("POST", CMD, BEARER, "Content-Length: ten"), (400,)),
    Row(
        "two lengths",
        request("POST", CMD, BEARER, "Content-Length: 1", "Content-Length: 2", body=b"{}"),
        (400,),
    ),
    Row(
        "a length and chunks",
        request("POST", CMD, BEARER, "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        (400,),
    ),
    Row("an unknown encoding", request("POST", CMD, BEARER, "Transfer-Encoding: gzip", body=b"x"), (400,)),
    Row(
        "chunks in chunks",
        request("POST", CMD, BEARER, "Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
        (400,),
    ),
    Row(
        "a chunk of a gigantic length",
        request("POST", CMD, BEARER, "Transfer-Encoding: chunked", body=b"fffffffffffffffff\r\nx"),
        (400,),
    ),
    Row(
        "an object of a gigantic length",
        request("PUT", "/api/v1/objects/own/x", BEARER, f"Content-Length: {10**15 - 1}", body=b"x"),
        (400, 413),
    ),
    Row("deep JSON", post(b"[" * 100_000, BEARER), (400,)),
    Row("a million keys", post(json.dumps({str(n): 0 for n in range(80_000)}), BEARER), (400,)),
    Row("a key twice", post('{"action":"ls","action":"hello"}', BEARER), (400,)),
    Row("NaN", post('{"action":"ls","meta":{"limit":NaN}}', BEARER), (400,)),
    Row("a gigantic number", post('{"action":"ls","meta":{"limit":1e999}}', BEARER), (400,)),
    Row(
        "a number of many digits",
        post('{"action":"ls","meta":{"limit":' + "9" * 100_000 + "}}", BEARER),
        (400,),
    ),
    Row("wrong UTF-8", post(b'{"action":"\xff"}', BEARER), (400,)),
    Row("a header with a line break", request("GET", "/healthz", "X-Request-Id: a\r\n\r\nGET /x"), (200,)),
    Row("many headers", request("POST", CMD, BEARER, *[f"X-{n}: y" for n in range(200)]), (411, 431)),
    Row("a header without end", request("POST", CMD, BEARER, "X-Y: " + "z" * 100_000), (431,)),
    Row("a path without end", request("GET", "/" + "z" * 100_000, BEARER), (414,)),
    Row("long headers", request("GET", CMD, BEARER, *[f"X-{n}: {'y' * 60_000}" for n in range(9)]), (431,)),
    Row("a header of blanks", request("GET", CMD, BEARER, f"X: {' ' * 60_000}\0"), (400,)),
    Row(
        "a length after a tabulator",
        request("POST", CMD, BEARER, "Content-Length: \x0b2", body=b"{}"),
        (400,),
    ),
    Row(
        "a length after a control", request("POST", CMD, BEARER, "Content-Length: \x852", body=b"{}"), (400,)
    ),
    Row(
        "chunks after a control",
        request("POST", CMD, BEARER, "Transfer-Encoding: \x85chunked", body=b"0\r\n\r\n"),
        (400,),
    ),
    Row(
        "chunks by HTTP/1.0",
        request(
            "POST",
            CMD,
            BEARER,
            "Transfer-Encoding: chunked",
            body=b'13\r\n{"action": "hello"}\r\n0\r\n\r\n',
            version="HTTP/1.0",
        ),
        (400,),
    ),
    Row(
        "a chunk whose length has a control",
        request("POST", CMD, BEARER, "Transfer-Encoding: chunked", body=b"\x0b2\r\n{}\r\n0\r\n\r\n"),
        (400,),
    ),
    Row("no host", f"GET {CMD}?action=hello HTTP/1.1\r\n{BEARER}\r\n\r\n".encode(), (400,)),
    Row("another host by the target", request("GET", f"http://evil.example.org{CMD}", BEARER), (403,)),
    Row("an origin that is no address", post(message("ls"), BEARER, "Origin: http://["), (403,)),
    Row("a part of an object", objects("PUT", "/own/a", "Content-Range: bytes 0-1/9"), (400,)),
    Row("an object on a condition", objects("PUT", "/own/a", 'If-Match: "x"'), (400,)),
    Row("the settings for one who sees a part", told("internalctl", var="/", get="value"), (403,)),
]

ROWS = [*LOCAL, *KEYS, *ORDERS, *BODIES]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what is served, *root*, and what is not."""
    directory = tmp_path_factory.mktemp("attacks")
    write_tree(
        directory, {"secret": SECRET.encode(), "root/data/a": b"ours", "elsewhere/secret": SECRET.encode()}
    )
    (directory / "root" / "link-out").symlink_to(directory / "elsewhere")
    (directory / "tokens.cfg").write_text(f"[AUTH TOKENS]\nx = {TOKEN}\n[TOKEN RIGHTS]\nx = write own/\n")
    (directory / "tokens.cfg").chmod(0o600)
    return directory


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[ThreadedHTTPServer]:
    options = ServerOptions(token_path=str(place / "tokens.cfg"), fs_roots=(str(place / "root"),))
    with open_storage("filesystem", store_base=str(place / "store")) as storage:
        for key, content in (("own/a", b"ours"), ("other/secret", SECRET.encode())):
            path = place / "upload"
            path.write_bytes(content)
            with path.open("rb") as file:
                storage.put(key, file, len(content))
            path.unlink()
        with running_server(ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), options)) as server:
            yield server


def outside(place: Path) -> dict[str, bytes]:
    """Return the files that no request may change: all but those of the own keys and the served directory."""
    return {
        name: content
        for name, content in read_tree(place).items()
        if not name.startswith(("root/", "store/users/own/", "store/own/"))
    }


def test_there_are_many_rows_and_each_is_another() -> None:
    assert len(ROWS) >= 60
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_attack_is_refused_and_changes_nothing(server: ThreadedHTTPServer, place: Path, row: Row) -> None:
    before, directory = outside(place), os.getcwd()
    found = answers(exchange(server.server_port, row.data))[0]
    assert found.status in row.statuses, found.body
    if found.status == 200 and "line break" not in row.name:
        assert found.json["status"] is False, (
            found.body
        )  # the message was read; what it asked for was not done
    assert SECRET.encode() not in found.body
    assert TOKEN.encode() not in found.body
    assert b"root:x:0" not in found.body
    if row.name != "a header with a line break":
        assert found.json["status"] is False
    assert outside(place) == before
    assert os.getcwd() == directory


def test_the_server_works_as_before_after_all_that(server: ThreadedHTTPServer) -> None:
    found = answers(
        exchange(server.server_port, post(message("ls", path="own/a"), BEARER, "Connection: close"))
    )[0]
    assert found.json == {"status": True, "ls": [{"name": "own/a"}]}
    stored = answers(exchange(server.server_port, told("ls", path="own/x")))[0]
    assert quote(SECRET).encode() not in stored.body
