"""Every fault in every action: a retry repairs it, or the reply names it. No wrong file, no leftover, no hang."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import md5
from pathlib import Path
from typing import Any, TypeVar

import pytest
import swiftclient

from pfstorage import StoreHandler, open_storage
from pfstorage.backends import Storage
from pfstorage.backends.contract import Attributes
from pfstorage.backends.http.errors import ConnectionBroken, Refusal
from pfstorage.backends.swift.objects import note_if_unanswered
from pfstorage.backends.swift.segments import _etag_in_body
from pfstorage.backends.swift.store import SwiftStorage
from pfstorage.devswift import DevSwift
from pfstorage.errors import ExistsError, StorageError
from tests.conftest import read_tree, swift_options, write_tree
from tests.support.faults import Exchange, Fault, Proxy, Side, Where, is_listing, is_login, is_object
from tests.support.large import orphans, raw_connection, stored

T = TypeVar("T")

TIMEOUT = 1
"""Seconds of silence after which the tests of silence give a request up."""
WATCHDOG = 30.0
"""Seconds after which anything hangs."""
WORKERS = 4
MIB = 2**20
SMALL = {f"{number:02}/a": random.Random(number).randbytes(4000 + number) for number in range(8)}
LARGE = {"large": random.Random(99).randbytes(5 * MIB + 1000)}
PARTS = 6
"""Segments or ranges of `LARGE`."""
BY_PARTS = {"segment_size": MIB, "range_size": MIB}


@dataclass(frozen=True)
class Action:
    """One of pfstorage's, and which of its *requests* a fault is for."""

    name: str
    method: str
    files: dict[str, bytes]
    requests: int
    meta: dict[str, Any]
    where: Where = is_object
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def moves(self) -> Side:
        """Where the bodies are: in the requests or in the answers."""
        return "request" if self.method == "PUT" else "answer"


_PUSH = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
_PULL = {"fromLocation": "s", "mapLocationOver": "out"}
ACTIONS = {
    "push": Action("objPush", "PUT", SMALL, len(SMALL), _PUSH),
    "pull": Action("objPull", "GET", SMALL, len(SMALL), _PULL),
    "push-large": Action("objPush", "PUT", LARGE, PARTS + 1, _PUSH, options=BY_PARTS),
    "pull-large": Action("objPull", "GET", LARGE, PARTS, _PULL, options=BY_PARTS),
    "ls": Action("ls", "GET", SMALL, 1, {"path": "s"}, is_listing),
}

# those with *at* strike the body, whichever way it goes
TRANSIENT = {
    "reset-before-the-answer": Fault("reset"),
    "closed-before-the-answer": Fault("close"),
    "reset-before-the-store-knows": Fault("reset", side="request"),
    "reset-in-the-body": Fault("reset", at=1000),
    "closed-in-the-body": Fault("close", at=1000),
    "silence-before-the-answer": Fault("stall", seconds=TIMEOUT + 1),
    "silence-in-the-body": Fault("stall", at=1000, seconds=TIMEOUT + 1),
    "a-short-silence-in-the-body": Fault("stall", at=1000, seconds=TIMEOUT / 5),
    "flipped-bit": Fault("flip", at=1000),
    "shortened-body": Fault("shorten", at=1000),
    "garbage": Fault("garbage"),
    "expired-token": Fault("expire"),
    **{str(status): Fault("answer", status=status) for status in (401, 408, 498, 500, 503)},
    "429": Fault("answer", status=429, retry_after=0),
}
# a listing has no checksum: whole JSON is believed, and other bytes are reported
CELLS = [(fault, name) for fault in TRANSIENT for name in ACTIONS if (fault, name) != ("flipped-bit", "ls")]
TOLD = {("shortened-body", "ls")}


@pytest.fixture
def both(swift: DevSwift, proxy: Proxy) -> Iterator[tuple[Storage, Storage]]:
    """A container that is there, seen directly and through the proxy."""
    options = swift_options(swift, retries=3)
    with (
        open_storage(**options) as direct,
        open_storage(**{**options, "auth_url": proxy.auth_url}) as storage,
    ):
        direct.put("other", io.BytesIO(), 0)
        list(storage.list())
        yield direct, storage


