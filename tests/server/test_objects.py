"""Objects as resources of HTTP: /api/v1/objects."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import io
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.contract import Attributes, ByteRange, Sink
from pfstorage.backends.errors import object_changed_error
from pfstorage.backends.memory import MemoryStorage
from pfstorage.devswift import DevSwift
from pfstorage.errors import ContainerNotFoundError
from pfstorage.server.exchange import matches_etag
from pfstorage.server.options import ServerOptions
from pfstorage.settings.model import Settings
from tests.conftest import run, running_server, serving, swift_options, write_tree
from tests.support.exchange import MULTIPART, answer, connected, exchange, multipart, request
from tests.support.faults import Fault, proxy_to
from tests.support.large import segments

OBJECTS = "/api/v1/objects"
CONTENT = bytes(range(256)) * 3000


@pytest.fixture
def server(storage: Storage) -> Iterator[ThreadedHTTPServer]:
    with serving(StoreHandler(storage)) as server:
        yield server


Answered = tuple[int, dict[str, str], bytes]


def ask(
    server: ThreadedHTTPServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> Answered:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    with contextlib.closing(connection):
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, f"{OBJECTS}{path}", body, given)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()


def test_a_stored_object_comes_back(server: ThreadedHTTPServer) -> None:
    status, headers, text = ask(server, "PUT", "/chris/a.dcm", CONTENT, Content_Type="application/dicom")
    assert status == 201
    row = json.loads(text)["object"]
    assert (row["name"], row["bytes"], row["content_type"]) == (
        "chris/a.dcm",
        len(CONTENT),
        "application/dicom",
    )
    status, got, content = ask(server, "GET", "/chris/a.dcm")
    assert (status, content) == (200, CONTENT)
    assert got["ETag"] == headers["ETag"] == f'"{hashlib.md5(CONTENT).hexdigest()}"'
    assert got["Content-Type"] == "application/dicom"
    assert got["Content-Disposition"] == "attachment; filename*=UTF-8''a.dcm"
    assert got["Last-Modified"].endswith(" GMT")
    status, head, content = ask(server, "HEAD", "/chris/a.dcm")
    assert (status, content, head["Content-Length"]) == (200, b"", str(len(CONTENT)))


@pytest.mark.parametrize("kind", ["a/\xe4", "a/b\tc", "a/" + "b" * 254])
def test_a_content_type_that_no_store_takes_is_the_fault_of_the_client(
    server: ThreadedHTTPServer, kind: str
) -> None:
    assert ask(server, "PUT", "/a", b"x", Content_Type=kind)[0] == 400
    assert ask(server, "GET", "/a")[0] == 404


@pytest.mark.parametrize(
    "key", ["a b", "ä/ö", "a%2Fb", "a?b#c;d", "100%", "<img src=x onerror=alert(1)>", 'q"uote']
)
def test_keys_are_the_decoded_path(server: ThreadedHTTPServer, key: str) -> None:
    assert ask(server, "PUT", f"/{quote(key)}", b"x")[0] == 201
    status, headers, content = ask(server, "GET", f"/{quote(key)}")
    assert (status, content) == (200, b"x")
    assert "\n" not in headers["Content-Disposition"]
    rows = json.loads(ask(server, "GET", "")[2])["objects"]
    assert [row["name"] for row in rows] == [key]


@pytest.mark.parametrize(
    "path", ["/../x", "/a/../../x", "/a/%2e%2e/x", "/a/./x", "/%00", "/%ff", "/", "/" + "x" * 1025]
)
def test_keys_that_no_store_holds_faithfully_are_refused(server: ThreadedHTTPServer, path: str) -> None:
    for method in ("GET", "PUT"):
        status, _, text = ask(server, method, path, b"x" if method == "PUT" else None)
        assert (status, json.loads(text)["status"]) == (400, False)


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=100-", 206, slice(100, None)),
        ("bytes=-5", 206, slice(-5, None)),
        ("bytes=767000-9999999", 206, slice(767000, None)),
        ("bytes=0-", 200, slice(None)),
        ("bytes=-99999999", 200, slice(None)),
        ("bytes=5-2", 200, slice(None)),
        ("bytes=0-1,5-6", 200, slice(None)),
        ("lines=0-9", 200, slice(None)),
        ("bytes=-", 200, slice(None)),
        ("bytes=768000-", 416, None),
        ("bytes=-0", 416, None),
    ],
)
def test_a_part_of_an_object_may_be_asked_for(
    server: ThreadedHTTPServer, asked: str, status: int, part: slice | None
) -> None:
    ask(server, "PUT", "/a", CONTENT)
    got, headers, content = ask(server, "GET", "/a", Range=asked)
    assert got == status
    if part is not None:
        assert content == CONTENT[part]
    if status == 206:
        start = len(CONTENT) - len(CONTENT[part]) if part and part.start and part.stop is None else 0
        assert headers["Content-Range"] == f"bytes {start}-{start + len(content) - 1}/{len(CONTENT)}"
    if status == 416:
        assert headers["Content-Range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_objects_go_within_the_bandwidth_of_all(method: str) -> None:
    with contextlib.closing(open_storage("memory")) as storage:
        handler = StoreHandler(storage)
        with serving(handler) as server:
            ask(server, "PUT", "/a", CONTENT)
            handler.state.set("/this/bwLimit", len(CONTENT))
            started = time.monotonic()
            for _ in range(2):
                assert ask(server, method, "/a", CONTENT if method == "PUT" else None)[0] in {200, 201}
            assert time.monotonic() - started >= 1.5


def test_disconnected_clients_use_no_bandwidth() -> None:
    with contextlib.closing(open_storage("memory")) as storage:
        handler = StoreHandler(storage)
        with serving(handler) as server:
            for path in ("/big", "/small"):
                assert ask(server, "PUT", path, CONTENT if path == "/big" else b"x")[0] == 201
            handler.state.set("/this/bwLimit", 50_000)  # a piece of a big one takes some seconds
            clients = [http.client.HTTPConnection("127.0.0.1", server.server_port) for _ in range(25)]
            for client in clients:
                client.request("GET", f"{OBJECTS}/big")
            time.sleep(0.5)
            for client in clients:
                client.close()
            started = time.monotonic()
            assert ask(server, "GET", "/small")[::2] == (200, b"x")
            assert time.monotonic() - started < 12


def test_an_object_damaged_in_the_store_never_looks_complete(tmp_path: Path) -> None:
    content = {"big": CONTENT, "small": b"0123456789"}
    with (
        contextlib.closing(open_storage("filesystem", store_base=str(tmp_path))) as storage,
        serving(StoreHandler(storage)) as server,
    ):
        for name, text in content.items():
            assert ask(server, "PUT", f"/{name}", text)[0] == 201
            file = tmp_path / name
            times = file.stat().st_atime_ns, file.stat().st_mtime_ns
            with file.open("r+b") as stream:
                stream.write(b"x")
            os.utime(file, ns=times)
        with pytest.raises(http.client.IncompleteRead) as broken:
            ask(server, "GET", "/big")
        assert len(broken.value.partial) < len(CONTENT)
        status, _, text = ask(server, "GET", "/small")
        assert (status, json.loads(text)["error"]["type"]) == (502, "IntegrityError")
        assert ask(server, "GET", "/small", Range="bytes=1-3")[::2] == (206, b"123")  # none of this is known


class Replaced(MemoryStorage):
    """A store where another writer replaces or removes an object just before it is read."""

    def __init__(self) -> None:
        super().__init__(Settings(type="memory"))
        self.change: Callable[[], object] = lambda: None

    def get(self, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
        self.change()
        return super().get(key, sink, byte_range)

    def replace_now(self) -> None:
        """Raise the error of an object that is replaced between two tries of a download."""
        raise object_changed_error("a")


def test_a_reply_names_an_object_that_is_being_replaced_or_removed() -> None:
    storage = Replaced()
    with serving(StoreHandler(storage)) as server:
        for change, status, kind in (
            (storage.replace_now, 503, "BusyError"),
            (lambda: storage.delete("a"), 404, "NotFoundError"),
        ):
            storage.put("a", io.BytesIO(b"old"), 3)
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
            with contextlib.closing(connection):
                storage.change = change
                connection.request("GET", f"{OBJECTS}/a")
                answer = connection.getresponse()
                assert (answer.status, json.loads(answer.read())["error"]["type"]) == (status, kind)
                assert ("Retry-After" in answer.headers) == (status == 503)
                assert "ETag" not in answer.headers
                storage.change = lambda: None
                connection.request("HEAD", f"{OBJECTS}/a")  # the connection is as good as before
                assert connection.getresponse().status == (200 if status == 503 else 404)
        text = metrics_of(server)
        assert 'pfstorage_messages_total{action="/api/v1/objects/",status="503"} 1.0' in text
        assert 'pfstorage_messages_total{action="/api/v1/objects/",status="200"} 1.0' in text  # that of HEAD


def metrics_of(server: ThreadedHTTPServer) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


@pytest.mark.parametrize("kind", ["text/plain\r\nX-Evil: 1", "text/plain\n", "text/\u65e5\u672c"])
def test_a_content_type_that_fits_no_header_is_sent_as_unknown(kind: str) -> None:
    with contextlib.closing(open_storage("memory")) as storage, serving(StoreHandler(storage)) as server:
        storage.put("a", io.BytesIO(b"a"), 1, Attributes(kind))
        assert storage.head("a").content_type == kind
        status, headers, content = ask(server, "GET", "/a")
        assert (status, content, headers["Content-Type"]) == (200, b"a", "application/octet-stream")
        assert "X-Evil" not in headers


def test_an_object_may_have_as_many_bytes_as_it_may_and_no_more() -> None:
    options = ServerOptions(max_upload=1000)
    with contextlib.closing(open_storage("memory")) as storage:
        made = ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), options)
        with running_server(made) as server:
            for size, status in ((1001, 413), (1000, 201)):
                assert ask(server, "PUT", "/a", bytes(size))[0] == status
                body = f"{size:x}".encode() + b"\r\n" + bytes(size) + b"\r\n0\r\n\r\n"
                sent = request("PUT", f"{OBJECTS}/a", "Transfer-Encoding: chunked", body=body)
                assert answer(server.server_port, sent).status == status
        assert [each.size for each in storage.list("")] == [1000]


@pytest.mark.parametrize("path", ["/api/v1/cmd", f"{OBJECTS}/a"])
def test_an_announced_body_that_is_too_large_is_refused_before_it_is_sent(path: str) -> None:
    options = ServerOptions(max_upload=10_000_000)
    with contextlib.closing(open_storage("memory")) as storage:
        server = ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), options)
        with running_server(server), connected(server.server_port) as connection:
            headers = ("Content-Length: 10000001", "Expect: 100-continue")
            connection.sendall(request("POST" if path.endswith("cmd") else "PUT", path, *headers))
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("limit", ["0", "-1", "10001", "9" * 5000, "x", "", "1.5"])
def test_a_limit_that_can_not_be_is_refused(server: ThreadedHTTPServer, limit: str) -> None:
    assert ask(server, "GET", f"?limit={limit}")[0] == 400


def test_contradictory_requests_are_refused(server: ThreadedHTTPServer) -> None:
    etag = ask(server, "PUT", "/a", b"a")[1]["ETag"]
    assert ask(server, "PUT", "/a#b", b"b")[0] == 400  # it would be the object a
    assert ask(server, "PUT", "/a", b"b", Content_MD5="\xe4")[0] == 400
    assert ask(server, "GET", "/a", If_Match=f"W/{etag}")[0] == 412
    assert ask(server, "GET", "/a", If_Match=etag)[::2] == (200, b"a")


def test_the_head_of_an_object_is_that_of_all_of_it(server: ThreadedHTTPServer) -> None:
    ask(server, "PUT", "/a", CONTENT)
    status, headers, _ = ask(server, "HEAD", "/a", Range="bytes=0-9")
    assert (status, headers["Content-Length"]) == (200, str(len(CONTENT)))
    assert "Content-Range" not in headers


def test_an_empty_object_exists(server: ThreadedHTTPServer) -> None:
    assert ask(server, "PUT", "/a", b"")[0] == 201
    assert ask(server, "GET", "/a")[::2] == (200, b"")
    assert ask(server, "GET", "/a", Range="bytes=0-1")[0] == 416


def test_an_unchanged_object_is_not_sent_again(server: ThreadedHTTPServer) -> None:
    etag = ask(server, "PUT", "/a", CONTENT)[1]["ETag"]
    for header in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        assert ask(server, "GET", "/a", If_None_Match=header)[::2] == (304, b"")
    assert ask(server, "GET", "/a", If_None_Match='"x"')[0] == 200
    assert ask(server, "GET", "/a", If_None_Match="")[0] == 200
    assert ask(server, "GET", "/a", If_None_Match=etag, If_Match='"x"')[0] == 412


def test_no_header_names_an_object_that_has_no_etag() -> None:
    assert not any(matches_etag(header, "") for header in ("", ",", '"x"'))
    assert matches_etag("*", "")


def test_a_body_is_stored_only_as_it_was_sent(server: ThreadedHTTPServer) -> None:
    right = base64.b64encode(hashlib.md5(b"right").digest()).decode()
    assert ask(server, "PUT", "/a", b"wrong", Content_MD5=right)[0] == 400
    assert ask(server, "PUT", "/a", b"right", Content_MD5="nonsense")[0] == 400
    assert ask(server, "GET", "/a")[0] == 404
    assert ask(server, "PUT", "/a", b"right", Content_MD5=right)[0] == 201


MD5_OF_X = base64.b64encode(hashlib.md5(b"x").digest()).decode()


def test_an_existing_object_may_be_kept(server: ThreadedHTTPServer) -> None:
    assert ask(server, "PUT", "/a", b"first", If_None_Match="*")[0] == 201
    assert ask(server, "PUT", "/a", b"second", If_None_Match="*")[0] == 412
    assert ask(server, "GET", "/a")[2] == b"first"


@pytest.mark.parametrize(
    "headers",
    [
        ("If-None-Match:",),
        ("If-None-Match: ", "If-None-Match: *"),
        ("If-None-Match: *", 'If-None-Match: "x"'),
        ("If-None-Match: *", "If-None-Match: *"),
        ("Content-MD5:",),
        (f"Content-MD5: {MD5_OF_X}", "Content-MD5: "),
        (f"Content-MD5: {MD5_OF_X}", f"Content-MD5: {MD5_OF_X[::-1]}"),
        ("Content-Type: text/plain", "Content-Type: text/html"),
        ("Content-Encoding: gzip",),
        ("Content-Encoding: identity", "Content-Encoding: br"),
    ],
)
def test_conditions_are_never_ignored(server: ThreadedHTTPServer, headers: tuple[str, ...]) -> None:
    ask(server, "PUT", "/a", b"first")
    sent = request("PUT", "/api/v1/objects/a", *headers, "Content-Length: 1", body=b"x")
    is_encoded = headers == ("Content-Encoding: gzip",)
    assert answer(server.server_port, sent).status == (415 if is_encoded else 400)
    assert ask(server, "GET", "/a")[2] == b"first"


@pytest.mark.parametrize(
    ("name", "values", "status"),
    [
        ("If-None-Match", ('"x"', "{etag}"), 304),
        ("If-None-Match", ("{etag}", '"x"'), 304),
        ("If-None-Match", ('"x"', '"y"'), 200),
        ("If-Match", ('"x"', "{etag}"), 200),
        ("If-Match", ('"x"', '"y"'), 412),
        ("If-Match", ("",), 412),
        ("Range", ("bytes=0-0", "bytes=1-1"), 200),
    ],
)
def test_a_condition_in_several_headers_is_one_list(
    server: ThreadedHTTPServer, name: str, values: tuple[str, ...], status: int
) -> None:
    etag = ask(server, "PUT", "/a", b"first")[1]["ETag"]
    sent = request("GET", "/api/v1/objects/a", *(f"{name}: {value.format(etag=etag)}" for value in values))
    found = exchange(server.server_port, sent)
    assert found.startswith(f"HTTP/1.1 {status} ".encode())
    assert found.endswith(b"\r\n\r\nfirst") == (status == 200)


BEFORE, AFTER = "Thu, 01 Jan 2015 00:00:00 GMT", "Thu, 01 Jan 2150 00:00:00 GMT"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If_Modified_Since": BEFORE}, 200),
        ({"If_Modified_Since": AFTER}, 304),
        ({"If_Modified_Since": "{modified}"}, 304),
        ({"If_Modified_Since": "yesterday"}, 200),
        ({"If_Modified_Since": "Thu, 99 Jan 2150 00:00:00 GMT"}, 200),
        ({"If_Modified_Since": ""}, 200),
        ({"If_Modified_Since": AFTER, "If_None_Match": '"x"'}, 200),
        ({"If_Modified_Since": BEFORE, "If_None_Match": "{etag}"}, 304),
        ({"If_Unmodified_Since": BEFORE}, 412),
        ({"If_Unmodified_Since": AFTER}, 200),
        ({"If_Unmodified_Since": "{modified}"}, 200),
        ({"If_Unmodified_Since": "yesterday"}, 200),
        ({"If_Unmodified_Since": BEFORE, "If_Match": "{etag}"}, 200),
        ({"If_Unmodified_Since": AFTER, "If_Match": '"x"'}, 412),
        ({"If_Unmodified_Since": BEFORE, "If_Modified_Since": AFTER}, 412),
        ({"If_Unmodified_Since": AFTER, "If_Modified_Since": AFTER}, 304),
    ],
)
def test_a_time_is_a_condition_where_no_etag_is(
    server: ThreadedHTTPServer, method: str, headers: dict[str, str], status: int
) -> None:
    assert ask(server, "PUT", "/a", b"first")[0] == 201
    found = ask(server, "HEAD", "/a")[1]
    given = {
        name: value.format(etag=found["ETag"], modified=found["Last-Modified"])
        for name, value in headers.items()
    }
    received, answered, body = ask(server, method, "/a", **given)
    assert received == status
    assert (body == b"first") == (status == 200 and method == "GET")
    if status != 412:
        assert answered["Last-Modified"] == found["Last-Modified"]


def test_a_listing_has_pages_and_folders(server: ThreadedHTTPServer) -> None:
    for key in ("a/1", "a/2", "b/1", "c"):
        ask(server, "PUT", f"/{key}", b"x")
    page = json.loads(ask(server, "GET", "?delimiter=/&limit=2")[2])
    assert [row["subdir"] for row in page["objects"]] == ["a/", "b/"]
    page = json.loads(ask(server, "GET", f"?delimiter=/&limit=2&marker={quote(page['marker'])}")[2])
    assert ([row["name"] for row in page["objects"]], page["marker"]) == (["c"], None)
    assert page["writable"] is True
    assert [row["name"] for row in json.loads(ask(server, "GET", "?prefix=a/")[2])["objects"]] == [
        "a/1",
        "a/2",
    ]
    for query in ("?limit=0", "?limit=x", "?limit=10001", "?fly=1", "?prefix=a&prefix=b", "?prefix=%ff"):
        assert ask(server, "GET", query)[0] == 400


def test_a_replacement_of_a_large_object_leaves_its_segments(swift: DevSwift, tmp_path: Path) -> None:
    write_tree(tmp_path, {"data/a": CONTENT})
    with open_storage(**swift_options(swift)) as storage, serving(StoreHandler(storage)) as server:
        container = storage.settings.swift.container_name
        run(
            storage, "objPut", {"segmentSize": "256K"}, putSpec="data", inLocation="x", mapLocationOver="data"
        )
        before = segments(swift, container)
        assert before
        assert ask(server, "GET", "/x/a")[2] == CONTENT
        assert ask(server, "GET", "/x/a", Range="bytes=300000-300009")[2] == CONTENT[300000:300010]
        assert ask(server, "PUT", "/x/a", b"small")[0] == 201
        assert segments(swift, container) == before
        assert ask(server, "GET", "/x/a")[2] == b"small"


@pytest.mark.parametrize("at", [10, 299_990, len(CONTENT) - 1])
def test_a_large_object_that_comes_damaged_is_never_taken_for_whole(
    swift: DevSwift, tmp_path: Path, at: int
) -> None:
    """Its ETag is not the MD5 of its bytes: those of its segments are."""
    write_tree(tmp_path, {"data/a": CONTENT})
    put_spec = {"putSpec": "data", "inLocation": "x", "mapLocationOver": "data"}
    with proxy_to(swift.port) as proxy:
        options = swift_options(swift, auth_url=proxy.auth_url)
        with open_storage(**options) as storage, serving(StoreHandler(storage)) as server:
            run(storage, "objPut", {"segmentSize": "256K"}, **put_spec)
            assert ask(server, "GET", "/x/a")[2] == CONTENT
            proxy.fault(Fault("flip", at=at), "GET", where=lambda each: each.key == "x/a" and not each.query)
            if at < 262_144:  # nothing has left before the first segment is whole
                assert ask(server, "GET", "/x/a")[0] == 502
                return
            with pytest.raises(http.client.IncompleteRead):
                ask(server, "GET", "/x/a")


def test_a_token_that_is_revoked_stores_nothing_that_was_on_its_way(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.cfg"
    form = multipart(("d_msg", b'{"action": "objPut", "meta": {"toObject": "b"}}'), ("local", b"x" * 50))
    bodies = {"PUT /api/v1/objects/a": ("", b"x" * 50), "POST /api/v1/cmd": (MULTIPART + "\r\n", form)}

    def write(*names: str) -> None:
        lines = "".join(f"{name} = {name}-0123456789abcdef\n" for name in names)
        tokens.write_text(f"[AUTH TOKENS]\n{lines}")
        tokens.chmod(0o600)

    write("guest", "other")
    with contextlib.closing(open_storage("memory")) as storage, contextlib.ExitStack() as stack:
        server = ThreadedHTTPServer(
            ("127.0.0.1", 0), StoreHandler(storage), ServerOptions(token_path=str(tokens))
        )
        stack.enter_context(running_server(server))
        for line, (headers, body) in bodies.items():
            connection = socket.create_connection(("127.0.0.1", server.server_port), timeout=30)
            with connection:
                write("guest", "other")
                head = f"{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n{headers}"
                head += "Expect: 100-continue\r\nAuthorization: Bearer guest-0123456789abcdef\r\n\r\n"
                connection.sendall(head.encode())
                assert b"100 Continue" in connection.recv(1000)
                write("other")
                connection.sendall(body)
                assert b"HTTP/1.1 401 " in connection.recv(1000)
        with pytest.raises(ContainerNotFoundError):
            list(storage.list())


def test_other_methods_are_not_taken(server: ThreadedHTTPServer) -> None:
    assert [ask(server, method, "/a", b"x")[0] for method in ("POST", "DELETE", "PATCH")] == [405] * 3
    for method in ("POST", "DELETE", "PATCH"):
        headers = ask(server, method, "/a", b"x")[1]
        assert headers["Allow"] == "GET, HEAD, PUT"
        assert headers["X-Request-Id"]
    assert ask(server, "GET", "/missing")[0] == 404


def test_a_part_of_another_object_is_never_joined_to_what_the_client_has(server: ThreadedHTTPServer) -> None:
    etag = ask(server, "PUT", "/a", CONTENT)[1]["ETag"]
    assert ask(server, "GET", "/a", Range="bytes=2-", If_Range=etag)[0] == 206
    assert ask(server, "GET", "/a", Range="bytes=2-", If_Range='"other"')[::2] == (200, CONTENT)
    assert ask(server, "GET", "/a", If_Match=etag)[0] == 200
    assert ask(server, "GET", "/a", If_Match='"other"')[0] == 412


def test_an_upload_that_is_not_allowed_is_refused_before_it_comes(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.cfg"
    tokens.write_text(
        "[AUTH TOKENS]\nreader = reader-0123456789abcdef\nguest = guest-0123456789abcdef\n"
        "[TOKEN RIGHTS]\nreader = read\nguest = write own/\n"
    )
    tokens.chmod(0o600)
    options = ServerOptions(token_path=str(tokens))
    with contextlib.closing(open_storage("memory")) as storage:
        server = ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), options)
        with running_server(server):
            for who in ("reader", "guest"):
                with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
                    connection.sendall(
                        b"PUT /api/v1/objects/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
                        b"Authorization: Bearer %b-0123456789abcdef\r\n\r\n" % who.encode()
                    )
                    assert b" 403 " in connection.recv(1000)
            storage.put("own/a", io.BytesIO(b"a"), 1)
            for who, writable in {"reader": False, "guest": True}.items():
                token = f"Bearer {who}-0123456789abcdef"
                listing = json.loads(ask(server, "GET", "", Authorization=token)[2])
                assert listing["writable"] is writable
