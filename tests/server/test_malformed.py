"""Malformed and hostile requests: each gets a JSON reply that names the mistake, and harms nobody."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.actions import RequestContext
from pfstorage.backends import Storage
from pfstorage.handler import TRUSTED
from pfstorage.server.exchange import MESSAGE_METHODS
from pfstorage.server.http1.connection import MAX_EMPTY_LINES
from pfstorage.server.http1.head import MAX_HEADERS
from pfstorage.server.request_handler import RequestHandler
from pfstorage.wire.reply import Reply
from tests.conftest import ask, serving
from tests.support.exchange import (
    HELLO,
    MULTIPART,
    Transport,
    answer,
    answers,
    connected,
    exchange,
    message,
    multipart,
    post,
    request,
)

GOOD = json.dumps(HELLO).encode()
pytestmark = pytest.mark.usefixtures("transport")
CMD = "/api/v1/cmd"
MIB = 1024 * 1024
NESTED = b'{"action":"ls","meta":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@dataclass(frozen=True)
class Row:
    """A request, and the expected answer: the status and the name of the error."""

    name: str
    data: bytes
    status: int = 400
    error: str = "MessageError"


def get(query: str) -> bytes:
    return request("GET", f"{CMD}?{query}")


def literal(meta: str) -> bytes:
    return get(f"action=ls&meta={quote(meta)}")


def form(content: str) -> bytes:
    return post(content, "Content-Type: application/x-www-form-urlencoded")


def chunked(content: bytes) -> bytes:
    return request("POST", CMD, "Transfer-Encoding: chunked", body=content)


def parts(*fields: tuple[str, bytes]) -> bytes:
    return post(multipart(*fields), MULTIPART)


CHUNKED = "Transfer-Encoding: chunked"
SMUGGLED = post(GOOD)

BODIES = [
    Row("an empty body", post("")),
    Row("blanks", post(" \r\n ")),
    Row("junk", post("hello there")),
    Row("bytes that are no text", post(bytes(range(256)))),
    Row("JSON cut short", post(GOOD[:-1])),
    Row("two messages", post(GOOD + GOOD)),
    Row("a list", post("[1, 2]")),
    Row("an empty list", post("[]")),
    Row("a number", post("7")),
    Row("null", post("null")),
    Row("true", post("true")),
    Row("a text", post('"hello"')),
    Row("a message inside a text", post(json.dumps(GOOD.decode()))),
    Row("an empty object", post("{}")),
    Row("no action", post('{"meta": {}}')),
    Row("an empty action", post('{"action": ""}')),
    Row("an action that is a number", post('{"action": 5}')),
    Row("an action that is a list", post('{"action": ["ls"]}')),
    Row("an unknown action", post('{"action": "fly"}'), 404, "UnknownActionError"),
    Row("an action that is a method", post('{"action": "__init__"}'), 404, "UnknownActionError"),
    Row("an action of 100000 letters", post(message("a" * 100_000)), 404, "UnknownActionError"),
    Row("an action that is a lone surrogate", post('{"action": "\\ud800"}'), 404, "UnknownActionError"),
    Row("a meta that is a list", post('{"action": "ls", "meta": []}')),
    Row("a meta that is a text", post('{"action": "ls", "meta": "chris"}')),
    Row("a meta that is a number", post('{"action": "ls", "meta": 0}')),
    Row("args that are a list", post('{"action": "ls", "args": ["chris"]}')),
    Row("a path that is a number", post(message("ls", path=5))),
    Row("a path that is an object", post(message("ls", path={"a": 1}))),
    Row("a retSpec that is an object", post(message("ls", retSpec={}))),
    Row("a retSpec of numbers", post(message("ls", retSpec=[1]))),
    Row("an unknown retSpec", post(message("ls", retSpec=["colour"]))),
    Row("a limit of nought", post(message("ls", limit=0))),
    Row("a limit that is no number", post(message("ls", limit="many"))),
    Row("ctl that is a text", post(message("hello", ctl="quit"))),
    Row("ctl with another order", post(message("hello", ctl={"serverCmd": "rm"}))),
    Row("toObject without a file", post(message("objPut", toObject="chris/a"))),
    Row("NaN", post('{"action": "hello", "meta": {"echoBack": NaN}}')),
    Row("Infinity", post('{"action": "hello", "meta": {"echoBack": -Infinity}}')),
    Row("a number that becomes infinite", post('{"action": "hello", "meta": {"echoBack": 1e999}}')),
    Row("an integer of 100000 digits", post('{"action": "ls", "meta": {"limit": ' + "9" * 100_000 + "}}")),
    Row("100000 levels of lists", post(NESTED)),
    Row("100000 levels of objects", post(b'{"a":' * 100_000)),
    Row("33 levels", post(message("hello", echoBack=json.loads("[" * 32 + "]" * 32)))),
    Row("the same key twice", post('{"action": "ls", "action": "hello"}')),
    Row("the same key twice, deep inside", post('{"action": "ls", "meta": {"path": "a", "path": "b"}}')),
    Row("invalid UTF-8", post(b'{"action": "ls", "meta": {"path": "\xff"}}')),
    Row("UTF-8 of a surrogate", post(b'{"action": "ls", "meta": {"path": "\xed\xa0\x80"}}')),
    Row("UTF-16", post(GOOD.decode().encode("utf-16"))),
    Row("a control character in a text", post(b'{"action": "ls", "meta": {"path": "\x01"}}')),
    Row("another wrapper than payload", post(b'{"package": ' + GOOD + b"}")),
    Row("a payload that is a list", post(b'{"payload": [' + GOOD + b"]}")),
    Row("a payload that is a text", post(json.dumps({"payload": GOOD.decode()}))),
    Row("a payload in a payload", post(b'{"payload": {"payload": ' + GOOD + b"}}")),
    Row("a message over 1 MiB", post(message("ls", path="a" * MIB)), 413, "TooLargeError"),
]

FORMS = [
    Row("an open bracket", form("action=ls&a[=1")),
    Row("a bracket that closes too much", form("action=ls&a]b=1")),
    Row("text behind the brackets", form("action=ls&meta[path]x=1")),
    Row("a field without a name", form("action=ls&=1")),
    Row("brackets without a name", form("action=ls&[path]=1")),
    Row("both a value and fields", form("action=ls&meta=1&meta[path]=x")),
    Row("both fields and a value", form("action=ls&meta[path]=x&meta=1")),
    Row("brackets 10000 deep", form("action=ls&a" + "[b]" * 10_000 + "=1")),
    Row("20000 fields", form("action=ls&" + "&".join(f"a{n}=1" for n in range(20_000)))),
    Row("escapes that are no UTF-8", form("action=ls&meta[path]=%ff")),
    Row("no action", form("meta[path]=x")),
    Row("a meta that is a text", form("action=ls&meta=chris")),
    Row("an action twice", form("action=ls&action=hello")),
]

LENGTHS = [
    Row("no length", request("POST", CMD, body=GOOD), 411, "NoLengthError"),
    Row("a negative length", request("POST", CMD, "Content-Length: -5", body=GOOD)),
    Row("a length in words", request("POST", CMD, "Content-Length: five", body=GOOD)),
    Row("a length with a sign", request("POST", CMD, "Content-Length: +5", body=GOOD)),
    Row("a length with a point", request("POST", CMD, "Content-Length: 5.0", body=GOOD)),
    Row("a length in Arabic digits", request("POST", CMD, "Content-Length: \xb2", body=GOOD)),
    Row("an empty length", request("POST", CMD, "Content-Length:", body=GOOD)),
    Row("two lengths", request("POST", CMD, "Content-Length: 5", "Content-Length: 6", body=GOOD)),
    Row("two lengths in one line", request("POST", CMD, "Content-Length: 5, 6", body=GOOD)),
    Row("a length of 100 digits", request("POST", CMD, "Content-Length: " + "9" * 100, body=GOOD)),
    Row(
        "a length that no message has",
        request("POST", CMD, "Content-Length: 99999999999", body=GOOD),
        413,
        "TooLargeError",
    ),
    Row(
        "a length just over 1 MiB",
        request("POST", CMD, f"Content-Length: {MIB + 1}", body=GOOD),
        413,
        "TooLargeError",
    ),
    Row("a body that breaks off", request("POST", CMD, "Content-Length: 5000", body=GOOD)),
    Row("no body at all", request("POST", CMD, "Content-Length: 5000")),
    Row(
        "a length and chunks",
        request("POST", CMD, "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    ),
    Row("an unknown encoding", request("POST", CMD, "Transfer-Encoding: gzip", body=GOOD)),
    Row("chunked and another", request("POST", CMD, "Transfer-Encoding: gzip, chunked", body=GOOD)),
    Row(
        "two encodings",
        request("POST", CMD, "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", body=b"0\r\n\r\n"),
    ),
    Row("an empty encoding", request("POST", CMD, "Transfer-Encoding:", body=GOOD)),
    Row(
        "two lengths of what nobody reads",
        request("GET", "/healthz", "Content-Length: 5", "Content-Length: 6"),
    ),
    Row("an encoding of what nobody reads", request("GET", "/healthz", "Transfer-Encoding: gzip, chunked")),
    Row("a length and chunks nobody reads", request("GET", "/healthz", "Content-Length: 5", CHUNKED)),
]

CHUNKS = [
    Row("no chunk", chunked(b"")),
    Row("a chunk size in words", chunked(b"five\r\nhello\r\n0\r\n\r\n")),
    Row("a negative chunk size", chunked(b"-5\r\nhello\r\n0\r\n\r\n")),
    Row("a chunk size as in C", chunked(b"0x5\r\nhello\r\n0\r\n\r\n")),
    Row("an empty chunk size", chunked(b"\r\nhello\r\n0\r\n\r\n")),
    Row("a chunk size of 40 digits", chunked(b"f" * 40 + b"\r\nhello\r\n0\r\n\r\n")),
    Row("a chunk longer than it says", chunked(b"2\r\nhello\r\n0\r\n\r\n")),
    Row("a chunk shorter than it says", chunked(b"50\r\nhello\r\n0\r\n\r\n")),
    Row("no last chunk", chunked(b"%x\r\n%s\r\n" % (len(GOOD), GOOD))),
    Row("no line after the last chunk", chunked(b"%x\r\n%s\r\n0\r\n" % (len(GOOD), GOOD))),
    Row("an endless extension", chunked(b"5;" + b"a" * 10_000 + b"\r\nhello\r\n0\r\n\r\n")),
    Row("an endless trailer", chunked(b"0\r\n" + b"a: b\r\n" * 10_000 + b"\r\n")),
    Row("only the last chunk", chunked(b"0\r\n\r\n")),
    Row("a size that LF ends", chunked(b"5\nhello\r\n0\r\n\r\n")),
    Row("a chunk that LF ends", chunked(b"5\r\nhello\n0\r\n\r\n")),
    Row("a last chunk that LF ends", chunked(b"0\n\r\n" + SMUGGLED)),
    Row("a trailer that LF ends", chunked(b"0\r\nX: y\n\r\n" + SMUGGLED)),
    Row("an end that is LF", chunked(b"0\r\n\n" + SMUGGLED)),
    Row("a request as a trailer", chunked(b"0\r\n" + SMUGGLED)),
    Row("an extension that hides a chunk", chunked(b"2;\nxx\r\n%x\r\n%s" % (len(SMUGGLED), SMUGGLED))),
    Row("a CR in an extension", chunked(b"5;a\rb\r\nhello\r\n0\r\n\r\n")),
    Row("a NUL in an extension", chunked(b"5;a\0b\r\nhello\r\n0\r\n\r\n")),
    Row("a NUL after a size", chunked(b"5\0\r\nhello\r\n0\r\n\r\n")),
    Row("a blank after a size", chunked(b"5 \r\nhello\r\n0\r\n\r\n")),
    Row("junk as a trailer", chunked(b"0\r\njunk\r\n\r\n")),
    Row("a length as a trailer", chunked(b"0\r\nContent-Length: 5\r\n\r\n")),
    Row("chunks over 1 MiB", chunked((b"10000\r\n" + b"a" * 65536 + b"\r\n") * 20), 413, "TooLargeError"),
]

QUERIES = [
    Row("no query", request("GET", CMD)),
    Row("an empty query", get("")),
    Row("no action", get("meta[path]=x")),
    Row("an unknown action", get("action=fly"), 404, "UnknownActionError"),
    Row("an action that writes", get("action=objPut&meta[putSpec]=x"), 405, "MethodNotAllowedError"),
    Row("an action that sets", get("action=internalctl&meta[var]=/this"), 405, "MethodNotAllowedError"),
    Row("the order to quit", get("action=quit&meta[ctl][serverCmd]=quit"), 403, "ForbiddenError"),
    Row("escapes that are no UTF-8", get("action=ls&meta[path]=%ff")),
    Row("bytes that are no UTF-8", get("action=ls&meta[path]=\xff")),
    Row("a meta that is neither JSON nor Python", get("action=ls&meta=chris")),
    Row("a meta that is a list", literal("['path']")),
    Row("a set", literal("{'path', 'substr'}")),
    Row("bytes", literal("{'path': b'x'}")),
    Row("an imaginary number", literal("{'path': 1j}")),
    Row("an infinite number", literal("{'path': 1e999}")),
    Row("keys that are the same in JSON", literal("{1: 2, '1': 3}")),
    Row("a call", literal("__import__('os').system('true')")),
    Row("a power", literal("9**9**9**9")),
    Row("an escape that Python warns of", literal(r"{'path': '\d'}")),
    Row("30000 brackets", literal("[" * 20_000)),
    Row("60000 signs", literal("-" * 60_000 + "1")),
    Row("30000 sums", literal("1" + "+1" * 10_000)),
    Row("100 levels", literal("{'a':" * 60 + "1" + "}" * 60)),
    Row("a hexadecimal number of 20000 digits", literal("0x" + "f" * 20_000)),
    Row("a GET with a body", request("GET", CMD, f"Content-Length: {len(GOOD)}", body=GOOD)),
]

METHODS_AND_PATHS = [
    Row("another path", request("GET", "/etc/passwd"), 404, "UnknownPathError"),
    Row("a path above", request("GET", "/api/v1/cmd/../../../etc/passwd"), 404, "UnknownPathError"),
    Row("another path, with a body", post(GOOD, path="/api/v2/cmd"), 404, "UnknownPathError"),
    Row("another path, with a request as body", post(post(GOOD), path="/x"), 404, "UnknownPathError"),
    Row("an address that is none", request("GET", "http://[/api/v1/cmd")),
    Row("an asterisk", request("GET", "*"), 404, "UnknownPathError"),
    *(
        Row(
            method,
            request(method, CMD, f"Content-Length: {len(GOOD)}", body=GOOD),
            405,
            "MethodNotAllowedError",
        )
        for method in ("DELETE", "PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", "get", "P" * 5000)
    ),
]

LINES = [
    Row("two content types", post(GOOD, "Content-Type: application/json", MULTIPART)),
    Row("two forms", post(GOOD, MULTIPART, "Content-Type: multipart/form-data; boundary=other")),
    Row("a method that is no word", b"GE(T / HTTP/1.1\r\n\r\n"),
    Row("a method with a control character", b"GE\x9bT / HTTP/1.1\r\n\r\n"),
    Row("a line of HTTP/0.9", b"GET /\r\n"),
    Row("a POST of HTTP/0.9", b"POST /api/v1/cmd\r\n\r\n" + GOOD),
    Row("HTTP/0.9 by name", request("GET", CMD, version="HTTP/0.9"), 505),
    Row("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    Row("a version without a point", request("GET", CMD, version="HTTP/11")),
    Row("a version in words", request("GET", CMD, version="HTTP/one.one")),
    Row("no HTTP", b"hello\r\n\r\n"),
    Row("a line with too many words", b"GET / and more HTTP/1.1\r\n\r\n"),
    Row("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32, 200)) + b"\r\n\r\n"),
    Row("a request line of 70000 bytes", request("GET", "/" + "a" * 70_000), 414, "TooLargeError"),
    Row("an endless line", b"a" * 200_000, 414, "TooLargeError"),
    Row("a header line of 70000 bytes", request("GET", CMD, "X: " + "a" * 70_000), 431, "TooLargeError"),
    Row("2000 headers", request("GET", CMD, *(f"X-{n}: 1" for n in range(2000))), 431, "TooLargeError"),
    Row("a blank before the colon", request("POST", CMD, "Content-Length : 5", body=GOOD)),
    Row("a header without a colon", request("POST", CMD, "Content-Length 5", body=GOOD)),
    Row("a header without a name", request("POST", CMD, ": 5", f"Content-Length: {len(GOOD)}", body=GOOD)),
    Row("a NUL in a header", request("POST", CMD, "X: a\0b", f"Content-Length: {len(GOOD)}", body=GOOD)),
    Row("a head that breaks off", request("GET", f"{CMD}?action=hello")[:-2]),
    Row(
        "a header that goes on in the next line",
        request("POST", CMD, "X: a\r\n b", f"Content-Length: {len(GOOD)}", body=GOOD),
    ),
    Row("a request line that LF ends", b"GET /healthz HTTP/1.1\nHost: localhost\r\n\r\n"),
    Row("a header that LF ends", b"GET /healthz HTTP/1.1\r\nHost: localhost\n\r\n"),
    Row("a head that LF ends", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\n" + SMUGGLED),
    Row("two spaces after the method", b"GET  /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    Row("a space after the version", b"GET /healthz HTTP/1.1 \r\nHost: localhost\r\n\r\n"),
    Row("two hosts of a whole address", request("GET", "http://localhost/healthz", "Host: localhost")),
    Row("a fragment", request("GET", "/healthz#a") + SMUGGLED),
    Row("a length on two lines", request("POST", CMD, "Content-Length: 5\r\n 6", body=GOOD)),
]

PARTS = [
    Row("no d_msg", parts(("filename", b"x"), ("local", b"x"))),
    Row("no part at all", parts()),
    Row("a d_msg that is no JSON", parts(("d_msg", b"hello"))),
    Row("a d_msg that is a form", parts(("d_msg", b"action=hello"))),
    Row("a d_msg that is a list", parts(("d_msg", b"[]"))),
    Row("a d_msg that is no UTF-8", parts(("d_msg", b'{"action": "ls", "meta": {"path": "\xff"}}'))),
    Row("a d_msg over 1 MiB", parts(("d_msg", b" " * MIB + GOOD)), 413, "TooLargeError"),
    Row(
        "fields over 1 MiB together",
        parts(("d_msg", GOOD), *((f"f{n}", b"a" * 50_000) for n in range(30))),
        413,
        "TooLargeError",
    ),
    Row("two messages", parts(("d_msg", GOOD), ("d_msg", GOOD))),
    Row("two files", parts(("local", b"a"), ("d_msg", GOOD), ("local", b"b"))),
    Row("200 parts", parts(("d_msg", GOOD), *((f"f{n}", b"") for n in range(200)))),
    Row(
        "the order to quit",
        parts(("d_msg", message("x", ctl={"serverCmd": "quit"}).encode())),
        403,
        "ForbiddenError",
    ),
    Row("no boundary", post(multipart(("d_msg", GOOD)), "Content-Type: multipart/form-data")),
    Row(
        "an empty boundary",
        post(multipart(("d_msg", GOOD)), 'Content-Type: multipart/form-data; boundary=""'),
    ),
    Row("another boundary", post(multipart(("d_msg", GOOD), boundary="other"), MULTIPART)),
    Row("no last boundary", post(multipart(("d_msg", GOOD))[:-10], MULTIPART)),
    Row("a part cut short", post(multipart(("d_msg", GOOD))[:-40], MULTIPART)),
    Row(
        "a form that breaks off",
        request("POST", CMD, MULTIPART, "Content-Length: 5000", body=multipart(("d_msg", GOOD))),
    ),
    Row("JSON called multipart", post(GOOD, MULTIPART)),
    Row("an empty form", post("", MULTIPART)),
    Row(
        "a message in base64",
        post(
            multipart(("d_msg", base64.b64encode(GOOD))).replace(
                b'"d_msg"', b'"d_msg"\r\nContent-Transfer-Encoding: base64'
            ),
            MULTIPART,
        ),
    ),
    Row("a last boundary that goes on", post(multipart(("d_msg", GOOD))[:-2] + b"x\r\n", MULTIPART)),
    Row("two boundaries", post(multipart(("d_msg", GOOD)), f"{MULTIPART}; boundary=other")),
    Row("a part without a name", post(b"--limit\r\n\r\nx\r\n--limit--\r\n", MULTIPART)),
    Row("a part with a header that is none", post(b"--limit\r\nhello\r\n\r\nx\r\n--limit--\r\n", MULTIPART)),
    Row(
        "a name that is no UTF-8",
        post(b'--limit\r\nContent-Disposition: form-data; name="\xff"\r\n\r\nx\r\n--limit--\r\n', MULTIPART),
    ),
    Row(
        "an endless header of a part", post(b"--limit\r\nX: " + b"a" * 100_000 + b"\r\n\r\nx\r\n", MULTIPART)
    ),
]

ROWS = {
    f"{kind}: {row.name}"[:70]: row
    for kind, rows in {
        "body": BODIES,
        "form": FORMS,
        "length": LENGTHS,
        "chunks": CHUNKS,
        "query": QUERIES,
        "target": METHODS_AND_PATHS,
        "head": LINES,
        "multipart": PARTS,
    }.items()
    for row in rows
}


@pytest.fixture(scope="module")
def server(transport: Transport) -> Iterator[ThreadedHTTPServer]:
    with open_storage(type="memory") as storage, serving(StoreHandler(storage)) as server:
        yield server


@pytest.fixture(scope="module")
def impatient(transport: Transport) -> Iterator[ThreadedHTTPServer]:
    """A server that waits for no client."""
    bounds = {"head_seconds": 0.5, "idle_seconds": 0.5, "min_rate": 4096}
    with open_storage(type="memory") as storage, serving(StoreHandler(storage), **bounds) as server:
        yield server


@pytest.mark.parametrize("name", ROWS)
def test_the_reply_to_a_malformed_request_names_the_mistake(server: ThreadedHTTPServer, name: str) -> None:
    row = ROWS[name]
    reply = answer(server.server_port, row.data)  # which checks the Content-Length
    received = reply.json
    assert (reply.status, received["error"]["type"]) == (row.status, row.error), received
    assert received["status"] is False
    assert len(received["msg"].splitlines()) == 1
    assert len(received["msg"]) < 400
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers.get("allow") == (", ".join(MESSAGE_METHODS) if row.status == 405 else None)
    assert reply.headers["x-request-id"]
    assert ask(server, HELLO)[0] == 200


@pytest.mark.parametrize(
    "data",
    [
        b"GET /healthz HTTP/1.1\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\n",
        chunked(b"5\n"),
        chunked(b"0\r\n\n"),
        chunked(b"0\r\nX: y\n"),
    ],
)
def test_a_line_that_lf_ends_is_refused_before_more_comes(impatient: ThreadedHTTPServer, data: bytes) -> None:
    """The client sends nothing more, and a server that waited for it would answer 408."""
    with connected(impatient.server_port) as connection:
        connection.sendall(data)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


KEYS = {
    "a NUL": "chris/\0/a",
    "a lone surrogate": "chris/\ud800",
    "2000 letters": "a" * 2000,
    "line ends": "chris/\r\nX: 1",
    "a way up": "../../etc/passwd",
    "a root": "/etc/passwd",
    "a query": "chris?delete=1",
    "an escape": "chris%00%2e%2e",
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("action", ["ls", "objExists", "objStat", "objPut", "objPull"])
def test_a_hostile_key_is_refused_or_not_found(storage: Storage, action: str, key: str) -> None:
    meta = {"ls": "path", "objExists": "obj", "objStat": "obj", "objPut": "toObject", "objPull": "path"}
    fields = [("d_msg", message(action, **{meta[action]: key}).encode())]
    if action == "objPut":
        fields.append(("local", b"content"))
    with serving(StoreHandler(storage)) as server:
        reply = answer(server.server_port, parts(*fields))
        assert ask(server, HELLO)[0] == 200
    received = reply.json
    assert reply.status in ((200, 400) if action == "objPut" else (200, 400, 404)), received
    assert action == "objPut" or received["status"] is False
    assert received["status"] or len(received["msg"].splitlines()) == 1


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (post(b"a" * 20 * MIB), 413),
        (post(b"a" * 20 * MIB, path="/x"), 404),
        (request("PUT", CMD, f"Content-Length: {20 * MIB}", body=b"a" * 20 * MIB), 405),
        (post(b"a" * 20 * MIB, MULTIPART, "Connection: close"), 400),
        (chunked(b"five\r\n" + b"a" * 20 * MIB), 400),
        (b"a" * 20 * MIB, 414),
    ],
)
def test_the_reply_arrives_also_if_the_server_stopped_reading_before_the_client_stopped_sending(
    server: ThreadedHTTPServer, data: bytes, status: int
) -> None:
    with connected(server.server_port) as connection:
        connection.sendall(data)
        found = answers(b"".join(iter(lambda: connection.recv(65536), b"")))
    assert [each.status for each in found] == [status]


@pytest.mark.parametrize(
    "data",
    [
        request("POST", CMD, "Content-Length: 50", body=b"{"),
        request("POST", CMD, "Content-Length: 500", MULTIPART, body=b"--limit\r\n"),
        chunked(b"5\r\nhel"),
        b"POST /api/v1/cmd HTTP/1.1\r\nContent-",
    ],
)
def test_a_request_that_stops_arriving_gets_a_reply_that_says_so(
    impatient: ThreadedHTTPServer, data: bytes
) -> None:
    with connected(impatient.server_port) as connection:
        connection.sendall(data)
        (reply,) = answers(b"".join(iter(lambda: connection.recv(65536), b"")))
    assert (reply.status, reply.json["error"]["type"]) == (408, "SlowRequestError")


@pytest.mark.parametrize("before", [b"", b"\r\n", b"PO"], ids=["nothing", "a line", "a word"])
def test_a_connection_that_asks_nothing_is_closed_without_a_word(
    impatient: ThreadedHTTPServer, before: bytes
) -> None:
    with connected(impatient.server_port) as connection:
        connection.sendall(before)
        assert connection.recv(1) == b""


def test_a_connection_that_asks_nothing_more_is_closed_without_a_word(transport: Transport) -> None:
    with (
        open_storage(type="memory") as storage,
        serving(StoreHandler(storage), idle_seconds=0.2) as server,
        connected(server.server_port) as connection,
    ):
        connection.sendall(post(GOOD))
        received = answers(b"".join(iter(lambda: connection.recv(65536), b"")))
    assert [each.status for each in received] == [200]


def test_bytes_after_an_unreadable_request_are_no_request(server: ThreadedHTTPServer) -> None:
    follower = post(GOOD)
    for data in (
        post(follower, path="/x"),
        request("GET", CMD, f"Content-Length: {len(follower)}", body=follower),
        request("DELETE", CMD, f"Content-Length: {len(follower)}", body=follower),
        chunked(b"0\r\n" + b"a: b\r\n" * 101 + b"\r\n" + follower),
        post(multipart(("d_msg", b"[]"))[:-1] + follower, "Content-Type: multipart/form-data"),
    ):
        assert len(answers(exchange(server.server_port, data))) == 1


def test_a_head_has_so_many_headers_and_no_more(server: ThreadedHTTPServer, transport: Transport) -> None:
    others = 3 if transport.context else 2  # Host, Content-Length, and a token
    spare = [f"X-{number}: 1" for number in range(MAX_HEADERS - others)]
    assert answer(server.server_port, post(GOOD, *spare)).status == 200
    assert answer(server.server_port, post(GOOD, *spare, "X-More: 1")).status == 431


def test_bytes_after_a_form_are_read_with_it(server: ThreadedHTTPServer) -> None:
    form = multipart(("d_msg", GOOD))
    for ending in (b"", b"\r\n", b"\r\nan epilogue"):
        size = f"{len(form + ending):x}".encode()
        body = size + b"\r\n" + form + ending + b"\r\n0\r\n\r\n"
        order = request("POST", CMD, MULTIPART, "Transfer-Encoding: chunked", body=body)
        found = answers(exchange(server.server_port, order + post(GOOD)))
        assert [each.status for each in found] == [200, 200]


def test_no_path_names_another_host(server: ThreadedHTTPServer) -> None:
    found = answer(server.server_port, post(GOOD, path="//evil.example/../api/v1/cmd"))
    assert (found.status, found.json["error"]["type"]) == (404, "UnknownPathError")
    assert answer(server.server_port, post(GOOD, path="//api/v1/cmd")).status == 200


def test_an_empty_line_before_a_request_means_nothing(server: ThreadedHTTPServer) -> None:
    found = answers(exchange(server.server_port, b"\r\n\r\n" + post(GOOD) + b"\r\n" + post(GOOD)))
    assert [each.status for each in found] == [200, 200]


def test_some_empty_lines_may_precede_each_request(server: ThreadedHTTPServer) -> None:
    found = answers(exchange(server.server_port, (b"\r\n" * MAX_EMPTY_LINES + post(GOOD)) * 3))
    assert [each.status for each in found] == [200] * 3


def test_empty_lines_keep_no_connection_open(server: ThreadedHTTPServer) -> None:
    assert exchange(server.server_port, b"\r\n" * 50 + post(GOOD)) == b""


def test_a_connection_that_waits_holds_nothing_of_its_last_request(server: ThreadedHTTPServer) -> None:
    made: list[RequestHandler] = []

    class Noted(RequestHandler):
        def setup(self) -> None:
            made.append(self)
            super().setup()

    server.RequestHandlerClass = Noted  # type: ignore[assignment]
    with connected(server.server_port) as connection:
        connection.sendall(post(GOOD, f"X-Long: {'y' * 50_000}"))
        assert b"200 OK" in connection.recv(10_000)
        while made[0]._request is not None:
            time.sleep(0.001)
        assert "x-long" not in made[0].headers


def test_a_slow_body_gets_a_reply_that_says_so(impatient: ThreadedHTTPServer) -> None:
    with connected(impatient.server_port) as connection:
        connection.sendall(request("POST", CMD, "Transfer-Encoding: chunked"))
        with contextlib.suppress(OSError):
            for _ in range(30):
                connection.sendall(b"1\r\nx\r\n")  # never silent, and no 4 KiB a second
                time.sleep(0.05)
        assert b"408 Request Timeout" in connection.recv(1000)


class Rogue(StoreHandler):
    """A dispatcher with actions that violate their interface."""

    def raise_process(self, *, request: object) -> dict[str, object]:
        raise ZeroDivisionError("in an action")

    def strange_process(self, *, request: object) -> dict[str, object]:
        return {"status": True, "when": object()}

    def nothing_process(self, *, request: object) -> object:
        return None

    def answer(self, source: Any, request: RequestContext = TRUSTED) -> Reply:
        if "outside" in str(source):
            raise ZeroDivisionError("outside of any action")
        return super().answer(source, request)


@pytest.mark.parametrize("action", ["raise", "strange", "nothing", "outside"])
def test_an_error_that_nobody_foresaw_is_a_reply_too(action: str, caplog: pytest.LogCaptureFixture) -> None:
    with open_storage(type="memory") as storage, serving(Rogue(storage)) as server:
        status, reply = ask(server, {"action": action})
        assert ask(server, HELLO)[0] == 200
    assert (status, reply["error"]["type"]) == (500, "PfstorageError")
    if action == "nothing":
        assert reply["msg"] == "nothing_process must return a dict, not NoneType"
    else:
        assert "Traceback" in caplog.text
    assert ".py" not in reply["msg"]
