"""The HTTP interface: every form of a request, and the properties of every reply."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.backends import Storage
from pfstorage.devswift import running
from pfstorage.settings.model import Settings
from tests.conftest import ask, serving, swift_options
from tests.support.exchange import (
    HELLO,
    MULTIPART,
    Answer,
    Transport,
    answer,
    answers,
    client,
    connected,
    exchange,
    message,
    multipart,
    post,
    request,
)

pytestmark = pytest.mark.usefixtures("transport")
CMD = "/api/v1/cmd"
LS: dict[str, Any] = {"action": "ls", "meta": {"path": "chris/", "retSpec": ["name", "bytes"]}}
FOUND = {
    "status": True,
    "ls": [{"name": "chris/_\xe9.dcm", "bytes": 2}, {"name": "chris/a b.dcm", "bytes": 3}],
}
URLENCODED = "Content-Type: application/x-www-form-urlencoded"


def put(server: ThreadedHTTPServer, key: str, content: bytes) -> Any:
    fields = ("d_msg", message("objPut", toObject=key).encode()), ("local", content)
    reply = answer(server.server_port, post(multipart(*fields), MULTIPART))
    assert reply.status == 200
    return reply.json


def get(query: str, path: str = CMD) -> bytes:
    return request("GET", f"{path}?{query}")


def chunked(*pieces: bytes) -> bytes:
    body = b"".join(b"%X; a=b\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nX: y\r\n\r\n"
    return request("POST", CMD, "Transfer-Encoding: chunked", body=body)


@pytest.fixture(scope="module")
def server(transport: Transport) -> Iterator[ThreadedHTTPServer]:
    """Run a server over a memory storage with the objects that `FOUND` lists."""
    with open_storage(type="memory") as storage, serving(StoreHandler(storage)) as server:
        put(server, "chris/a b.dcm", b"abc")
        put(server, "chris/_\xe9.dcm", b"de")
        put(server, "other/a.dcm", b"")
        yield server


TEXT = json.dumps(LS)
NESTED = "action=ls&meta[path]=chris/&meta[retSpec][]=name&meta[retSpec][]=bytes"
FORMS = {
    "JSON": post(TEXT),
    "JSON in a payload": post(json.dumps({"payload": LS})),
    "JSON with args for meta": post(json.dumps({"action": "ls", "args": LS["meta"]})),
    "JSON with blanks around it": post(f"\r\n\t {TEXT} \r\n"),
    "JSON behind a byte order mark": post("\ufeff" + TEXT),
    "JSON called JSON": post(TEXT, "Content-Type: application/json; charset=utf-8"),
    "JSON called a form, as pfurl does": post(TEXT, URLENCODED, "Mode: control"),
    "JSON called text": post(TEXT, "Content-Type: text/plain"),
    "JSON called nonsense": post(TEXT, "Content-Type: \xff;;;="),
    "JSON at the root": post(TEXT, path="/"),
    "JSON at the path with a slash": post(TEXT, path=f"{CMD}/"),
    "JSON with a query": post(TEXT, path=f"{CMD}?a=b"),
    "JSON at a whole address": post(TEXT, path=f"http://localhost{CMD}"),
    "JSON in chunks": chunked(*(TEXT[start : start + 7].encode() for start in range(0, len(TEXT), 7))),
    "JSON by HTTP/1.0": request("POST", CMD, f"Content-Length: {len(TEXT)}", body=TEXT, version="HTTP/1.0"),
    "JSON with its length said twice, the same": post(TEXT, f"Content-Length: {len(TEXT)}"),
    "a form": post(NESTED, URLENCODED),
    "a form in escapes": post(NESTED.replace("[", "%5B").replace("]", "%5D").replace("/", "%2F"), URLENCODED),
    "a form without a type": post(NESTED),
    "a form called JSON": post(NESTED, "Content-Type: application/json"),
    "a form in a payload": post(
        "payload[action]=ls&payload[meta][path]=chris/"
        "&payload[meta][retSpec][0]=name&payload[meta][retSpec][1]=bytes"
    ),
    "a form with traditional lists": post(
        "action=ls&meta[path]=chris/&meta[retSpec]=name&meta[retSpec]=bytes"
    ),
    "a form with blanks": post(NESTED + "&meta[substr]=&meta[prependBucketPath]="),
    "a multipart form": post(multipart(("d_msg", TEXT.encode())), MULTIPART),
    "a multipart form with a payload": post(
        multipart(("filename", b""), ("d_msg", json.dumps({"payload": LS}).encode())), MULTIPART, "Mode: file"
    ),
    "a query with JSON": get("action=ls&meta=" + quote(json.dumps(LS["meta"]))),
    "a query with brackets": get(NESTED),
    "a query as pfurl sends it": get(urlencode(LS)),
    "a query with a payload": get("payload=" + quote(TEXT)),
    "a query at the root": get(NESTED, "/"),
    "a query by HTTP/1.0": request("GET", f"/?{NESTED}", version="HTTP/1.0"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_message_is_the_same_in_all_its_forms(server: ThreadedHTTPServer, form: str) -> None:
    reply = answer(server.server_port, FORMS[form])
    assert (reply.status, reply.json) == (200, FOUND)


@pytest.mark.parametrize("ret_spec", ["meta[retSpec]=name", "meta[retSpec][]=name", "meta[retSpec][0]=name"])
def test_a_single_ret_spec_is_a_list_of_one(server: ThreadedHTTPServer, ret_spec: str) -> None:
    listed = [{"name": row["name"]} for row in FOUND["ls"]]  # type: ignore[attr-defined]
    assert answer(server.server_port, post("action=ls&meta[path]=chris/&" + ret_spec)).json["ls"] == listed
    assert ask(server, {"action": "ls", "meta": {"path": "chris/", "retSpec": "name"}})[1]["ls"] == listed


@pytest.mark.parametrize("encode", [str, quote])
def test_names_with_blanks_underscores_and_accents_come_through_a_query(
    server: ThreadedHTTPServer, encode: Any
) -> None:
    query = "action=objExists&meta[obj]=" + encode("chris/_\xe9.dcm")
    data = (
        f"GET {CMD}?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    )  # as curl sends it: UTF-8, not escaped
    assert answer(server.server_port, data).json == {"status": True, "objPath": "chris/_\xe9.dcm"}


def test_head_is_get_without_the_body(server: ThreadedHTTPServer) -> None:
    data = exchange(server.server_port, request("HEAD", f"{CMD}?{NESTED}"))
    (head,) = answers(data, to_head=True)
    full = answer(server.server_port, get(NESTED))
    assert head.status == 200
    own = {"date": "", "x-request-id": ""}
    assert head.headers | own == full.headers | own
    (refused,) = answers(exchange(server.server_port, request("HEAD", "/x")), to_head=True)
    assert refused.status == 404


def test_a_reply_is_indented_json_with_its_length_and_nothing_else(server: ThreadedHTTPServer) -> None:
    reply = answer(server.server_port, post(TEXT))
    assert reply.body.decode() == json.dumps(FOUND, indent=4)
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["content-length"] == str(len(reply.body))
    assert reply.headers["cache-control"] == "no-store"
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert "python" not in reply.headers["server"].lower()


def test_an_action_that_finds_nothing_did_run(server: ThreadedHTTPServer) -> None:
    status, reply = ask(server, {"action": "ls", "meta": {"path": "nothing/"}})
    assert (status, reply["status"], reply["ls"]) == (200, False, [])


def test_a_missing_object_is_404_and_a_store_that_does_not_answer_503(
    server: ThreadedHTTPServer,
) -> None:
    missing = answer(server.server_port, post(message("objStat", obj="chris/b.dcm")))
    assert (missing.status, missing.json["error"]["type"]) == (404, "NotFoundError")
    with socket.socket() as nobody, contextlib.ExitStack() as stack:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/auth/v1.0"
        storage = stack.enter_context(open_storage(type="swift", auth_url=url, retries=0))
        deaf = stack.enter_context(serving(StoreHandler(storage)))
        reply = answer(deaf.server_port, post(TEXT))
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert reply.json["error"]["type"] == "UnavailableError"


def test_http_response_gives_a_page_without_markup() -> None:
    handler = StoreHandler(settings=Settings(type="memory", http_response=True))
    echo = "<script>alert('&amp;')</script>"
    try:
        with serving(handler) as server:
            reply = answer(server.server_port, post(message("hello", askAbout="echoBack", echoBack=echo)))
            refused = answer(server.server_port, post(message(echo)))
    finally:
        handler.close()
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.json["d_ret"]["echoBack"]["msg"] == echo
    for each in (reply, refused):
        assert not {b"<", b">", b"&"} & {each.body[at : at + 1] for at in range(len(each.body))}
        assert each.headers["x-content-type-options"] == "nosniff"


PARTS = [
    ("d_msg", message("objPut", toObject="chris/up.dcm").encode()),
    ("local", b"\0\r\n--limi\xff"),
    ("filename", b"/tmp/up.dcm"),
]


@pytest.mark.parametrize(
    "parts", list(itertools.permutations(PARTS)), ids=lambda parts: "-".join(name for name, _ in parts)
)
def test_the_parts_of_an_upload_come_in_any_order(parts: tuple[tuple[str, bytes], ...]) -> None:
    with open_storage(type="memory") as storage, serving(StoreHandler(storage)) as server:
        reply = answer(server.server_port, post(multipart(*parts), MULTIPART, "Mode: file"))
        assert content_of(storage, "chris/up.dcm") == b"\0\r\n--limi\xff"
    assert reply.status == 200
    assert reply.json["objectFileList"] == ["chris/up.dcm"]
    assert reply.json["localFileList"] == ["/tmp/up.dcm"]


def content_of(storage: Storage, key: str) -> bytes:
    sink = io.BytesIO()
    storage.get(key, sink)
    return sink.getvalue()


@pytest.mark.parametrize("size", [0, 1, 65_536, 5_000_000])
def test_an_upload_is_stored_byte_for_byte(storage: Storage, size: int) -> None:
    content = random.Random(size).randbytes(size)
    with serving(StoreHandler(storage)) as server:
        assert put(server, "chris/up.dcm", content)["bytes"] == size
    assert content_of(storage, "chris/up.dcm") == content


def test_an_upload_may_come_in_chunks(storage: Storage) -> None:
    form = multipart(*PARTS)
    data = chunked(*(form[start : start + 10] for start in range(0, len(form), 10)))
    data = data.replace(b"Host: localhost", f"Host: localhost\r\n{MULTIPART}".encode(), 1)
    with serving(StoreHandler(storage)) as server:
        assert answer(server.server_port, data).status == 200
    assert content_of(storage, "chris/up.dcm") == PARTS[1][1]


def test_a_file_that_no_action_takes_is_mentioned(server: ThreadedHTTPServer) -> None:
    fields = ("d_msg", TEXT.encode()), ("local", b"content")
    reply = answer(server.server_port, post(multipart(*fields), MULTIPART)).json
    assert reply["ls"] == FOUND["ls"]
    assert "not used" in reply["warnings"][0]


def test_one_connection_takes_many_requests(server: ThreadedHTTPServer) -> None:
    connection = client(server.server_port)
    with contextlib.closing(connection):
        sockets = []
        for method, path, body in [
            ("POST", CMD, TEXT),
            ("POST", CMD, "junk"),
            ("POST", CMD, NESTED),
            ("GET", f"{CMD}?{NESTED}", None),
            ("HEAD", f"{CMD}?{NESTED}", None),
            ("GET", f"{CMD}?action=fly", None),
            ("POST", CMD, iter([TEXT.encode()])),
            ("POST", CMD, TEXT),
        ]:
            connection.request(method, path, body)
            reply = connection.getresponse()
            assert (reply.read() != b"") is (method != "HEAD")
            sockets.append(connection.sock)
    assert sockets == sockets[:1] * 8
    assert sockets[0] is not None


def test_requests_may_be_sent_before_the_replies_are_read(server: ThreadedHTTPServer) -> None:
    echoes = [message("hello", askAbout="echoBack", echoBack=number) for number in range(20)]
    found = answers(exchange(server.server_port, b"".join(post(each) for each in echoes)))
    assert [each.json["d_ret"]["echoBack"]["msg"] for each in found] == list(range(20))


@pytest.mark.parametrize(
    ("version", "headers", "stays"),
    [
        ("HTTP/1.1", [], True),
        ("HTTP/1.1", ["Connection: close"], False),
        ("HTTP/1.0", [], False),
        ("HTTP/1.0", ["Connection: keep-alive"], True),
    ],
)
def test_a_connection_stays_open_as_its_client_asks(
    server: ThreadedHTTPServer, version: str, headers: list[str], stays: bool
) -> None:
    one = request("POST", CMD, f"Content-Length: {len(TEXT)}", *headers, body=TEXT, version=version)
    found = answers(exchange(server.server_port, one * 3))
    assert len(found) == (3 if stays else 1)
    assert found[0].headers.get("connection") == (None if stays else "close")


def test_a_client_that_expects_to_be_asked_for_the_body_is_asked(server: ThreadedHTTPServer) -> None:
    head = request("POST", CMD, f"Content-Length: {len(TEXT)}", "Expect: 100-continue")
    with connected(server.server_port) as connection:
        connection.sendall(head)
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(TEXT.encode())
        connection.shutdown(socket.SHUT_WR)
        (reply,) = answers(b"".join(iter(lambda: connection.recv(65536), b"")))
    assert reply.json == FOUND


def test_a_client_that_is_refused_is_not_asked_for_the_body(server: ThreadedHTTPServer) -> None:
    head = request("POST", "/elsewhere", f"Content-Length: {len(TEXT)}", "Expect: 100-continue")
    reply = answer(server.server_port, head)
    assert (reply.status, reply.headers["connection"]) == (404, "close")


def test_32_clients_at_once_are_all_answered(storage: Storage) -> None:
    with serving(StoreHandler(storage)) as server, ThreadPoolExecutor(32) as pool:
        together = threading.Barrier(32)

        def talk(number: int) -> list[Any]:
            together.wait(30)
            put(server, f"chris/{number:02}", bytes(number))
            return [
                ask(server, message("ls", path=f"chris/{number:02}", retSpec=["bytes"])) for _ in range(3)
            ]

        replies = list(pool.map(talk, range(32)))
    assert replies == [[(200, {"status": True, "ls": [{"bytes": number}]})] * 3 for number in range(32)]


def list_100_times(handler: StoreHandler) -> list[Answer]:
    with serving(handler) as server, ThreadPoolExecutor(8) as pool:
        for number in range(50):
            put(server, f"chris/{number}/a", b"a")
        by_one = answers(exchange(server.server_port, post(TEXT) * 50))
        # a folder each: the same listing, asked for at the same time, may be asked of the store once
        folders = [post(message("ls", path=f"chris/{number}")) for number in range(50)]
        return by_one + list(pool.map(lambda each: answer(server.server_port, each), folders))


def test_100_listings_cost_one_login(tmp_path: Path) -> None:
    log = tmp_path / "requests"
    with running(log=log) as swift, open_storage(**swift_options(swift)) as storage:
        found = list_100_times(StoreHandler(storage))
    assert [each.json["status"] for each in found] == [True] * 100
    lines = log.read_text().splitlines()
    assert len([line for line in lines if "/auth/v1.0" in line]) == 1
    listings = [line.split("&prefix=")[1].split("&")[0] for line in lines if "&prefix=chris%2F" in line]
    # the first 50 are of the PUTs
    del listings[:50]
    assert listings[:50] == ["chris%2F"] * 50
    assert sorted(listings[50:]) == sorted(f"chris%2F{number}" for number in range(50))


SET = message("internalctl", var="/swift/container_name", set="evil")
REPLACE = message("internalctl", var="swift", valueReplace="evil")
QUIT = message("quit", ctl={"serverCmd": "quit"})


@pytest.mark.parametrize("order", [QUIT, SET, REPLACE, '{"meta": {"ctl": {"serverCmd": "quit"}}}'])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda order: post(order, "Origin: http://evil.example"),
        lambda order: post(order, "Origin: null"),
        lambda order: post(order, "X-Forwarded-For: 10.0.0.1"),
        lambda order: post(order, "Forwarded: for=10.0.0.1"),
        lambda order: post(order, "X-Real-IP: 10.0.0.1"),
        lambda order: post(order, "Via: 1.1 proxy"),
        lambda order: post(multipart(("d_msg", order.encode())), MULTIPART),
        lambda order: get("payload=" + quote(order)),
        lambda order: post("a=&" + urlencode(_flat(json.loads(order)))),
    ],
    ids=["origin", "null", "x-forwarded-for", "forwarded", "x-real-ip", "via", "multipart", "get", "form"],
)
def test_an_order_is_taken_only_from_a_program_of_this_machine(
    server: ThreadedHTTPServer, transport: Transport, order: str, wrap: Any
) -> None:
    data = wrap(order)
    if transport.context and any(each in data for each in (b"Forwarded", b"X-Real", b"Via")):
        pytest.skip("a token for all keys may administer through a proxy, too")
    reply = answer(server.server_port, data)
    assert reply.json["error"]["type"] in ("ForbiddenError", "MethodNotAllowedError")
    assert reply.status in (403, 405)
    assert server.handler.settings.swift.container_name == "users"
    assert ask(server, HELLO)[0] == 200


def _flat(content: dict[str, Any]) -> dict[str, str]:
    """Flatten a message into the fields of a form."""
    flat = {f"meta[{key}]": value for key, value in content["meta"].items() if isinstance(value, str)}
    ctl = {f"meta[ctl][{key}]": value for key, value in content["meta"].get("ctl", {}).items()}
    return flat | ctl | {"action": content.get("action", "x")}


def test_settings_that_are_set_hold_for_the_next_message() -> None:
    handler = StoreHandler(settings=Settings(type="memory"))
    try:
        with serving(handler) as server:
            assert ask(server, message("internalctl", var="/swift/container_name", set="new"))[0] == 200
            shown = ask(server, message("internalctl", var="/swift/container_name", get="x"))[1]
    finally:
        handler.close()
    assert shown == {"d_ret": {"/swift/container_name": "new"}, "status": True}