@pytest.fixture(scope="module")
def filled(swift: DevSwift) -> dict[str, str]:
    """Make containers, by action, with objects for the actions that only read."""
    containers = {}
    with raw_connection(swift) as raw:
        for name in ("pull", "pull-large", "ls"):
            containers[name] = f"filled-{name}"
            raw.put_container(containers[name])
            for key, content in ACTIONS[name].files.items():
                raw.put_object(containers[name], f"s/{key}", content)
    return containers


def in_time(work: Callable[[], T], seconds: float = WATCHDOG) -> T:
    """Return the result of *work*. Fail if that takes longer than *seconds*."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"it hangs: not done in {seconds:.0f} s"
    return results[0]


@dataclass
class Cell:
    """One action through the proxy, in a separate container and directory."""

    swift: DevSwift
    proxy: Proxy
    action: Action
    container: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        action = self.action
        more = {"retries": 3, "timeout": 20, "workers": WORKERS, **action.options, **self.options}
        options = swift_options(self.swift, **more, auth_url=self.proxy.auth_url)
        self.container = options["container_name"] = self.container or options["container_name"]
        if action.method == "PUT":
            write_tree(Path("data"), action.files)
            with raw_connection(self.swift) as raw:  # so that no fault strikes a PUT that finds no container
                raw.put_container(self.container)
                raw.put_container(f"{self.container}_segments")
        with open_storage(**options) as storage:
            message = {"action": action.name, "meta": action.meta}
            return in_time(lambda: StoreHandler(storage).run(message))

    def check(self, reply: dict[str, Any]) -> None:
        """Assert that all transferred objects are right, and that the reply names the others."""
        expected = {f"s/{name}": content for name, content in self.action.files.items()}
        if self.action.name == "ls":
            assert reply.get("msg") or [row["name"] for row in reply["ls"]] == sorted(expected)
            return
        there = self.there()
        assert there.items() <= expected.items(), "a wrong file"
        assert list(Path.cwd().rglob(".pfstorage-*")) == []
        if reply["status"]:
            assert (there, reply["failed"]) == (expected, [])
            assert orphans(self.swift, self.container) == set()
            return
        assert reply["msg"]
        reported = [row["object"] for row in reply.get("failed", [])]
        assert all(row["msg"] for row in reply.get("failed", []))
        done = reply.get("objectFileList", [])
        assert set(done) <= there.keys()
        assert sorted(reported + done) == sorted(expected) or "failed" not in reply

    def there(self) -> dict[str, bytes]:
        if self.action.method == "PUT":
            return stored(self.swift, self.container)
        return {f"s/{name}": content for name, content in read_tree(Path("out")).items()}


@pytest.fixture
def cell(swift: DevSwift, proxy: Proxy, filled: dict[str, str]) -> Callable[..., Cell]:
    def make(name: str, **options: Any) -> Cell:
        return Cell(swift, proxy, ACTIONS[name], filled.get(name, ""), options)

    return make


MakeCell = Callable[..., Cell]


def test_the_proxy_changes_nothing_by_itself(swift: DevSwift, proxy: Proxy) -> None:
    content = LARGE["large"]
    raw = swiftclient.Connection(proxy.auth_url, swift.user, swift.key)
    with contextlib.closing(raw):
        raw.put_container("plain")
        raw.put_object(
            "plain",
            "chunked \N{SNOWMAN}",
            iter([content[:MIB], content[MIB:]]),
            headers={"Expect": "100-continue"},
        )
        headers, got = raw.get_object("plain", "chunked \N{SNOWMAN}")
        assert (got, headers["etag"]) == (content, md5(content).hexdigest())
        assert raw.head_object("plain", "chunked \N{SNOWMAN}")["content-length"] == str(len(content))
        assert raw.url.startswith(f"http://127.0.0.1:{proxy.port}/")
    path = "/v1/AUTH_chris/plain/chunked \N{SNOWMAN}"
    wanted = [("GET", "/auth/v1.0", "", 200), ("PUT", "/v1/AUTH_chris/plain", "", 201)]
    wanted += [("PUT", path, "", 201), ("GET", path, "", 200), ("HEAD", path, "", 200)]
    assert proxy.requests == wanted


def within(fault: Fault) -> dict[str, Any]:
    """Return settings with long time limits, unless *fault* is a silence: a busy machine is no failure."""
    return {"timeout": TIMEOUT} if fault.kind == "stall" else {}


@pytest.mark.parametrize(("fault", "name"), CELLS)
def test_a_single_fault_is_made_good(cell: MakeCell, proxy: Proxy, fault: str, name: str) -> None:
    planned = TRANSIENT[fault]
    here = cell(name, **within(planned))
    action = here.action
    if planned.at is not None:
        planned = dataclasses.replace(planned, side=action.moves)
    proxy.fault(planned, action.method, [1 if name == "ls" else 2], action.where)
    reply = here.run()
    assert planned in proxy.struck
    here.check(reply)
    assert reply["status"] is True or (fault, name) in TOLD, reply


@pytest.mark.parametrize("name", ["push", "pull-large", "ls"])
@pytest.mark.parametrize("fault", ["reset-before-the-answer", "silence-before-the-answer", "garbage", "503"])
def test_a_login_that_fails_once_is_made_good(cell: MakeCell, proxy: Proxy, fault: str, name: str) -> None:
    here = cell(name, **within(TRANSIENT[fault]))
    proxy.fault(TRANSIENT[fault], on=[1], where=is_login)
    reply = here.run()
    here.check(reply)
    assert (reply["status"], proxy.logins) == (True, 2)


@pytest.mark.parametrize("name", ["push", "pull"])
@pytest.mark.parametrize("fault", ["reset-before-the-answer", "closed-in-the-body", "expired-token", "429"])
def test_a_listing_that_fails_once_is_made_good(cell: MakeCell, proxy: Proxy, fault: str, name: str) -> None:
    here = cell(name)
    here.run()
    proxy.forget()
    proxy.fault(TRANSIENT[fault], on=[1], where=is_listing)
    reply = here.run()
    assert proxy.struck
    here.check(reply)
    assert (reply["status"], reply["skipped"], proxy.listings) == (True, len(SMALL), 2)


@pytest.mark.parametrize("fault", ["reset-before-the-answer", "closed-in-the-body", "flipped-bit", "503"])
def test_a_manifest_that_fails_once_is_made_good(cell: MakeCell, proxy: Proxy, fault: str) -> None:
    here = cell("push-large")
    planned = TRANSIENT[fault]
    if planned.at is not None:
        planned = dataclasses.replace(planned, side="request", at=10)  # a manifest is short
    proxy.fault(planned, "PUT", [1], lambda each: "multipart-manifest=put" in each.query)
    reply = here.run()
    assert proxy.struck == [planned]
    here.check(reply)
    assert reply["status"] is True


@pytest.mark.parametrize("name", ["push", "pull", "push-large", "pull-large", "ls"])
@pytest.mark.parametrize("status", [403, 507])
def test_a_permanent_refusal_fails_at_once(cell: MakeCell, proxy: Proxy, status: int, name: str) -> None:
    here = cell(name)
    proxy.fault(Fault("answer", status=status), here.action.method, where=here.action.where)
    reply = here.run()
    here.check(reply)
    assert reply["status"] is False
    assert str(status) in reply["msg"]
    assert len(proxy.struck) <= here.action.requests


@pytest.mark.parametrize("name", ["push", "pull", "push-large", "pull-large", "ls"])
@pytest.mark.parametrize(
    "fault",
    [Fault("answer", status=401), Fault("answer", status=503), Fault("reset"), Fault("garbage")],
    ids=["401", "503", "reset", "garbage"],
)
def test_an_endless_answer_is_given_up(cell: MakeCell, proxy: Proxy, fault: Fault, name: str) -> None:
    here = cell(name, retries=1)
    proxy.fault(fault, here.action.method, where=here.action.where)
    reply = here.run()
    here.check(reply)
    assert reply["status"] is False
    assert len(proxy.struck) <= 2 * here.action.requests
    if fault.status == 401:
        assert proxy.logins <= 1 + WORKERS


def test_an_object_that_is_listed_but_missing_fails_alone(cell: MakeCell, proxy: Proxy) -> None:
    here = cell("pull")
    proxy.fault(Fault("answer", status=404), "GET", where=lambda each: each.key == "s/05/a")
    reply = here.run()
    here.check(reply)
    assert reply["status"] is False
    assert [row["object"] for row in reply["failed"]] == ["s/05/a"]
    # a listing may show an object some time before it is everywhere: it may be asked for again
    assert len(proxy.struck) <= 3


@pytest.mark.parametrize("name", ["push", "pull", "push-large", "pull-large"])
def test_a_token_that_expires_costs_one_login_for_all(cell: MakeCell, proxy: Proxy, name: str) -> None:
    here = cell(name, workers=8)
    proxy.fault(Fault("stall", side="request", seconds=0.02))  # so that several are on their way
    proxy.fault(Fault("expire"), here.action.method, [3])
    reply = here.run()
    here.check(reply)
    assert (reply["status"], proxy.logins) == (True, 2)


@pytest.mark.parametrize("name", ["push", "pull", "push-large"])
def test_a_flipped_bit_costs_one_request_more(cell: MakeCell, proxy: Proxy, name: str) -> None:
    here = cell(name)
    proxy.fault(Fault("flip", at=1000, side=here.action.moves), here.action.method, [2])
    reply = here.run()
    here.check(reply)
    assert reply["status"] is True
    assert len(proxy.made(here.action.method)) == here.action.requests + 1


@pytest.mark.parametrize("size", [10, MIB], ids=["small", "large"])
@pytest.mark.parametrize("meanwhile", [b"", b"of another"], ids=["its own", "another's"])
def test_a_new_object_whose_answer_is_lost_is_stored_all_the_same(
    both: tuple[Storage, Storage], proxy: Proxy, size: int, meanwhile: bytes
) -> None:
    """The second try finds an object, and that is the one of the first, unless it is another's."""
    direct, storage = both

    def store(_: Exchange) -> bool:
        if meanwhile:
            direct.put("new", io.BytesIO(meanwhile), len(meanwhile))
        return True

    proxy.fault(Fault("close", side="request" if meanwhile else "answer"), "PUT", [1], where=store)
    put = partial(storage.put, "new", io.BytesIO(b"x" * size), size, if_absent=True)
    if meanwhile:
        with pytest.raises(ExistsError):
            put()
        assert direct.head("new").size == len(meanwhile)
    else:
        assert put().etag == direct.head("new").etag == md5(b"x" * size).hexdigest()
    assert proxy.puts == 2


