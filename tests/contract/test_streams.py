"""Uploads that are streamed to the store, and uploads that the disk keeps first: the store gets all or nothing."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import random
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.capabilities import takes_streams
from pfstorage.backends.contract import CHUNK, NO_ATTRIBUTES, Attributes, Source
from pfstorage.backends.memory import MemoryStorage
from pfstorage.devswift import DevSwift
from pfstorage.errors import BusyError, ContainerNotFoundError, UnavailableError
from pfstorage.server import spool
from pfstorage.server.endpoints.upload_stream import WINDOW, UploadStream
from pfstorage.server.options import ServerOptions
from pfstorage.server.spool import SpoolSpace
from tests.conftest import running_server, swift_options
from tests.support.exchange import MULTIPART, Answer, answers, multipart, request
from tests.support.faults import Fault, Proxy
from tests.support.large import segments
from tests.support.waiting import until

LARGE = random.Random(1).randbytes(3 * WINDOW + 5)
PATH = "/api/v1/objects/chris/a"


@pytest.fixture
def storage(storage: Storage) -> Storage:
    """Skip a backend without streams: the server first writes its uploads to the disk."""
    if not takes_streams(storage):
        pytest.skip("the backend takes no streams")
    return storage


@pytest.fixture
def no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the creation of each temporary file fail."""
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/directory")


@contextlib.contextmanager
def served(storage: Storage, *, segment_size: str = "", **options: Any) -> Iterator[ThreadedHTTPServer]:
    with contextlib.closing(StoreHandler(storage)) as handler:
        if segment_size:
            handler.state.set("/this/segmentSize", segment_size)
        with running_server(
            ThreadedHTTPServer(("127.0.0.1", 0), handler, ServerOptions(**options))
        ) as server:
            yield server


def head_of(size: int, *headers: str) -> bytes:
    return request("PUT", PATH, f"Content-Length: {size}", "Connection: close", *headers)


@contextlib.contextmanager
def connected(server: ThreadedHTTPServer, data: bytes) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as connection:
        with contextlib.suppress(ConnectionError):  # it may be refused before it is there
            connection.sendall(data)
        yield connection


def answer_of(connection: socket.socket) -> Answer:
    [answer] = answers(b"".join(iter(lambda: connection.recv(1 << 16), b"")))
    return answer


def put(server: ThreadedHTTPServer, content: bytes, *headers: str) -> Answer:
    with connected(server, head_of(len(content), *headers) + content) as connection:
        return answer_of(connection)


def keys_of(storage: Storage) -> list[str]:
    try:
        return [row.key for row in storage.list()]
    except ContainerNotFoundError:
        return []


def content_of(storage: Storage) -> bytes:
    sink = io.BytesIO()
    storage.get("chris/a", sink)
    return sink.getvalue()


# streamed uploads


@pytest.mark.parametrize("size", [0, WINDOW, len(LARGE)])
@pytest.mark.parametrize("segment_size", ["1G", "300K"])
def test_a_put_needs_no_room_on_the_disk(
    storage: Storage, no_disk: None, size: int, segment_size: str
) -> None:
    content = LARGE[:size]
    digest = base64.b64encode(hashlib.md5(content).digest()).decode()
    with served(storage, segment_size=segment_size) as server:
        answer = put(server, content, f"Content-MD5: {digest}", "Content-Type: text/x-mine")
        assert answer.status == 201, answer
    assert answer.json["object"]["bytes"] == size
    assert content_of(storage) == content
    info = storage.head("chris/a")
    assert answer.headers["etag"] == f'"{info.segments_etag or info.etag}"'
    assert info.content_type == "text/x-mine"


def test_a_large_put_goes_in_segments_as_it_comes(
    swift: DevSwift, swift_storage: Storage, no_disk: None
) -> None:
    container = swift_storage.settings.swift.container_name
    with (
        served(swift_storage, segment_size="1M") as server,
        connected(server, head_of(len(LARGE)) + LARGE[: 2 * WINDOW + 10]) as connection,
    ):
        until(lambda: len(segments(swift, container)) == 2)  # before the rest arrives
        assert keys_of(swift_storage) == []
        connection.sendall(LARGE[2 * WINDOW + 10 :])
        assert answer_of(connection).status == 201
    assert len(segments(swift, container)) == 4
    assert content_of(swift_storage) == LARGE


