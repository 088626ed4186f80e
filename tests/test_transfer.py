"""Many files at once: order, bounds, what ends a run, and what a fault in pfstorage itself does."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage.backends import Storage, open_storage
from pfstorage.backends.base import ObjectInfo, Sink
from pfstorage.backends.memory import MemoryStorage
from pfstorage.backends.retry import _pause, retried
from pfstorage.errors import (
    IntegrityError,
    NotFoundError,
    PfstorageError,
    UnauthenticatedError,
    UnavailableError,
)
from pfstorage.files import LocalTree
from pfstorage.transfer import Failure, Transfer, pull, push
from tests.conftest import read_tree, write_tree


def filled(storage: Storage, count: int) -> list[Transfer]:
    tree = LocalTree("out")
    plan = []
    for number in range(count):
        name = f"{number:04}"
        storage.put(name, io.BytesIO(name.encode()), 4)
        plan.append(Transfer(name, f"out/{name}", None, tree, (name,)))
    return plan


class Watched(MemoryStorage):
    """A memory storage whose `get` may fail, and that counts how many are under way."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.most = 0
        self._now = 0
        self._count = threading.Lock()
        self.errors: dict[str, Exception] = {}
        self.always: Exception | None = None

    def get(self, key: str, sink: Sink) -> ObjectInfo:
        with self._count:
            self.calls.append(key)
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            error = self.errors.get(key, self.always)
            if error:
                raise error
            return super().get(key, sink)
        finally:
            with self._count:
                self._now -= 1


def test_the_report_is_in_the_order_of_the_plan(tmp_path: Path) -> None:
    storage = Watched()
    plan = filled(storage, 300)
    storage.errors = {"0007": NotFoundError("gone"), "0250": NotFoundError("gone")}
    report = pull(storage, plan, workers=8)
    assert [item.key for item in report.done] == sorted(item.key for item in report.done)
    assert [item.key for item in report.failed] == ["0007", "0250"]
    assert (len(report.done), report.size) == (298, 298 * 4)
    assert 1 <= storage.most <= 8
    assert len(read_tree(tmp_path / "out")) == 298


def test_a_plan_is_taken_as_it_is_needed(tmp_path: Path) -> None:
    """A plan of a million must not stand in memory: it is read no further than the window ahead."""
    storage = Watched()
    transfers = filled(storage, 1)
    taken = 0
    started = threading.Event()
    release = threading.Event()

    def plan() -> Iterator[Transfer]:
        nonlocal taken
        for _ in range(100_000):
            taken += 1
            if taken == 30:
                started.set()
            yield transfers[0]

    class Slow(Watched):
        def get(self, key: str, sink: Sink) -> ObjectInfo:
            release.wait()
            raise UnauthenticatedError("no")

    thread = threading.Thread(target=pull, args=(Slow(), plan(), 2))
    thread.start()
    assert started.wait(10)
    release.wait(0.2)
    assert taken < 200
    release.set()
    thread.join()


def test_a_login_that_is_refused_ends_the_run_at_once() -> None:
    storage = Watched()
    plan = filled(storage, 500)
    storage.always = UnauthenticatedError("the key is wrong")
    report = pull(storage, plan, workers=4)
    assert len(report.failed) == 500
    assert len(storage.calls) < 20
    assert str(report.failed[-1].error) == "not tried: the key is wrong"


def test_a_store_that_is_gone_ends_the_run_and_one_that_falters_does_not() -> None:
    storage = Watched()
    plan = filled(storage, 500)
    storage.errors = {f"{number:04}": UnavailableError("busy") for number in range(0, 500, 7)}
    assert len(pull(storage, plan, workers=4).done) == 500 - len(storage.errors)
    storage.always = UnavailableError("gone")
    storage.calls.clear()
    assert len(pull(storage, plan, workers=4).failed) == 500
    assert len(storage.calls) < 30


def test_damaged_bytes_are_asked_for_once_more(tmp_path: Path) -> None:
    class Damaging(Watched):
        def get(self, key: str, sink: Sink) -> ObjectInfo:
            if self.calls.count(key) == 0:
                self.calls.append(key)
                sink.write(b"half of som")
                raise IntegrityError("damaged")
            return super().get(key, sink)

    storage = Damaging()
    assert len(pull(storage, filled(storage, 3), workers=2).done) == 3
    assert set(read_tree(tmp_path / "out").values()) == {b"0000", b"0001", b"0002"}


def test_a_fault_of_pfstorage_itself_fails_that_file_alone(caplog: pytest.LogCaptureFixture) -> None:
    storage = Watched()
    plan = filled(storage, 5)
    storage.errors = {"0002": ZeroDivisionError("a bug")}
    report = pull(storage, plan, workers=2)
    assert len(report.done) == 4
    assert "unexpected ZeroDivisionError" in str(report.failed[0].error)
    assert "a reason that pfstorage does not know" in caplog.text


def test_a_plan_that_breaks_off_keeps_what_was_done() -> None:
    storage = Watched()
    transfers = filled(storage, 10)

    def plan() -> Iterator[Transfer | Failure]:
        yield from transfers
        raise UnavailableError("the listing broke off")

    report = pull(storage, plan(), workers=2)
    assert len(report.done) == 10
    assert str(report.error) == "the listing broke off"


def test_an_interrupt_starts_nothing_new() -> None:
    storage = Watched()
    transfers = filled(storage, 200)

    def plan() -> Iterator[Transfer]:
        yield from transfers[:40]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(storage, plan(), workers=2)
    assert len(storage.calls) <= 40


def test_a_file_that_grows_while_it_is_pushed_fails(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": b"x" * 10})

    class Growing(MemoryStorage):
        def put(self, key: str, body: Any, size: int) -> ObjectInfo:
            with (tmp_path / "a").open("ab") as file:
                file.write(b"more")
            return super().put(key, body, size)

    storage = Growing()
    report = push(storage, [Transfer("a", "a")], workers=1)
    assert "changed its length" in str(report.failed[0].error)


def test_tries_end_and_other_errors_are_not_tried_again() -> None:
    calls: list[int] = []

    def fail(error: PfstorageError) -> None:
        calls.append(1)
        raise error

    with pytest.raises(UnavailableError):
        retried(lambda: fail(UnavailableError("busy", retry_after=0)), retries=3)
    assert len(calls) == 4
    with pytest.raises(NotFoundError):
        retried(lambda: fail(NotFoundError("gone")), retries=3)
    assert len(calls) == 5


@pytest.mark.parametrize("type_", ["s3", ""])
def test_an_unknown_backend_or_option_is_refused(type_: str) -> None:
    with pytest.raises(PfstorageError, match="there is no backend"):
        open_storage(type=type_)
    with pytest.raises(PfstorageError, match="has no option 'colour'"):
        open_storage(type="memory", colour="red")


@pytest.mark.parametrize(("asked", "pause"), [(0, 0), (7, 7), (3600, 60)])
def test_the_pause_that_a_store_asks_for_is_made_within_bounds(asked: int, pause: float) -> None:
    assert _pause(0, UnavailableError("busy", retry_after=asked)) == pause


def test_pauses_grow_are_random_and_are_bounded() -> None:
    pauses = [[_pause(attempt, UnavailableError("busy")) for _ in range(50)] for attempt in range(8)]
    assert max(pauses[0]) <= 0.5 < 1.0 <= min(pauses[7]) <= max(pauses[7]) <= 8.0
    assert all(len(set(each)) > 40 for each in pauses)