@pytest.mark.parametrize(
    "fault", [None, Fault("expire"), Fault("answer", status=503), Fault("flip", at=1, side="request")]
)
@pytest.mark.parametrize("content", [b"", b"done"])
def test_an_object_of_the_same_bytes_that_was_there_before_is_anothers(
    both: tuple[Storage, Storage], proxy: Proxy, content: bytes, fault: Fault | None
) -> None:
    """A lock and a marker have the same bytes each time. Only one of its writers may get it."""
    direct, storage = both
    direct.put("done", io.BytesIO(content), len(content))
    if fault:
        proxy.fault(fault, "PUT", [1])
    with pytest.raises(ExistsError):
        storage.put("done", io.BytesIO(content), len(content), if_absent=True)


@pytest.mark.parametrize(
    "fault", [Fault("close"), Fault("answer", status=504)], ids=["broken", "a gateway's"]
)
def test_a_large_new_object_whose_answer_is_lost_is_stored_all_the_same(
    both: tuple[Storage, Storage], proxy: Proxy, fault: Fault
) -> None:
    direct, storage = both
    assert isinstance(storage, SwiftStorage)
    upload = storage.start_multipart_upload("large", 2 * MIB, MIB, Attributes(), None)
    upload.stored()
    pieces = [upload.put(io.BytesIO(b"x" * MIB), number * MIB, MIB) for number in range(2)]
    proxy.fault(fault, "PUT", [1], where=lambda exchange: exchange.key == "large")
    made = upload.finish(pieces, if_absent=True)
    assert direct.head("large").etag == made.etag
    again = storage.start_multipart_upload("large", 2 * MIB, MIB, Attributes(), None)
    pieces = [again.put(io.BytesIO(b"x" * MIB), number * MIB, MIB) for number in range(2)]
    with pytest.raises(ExistsError):
        again.finish(pieces, if_absent=True)