def test_the_first_bytes_of_a_put_determine_its_type(storage: Storage, no_disk: None) -> None:
    with served(storage) as server:
        assert put(server, bytes(128) + b"DICM" + LARGE).status == 201
    assert storage.head("chris/a").content_type == "application/dicom"


class Reported(MemoryStorage):
    """A storage that reports how far each put has read its body."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def put(
        self,
        key: str,
        body: Source,
        size: int,
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        storage = self

        class Counted:
            def read(self, size: int = -1) -> bytes:
                data = body.read(size)
                storage.read += len(data)
                return data

            def seek(self, offset: int, whence: int = 0) -> int:
                return body.seek(offset, whence)

            def tell(self) -> int:
                return body.tell()

        return super().put(key, Counted(), size, attributes, if_absent=if_absent)


def test_the_store_gets_the_first_bytes_while_the_client_still_sends() -> None:
    storage = Reported()
    with served(storage) as server, connected(server, head_of(len(LARGE)) + LARGE[:WINDOW]) as connection:
        until(lambda: storage.read == WINDOW)
        assert server.load.uploads.counts()["busy"] == 1
        connection.sendall(LARGE[WINDOW:])
        assert answer_of(connection).status == 201
        until(lambda: server.load.uploads.counts()["busy"] == 0)
    assert content_of(storage) == LARGE


def test_a_storage_that_takes_no_stream_gets_a_file(tmp_path: Path) -> None:
    class Old(Reported):
        takes_streams = False

    storage = Old()
    with served(storage) as server, connected(server, head_of(len(LARGE)) + LARGE[:WINDOW]) as connection:
        until(lambda: server.load.spool_space.used == WINDOW)
        assert storage.read == 0
        connection.sendall(LARGE[WINDOW:])
        assert answer_of(connection).status == 201
        until(lambda: server.load.spool_space.used == 0)
    assert content_of(storage) == LARGE


def test_each_upload_releases_its_permits(storage: Storage) -> None:
    with served(storage, max_requests=1) as server:
        gates = (server.load.requests, server.load.transfers, server.load.uploads)
        for size in (0, 1, WINDOW + 1) * 3:
            assert put(server, LARGE[:size]).status == 201
            until(lambda: [each.counts()["busy"] for each in gates] == [0, 0, 0])
        with connected(server, head_of(len(LARGE)) + LARGE[:WINDOW]):
            until(lambda: [each.counts()["busy"] for each in gates] == [0, 0, 1])
            with connected(server, head_of(len(LARGE)) + LARGE[:WINDOW]) as other:
                until(lambda: server.load.spool_space.used > 0)
                assert [each.counts()["busy"] for each in gates] == [0, 0, 1]
                other.sendall(LARGE[WINDOW:])
                assert answer_of(other).status == 201


def test_an_upload_that_finds_no_place_to_stream_is_stored_all_the_same(storage: Storage) -> None:
    with served(storage, max_requests=1) as server:
        server.load.uploads.enter()
        assert put(server, LARGE).status == 201
        server.load.uploads.leave()
    assert content_of(storage) == LARGE


# incomplete uploads are not stored


@pytest.fixture(params=["new", "replaced"])
def before(request: pytest.FixtureRequest, storage: Storage) -> list[str]:
    """The earlier content of the store: nothing, or an object with the same key."""
    if request.param == "replaced":
        storage.put("chris/a", io.BytesIO(b"before"), 6)
        return ["chris/a"]
    return []


def require_as_before(storage: Storage, before: list[str], request: pytest.FixtureRequest) -> None:
    assert keys_of(storage) == before
    if before:
        assert content_of(storage) == b"before"
    if storage.settings.type == "swift":
        assert segments(request.getfixturevalue("swift"), storage.settings.swift.container_name) == set()


@pytest.mark.parametrize("segment_size", ["1G", "300K"])
@pytest.mark.parametrize("sent", [0, 400_000, len(LARGE) - 1])
def test_a_client_that_stops_half_way_leaves_nothing(
    storage: Storage, before: list[str], sent: int, segment_size: str, request: pytest.FixtureRequest
) -> None:
    with served(storage, segment_size=segment_size) as server:
        with connected(server, head_of(len(LARGE)) + LARGE[:sent]) as connection:
            until(lambda: server.load.uploads.counts()["busy"] == 1)
            connection.shutdown(socket.SHUT_WR)
            assert answer_of(connection).status == 400
        with connected(server, head_of(len(LARGE)) + LARGE[:sent]) as connection:
            until(lambda: server.load.uploads.counts()["busy"] == 1)
        until(lambda: server.load.at_work == 0)
        assert server.load.uploads.counts()["busy"] == 0
    require_as_before(storage, before, request)


@pytest.mark.parametrize("segment_size", ["1G", "300K"])
def test_a_client_that_gets_too_slow_leaves_nothing(
    storage: Storage, before: list[str], segment_size: str, request: pytest.FixtureRequest
) -> None:
    with (
        served(storage, segment_size=segment_size, head_seconds=0.2, idle_seconds=0.3) as server,
        connected(server, head_of(len(LARGE)) + LARGE[: 2 * WINDOW]) as connection,
    ):
        answer = answer_of(connection)
    assert (answer.status, answer.json["error"]["type"]) == (408, "SlowRequestError")
    require_as_before(storage, before, request)


@pytest.mark.parametrize("segment_size", ["1G", "300K"])
@pytest.mark.parametrize("size", [1, len(LARGE)])
def test_a_body_of_another_md5_leaves_nothing(
    storage: Storage, before: list[str], size: int, segment_size: str, request: pytest.FixtureRequest
) -> None:
    digest = base64.b64encode(bytes(16)).decode()
    with served(storage, segment_size=segment_size) as server:
        answer = put(server, LARGE[:size], f"Content-MD5: {digest}")
    assert (answer.status, answer.json["error"]["type"]) == (400, "MessageError")
    require_as_before(storage, before, request)


@pytest.mark.parametrize("segment_size", ["1G", "300K"])
def test_an_object_that_is_to_stay_stays(
    storage: Storage, segment_size: str, request: pytest.FixtureRequest
) -> None:
    storage.put("chris/a", io.BytesIO(b"before"), 6)
    with served(storage, segment_size=segment_size) as server:
        assert put(server, LARGE, "If-None-Match: *").status == 412
    require_as_before(storage, ["chris/a"], request)


# a store that fails


@pytest.fixture
def behind(swift: DevSwift, proxy: Proxy) -> Iterator[Storage]:
    with open_storage(**swift_options(swift, auth_url=proxy.auth_url)) as storage:
        yield storage


@pytest.mark.parametrize("at", [0, 1000, WINDOW // 2])
@pytest.mark.parametrize("kind", ["reset", "close", "flip"])
def test_bytes_that_are_still_in_memory_are_sent_again(
    behind: Storage, proxy: Proxy, no_disk: None, kind: Any, at: int
) -> None:
    content = LARGE[:WINDOW]
    with served(behind) as server:
        assert put(server, b"x").status == 201  # the container is made
        proxy.forget()
        proxy.fault(Fault(kind, at=at, side="request"), "PUT", on={1})
        assert put(server, content).status == 201
    assert proxy.struck
    assert content_of(behind) == content


def test_a_store_that_breaks_off_in_the_middle_is_reported_and_keeps_nothing(
    behind: Storage, proxy: Proxy
) -> None:
    with served(behind) as server:
        assert put(server, b"before").status == 201
        proxy.forget()
        proxy.fault(Fault("reset", at=2 * WINDOW + 1000, side="request"), "PUT", on={1})
        answer = put(server, LARGE)
        assert (answer.status, answer.json["error"]["type"]) == (503, "UnavailableError")
        assert "does not answer" in answer.json["msg"]
        assert answer.headers["retry-after"]
        assert len(proxy.made("PUT")) == 1  # the bytes are gone: only the client has them
        assert content_of(behind) == b"before"
        assert put(server, LARGE).status == 201
    assert content_of(behind) == LARGE


def test_an_upload_damaged_on_its_way_that_can_not_be_sent_again_is_removed(
    behind: Storage, proxy: Proxy
) -> None:
    with served(behind) as server:
        assert put(server, b"before").status == 201
        proxy.forget()
        proxy.fault(Fault("flip", at=2 * WINDOW + 1000, side="request"), "PUT", on={1})
        answer = put(server, LARGE)
    assert (answer.status, answer.json["error"]["type"]) == (502, "IntegrityError")
    assert len(proxy.made("PUT")) == 1
    assert keys_of(behind) == []


@pytest.mark.parametrize("kind", ["reset", "flip"])
def test_a_segment_that_fails_leaves_no_other(
    swift: DevSwift, behind: Storage, proxy: Proxy, kind: Any
) -> None:
    with served(behind, segment_size="1500K") as server:
        assert put(server, b"before").status == 201
        proxy.forget()
        proxy.fault(Fault(kind, at=1_200_000, side="request"), "PUT", on={2})
        assert put(server, LARGE).status in (502, 503)
    assert content_of(behind) == b"before"
    assert segments(swift, behind.settings.swift.container_name) == set()


def test_a_store_that_falls_silent_is_not_asked_for_each_segment(swift: DevSwift, proxy: Proxy) -> None:
    options = {**swift_options(swift), "auth_url": proxy.auth_url, "timeout": 0.5}
    with open_storage(**options) as storage, served(storage, segment_size="1500K") as server:
        assert put(server, b"before").status == 201
        proxy.forget()
        proxy.fault(Fault("stall", at=1_200_000, seconds=60, side="request"), "PUT", on={2})
        answer = put(server, LARGE)
        assert (answer.status, answer.json["error"]["type"]) == (503, "UnavailableError")
        assert proxy.made("DELETE") == []
        assert content_of(storage) == b"before"


@pytest.mark.parametrize(
    "fault",
    [Fault("answer", status=503, retry_after=0), Fault("expire"), Fault("close", side="request")],
    ids=["503", "expired", "closed"],
)
def test_a_store_that_refuses_before_the_body_is_asked_again(
    behind: Storage, proxy: Proxy, no_disk: None, fault: Fault
) -> None:
    with served(behind) as server:
        assert put(server, b"x").status == 201
        proxy.fault(fault, "PUT", on={1})
        assert put(server, LARGE).status == 201
    assert content_of(behind) == LARGE


def test_a_container_that_is_missing_is_made_for_a_large_put(swift_storage: Storage, no_disk: None) -> None:
    with served(swift_storage) as server:
        assert put(server, LARGE).status == 201
    assert content_of(swift_storage) == LARGE


@pytest.mark.parametrize("status", [403, 507])
def test_a_refusal_of_the_store_is_reported_while_the_client_still_sends(
    behind: Storage, proxy: Proxy, status: int
) -> None:
    with served(behind) as server:
        proxy.fault(Fault("answer", status=status), "PUT")
        with connected(server, head_of(len(LARGE)) + LARGE[:WINDOW]) as connection:
            answer = answer_of(connection)  # the rest is never sent
        assert answer.status >= 400
        assert answer.json["status"] is False


# the source


def test_a_stream_is_the_same_for_each_way_to_read_it() -> None:
    chance = random.Random(2)

    class Come:
        """A body that returns its bytes in portions of any size."""

        is_at_end = False

        def __init__(self) -> None:
            self.at = 0

        def read(self, size: int) -> bytes:
            data = LARGE[self.at : self.at + chance.randint(1, size)]
            self.at += len(data)
            return data

    heard: list[str] = []
    source = UploadStream(Come(), len(LARGE), heard.append, hashes=True)
    furthest = 0
    while source.tell() < len(LARGE) or heard == []:
        at = source.tell()
        data = source.read(chance.randint(1, CHUNK))
        assert data == LARGE[at : at + len(data)]
        assert data
        furthest = max(furthest, source.tell())
        if chance.random() < 0.3:
            assert source.seek(max(0, furthest - chance.randint(0, WINDOW))) == source.tell()
    assert source.read(1) == source.read() == b""
    assert heard == [hashlib.md5(LARGE).hexdigest()]
    with pytest.raises(UnavailableError):
        source.seek(0)


# uploads that the disk keeps first


def form_of(content: bytes) -> bytes:
    body = multipart(("d_msg", b'{"action": "objPut", "meta": {"toObject": "chris/a"}}'), ("local", content))
    head = request("POST", "/api/v1/cmd", MULTIPART, f"Content-Length: {len(body)}", "Connection: close")
    return head + body


def chunked_of(content: bytes) -> bytes:
    head = request("PUT", PATH, "Transfer-Encoding: chunked", "Connection: close")
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)


BY = {"form": form_of, "chunked": chunked_of}


# the bytes that are on the disk while the last 100 bytes of 900 000 are missing: whole pieces of a read
@pytest.mark.parametrize(("of", "spooled"), [(form_of, 840_000), (chunked_of, 780_000)], ids=BY)
def test_uploads_on_the_disk_have_so_much_room_in_all(of: Callable[[bytes], bytes], spooled: int) -> None:
    with open_storage("memory") as storage, served(storage, max_spool=1_000_000) as server:
        with connected(server, of(LARGE[:900_000])[:-100]) as first:  # its end is yet to come
            until(lambda: server.load.spool_space.used > spooled)
            with connected(server, of(LARGE[:300_000])) as second:
                answer = answer_of(second)
            assert (answer.status, answer.json["error"]["type"]) == (503, "BusyError")
            assert "--maxSpool" in answer.json["msg"]
            assert server.load.spool_space.is_wanted_of("")  # so a slow client must hurry
            assert answer.headers["retry-after"]
            first.sendall(of(LARGE[:900_000])[-100:])
            assert answer_of(first).status in (200, 201)
        until(lambda: server.load.spool_space.used == 0)
        with connected(server, of(LARGE[:300_000])) as third:
            assert answer_of(third).status in (200, 201)
        assert content_of(storage) == LARGE[:300_000]


def test_one_token_has_half_of_the_room_and_leaves_the_rest_to_others(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.cfg"
    names = {"ann": "write", "eve": "write"}
    values = "".join(f"{name} = {name}-0123456789abcdef\n" for name in names)
    tokens.write_text(f"[AUTH TOKENS]\n{values}[TOKEN RIGHTS]\nann = write\neve = write\n")
    tokens.chmod(0o600)

    def of(name: str) -> bytes:
        bearer = f"Authorization: Bearer {name}-0123456789abcdef\r\n".encode()
        return chunked_of(LARGE[:400_000]).replace(b"Transfer-", bearer + b"Transfer-", 1)

    with (
        open_storage("memory") as storage,
        served(storage, max_spool=1_000_000, token_path=str(tokens)) as server,
        connected(server, of("eve")[:-100]),
    ):
        until(lambda: server.load.spool_space.used > 200_000)
        with connected(server, of("eve")) as second:
            assert answer_of(second).status == 503
        with connected(server, of("ann")) as third:
            assert answer_of(third).status == 201


def test_an_upload_that_is_larger_than_the_room_is_refused_before_it_comes(tmp_path: Path) -> None:
    with open_storage("memory") as storage, served(storage, max_spool=1000) as server:
        assert put(server, LARGE).status == 201  # it needs none
        form = form_of(LARGE)
        with connected(server, form[: form.index(b"\r\n\r\n") + 4]) as connection:
            answer = answer_of(connection)
        assert (answer.status, answer.json["error"]["type"]) == (413, "TooLargeError")


def test_only_a_client_with_too_much_of_the_space_must_hurry() -> None:
    room = SpoolSpace(100)
    room.take("eve", 50)
    with pytest.raises(BusyError):
        room.take("eve", 1)
    assert [room.is_wanted_of(name) for name in ("eve", "ann", "")] == [True, False, False]
    room.take("ann", 10)
    room.take("", 40)
    with pytest.raises(BusyError):
        room.take("ann", 1)
    assert [room.is_wanted_of(name) for name in ("eve", "ann", "")] == [True, False, False]


def test_each_end_of_an_upload_releases_its_space() -> None:
    room = SpoolSpace(100)
    for owner in ("", "ann"):
        for _ in range(3):
            made = spool.SpooledFile(1000, room, owner)
            made.write(b"x" * 50)
            with pytest.raises(BusyError):
                made.write(b"x" * 60)
            made.close()
            made.close()
    assert room.used == 0