@pytest.mark.parametrize(
    "reported", [b"nonsense", b"[]", b'{"Response Status": "400 x", "Errors": [1]}', b'""']
)
def test_an_unreadable_part_of_a_manifest_is_a_temporary_failure(reported: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        _etag_in_body(reported)
    assert caught.value.status == 500


@pytest.mark.parametrize(
    ("error", "is_noted"),
    [
        (ConnectionBroken("it fell silent"), True),
        (ConnectionBroken("nothing listens there", connecting=True), False),
        (Refusal(502, "Bad Gateway"), True),
        (Refusal(503, "Service Unavailable"), False),
        (Refusal(412, "Precondition Failed"), False),
    ],
)
def test_only_puts_without_an_answer_may_have_been_stored(error: Exception, is_noted: bool) -> None:
    noted: list[bool] = []
    with pytest.raises(type(error)), note_if_unanswered(lambda: noted.append(True)):
        raise error
    assert bool(noted) == is_noted


@pytest.mark.parametrize("status", [403, 507])
def test_a_refused_new_object_is_not_reported_as_existing(
    both: tuple[Storage, Storage], proxy: Proxy, status: int
) -> None:
    _, storage = both
    proxy.fault(Fault("close"), "PUT", [1])
    proxy.fault(Fault("answer", status=status), "PUT", [2])
    with pytest.raises(StorageError, match=str(status)):
        storage.put("new", io.BytesIO(b"x"), 1, if_absent=True)


def test_a_body_that_breaks_off_goes_on_where_it_was(cell: MakeCell, proxy: Proxy) -> None:
    here = cell("pull-large", range_size=100 * MIB)
    proxy.fault(Fault("close", at=MIB), "GET", [1, 2])
    reply = here.run()
    here.check(reply)
    assert reply["status"] is True
    first, *others = proxy.made("GET")
    assert "Range" not in first.headers
    assert [each.headers["Range"] for each in others] == [f"bytes={MIB}-", f"bytes={2 * MIB}-"]
    assert [each.headers["If-Match"].strip('"') for each in others] == [md5(LARGE["large"]).hexdigest()] * 2
    assert first.sent + sum(each.sent for each in others) == len(LARGE["large"])


def test_a_range_that_breaks_off_goes_on_where_it_was(cell: MakeCell, proxy: Proxy) -> None:
    here = cell("pull-large", workers=1)
    size, half = len(LARGE["large"]), MIB // 2
    proxy.fault(Fault("close", at=half), "GET", [3])
    reply = here.run()
    here.check(reply)
    assert reply["status"] is True
    ranges = [each.headers["Range"].removeprefix("bytes=") for each in proxy.made("GET")]
    begin, end = ranges[2].split("-")
    assert f"{int(begin) + half}-{end}" in ranges
    assert proxy.gets == here.action.requests + 1
    assert sum(each.sent for each in proxy.made("GET")) == size


def test_a_store_that_asks_for_a_pause_is_given_it(cell: MakeCell, proxy: Proxy) -> None:
    here = cell("pull", workers=1)
    proxy.fault(Fault("answer", status=429, retry_after=1), "GET", [2])
    started = time.monotonic()
    reply = here.run()
    here.check(reply)
    assert reply["status"] is True
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize("name", ACTIONS)
def test_many_faults_at_once_are_made_good(cell: MakeCell, proxy: Proxy, name: str) -> None:
    """Every fifth request or so fails, each in another way, on a line that is slow."""
    here = cell(name, retries=6)
    proxy.fault(Fault("stall", side="request", seconds=0.01), where=lambda each: True)
    kinds = ("reset-before-the-answer", "closed-in-the-body", "503", "garbage")
    for number, kind in enumerate(kinds):
        planned = TRANSIENT[kind]
        if planned.at is not None:
            planned = dataclasses.replace(planned, side=here.action.moves)
        proxy.fault(planned, here.action.method, [1 + 3 * number], where=here.action.where)
    reply = here.run()
    here.check(reply)
    assert reply["status"] is True
