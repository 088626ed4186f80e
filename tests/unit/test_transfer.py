"""Runs of many files: order, bounds, fatal errors and unexpected errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pfstorage.backends import open_storage
from pfstorage.backends.contract import ByteRange, ObjectInfo, Sink
from pfstorage.backends.memory import MemoryStorage
from pfstorage.errors import (
    ContainerNotFoundError,
    FullDiskError,
    IntegrityError,
    NotFoundError,
    PermissionDeniedError,
    PfstorageError,
    StoppedError,
    UnauthenticatedError,
    UnavailableError,
)
from pfstorage.local import LocalTree
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer import (
    Failure,
    Transfer,
    WorkerBudget,
    engine,
    pull,
    push,
)
from pfstorage.transfer.engine import MAX_WAITING
from tests.conftest import read_tree, write_tree
from tests.support.local import mounted, parts_in
from tests.support.transfers import SOON, Watched, context_on, failed_keys, filled
from tests.support.waiting import settle, until


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_the_number_of_workers_is_fixed(workers: int) -> None:
    storage = Watched()
    plan = filled(storage, 100)
    meeting = threading.Barrier(workers)
    storage.waits = {item.key: lambda: meeting.wait(SOON) for item in plan[:workers]}
    pull(plan, context_on(storage, workers))
    assert storage.most == workers


def test_a_small_transfer_does_not_wait_for_a_large_one() -> None:
    workers, large, small = WorkerBudget(4), Watched(), Watched()
    many, few = filled(large, 60), filled(small, 2, directory="few")
    release = threading.Semaphore(0)
    large.waits = {item.key: lambda: release.acquire(timeout=SOON) for item in many}
    meeting = threading.Barrier(3)
    small.waits = {item.key: lambda: meeting.wait(SOON) for item in few}
    with ThreadPoolExecutor() as threads:
        pulls = threads.submit(pull, many, context_on(large, 0, worker_budget=workers))
        while large._now < 4:
            time.sleep(0.001)
        quick = threads.submit(pull, few, context_on(small, 0, worker_budget=workers))
        while small._now < 2:  # at once, while the others hold all four
            time.sleep(0.001)
        release.release(20)
        while len(large.calls) < 22:
            time.sleep(0.001)
        assert large._now == 2
        meeting.wait(SOON)
        assert quick.result().count == 2
        release.release(4)
        while large._now < 4:  # they have theirs back
            time.sleep(0.001)
        release.release(60)
        assert pulls.result().count == 60
    assert large.most == 4


def test_workers_increase_while_the_throughput_grows() -> None:
    storage = Watched()
    plan = filled(storage, 1500)
    storage.waits = {item.key: lambda: time.sleep(0.01) for item in plan}
    pull(plan, context_on(storage, 0))
    assert storage.most > 8


def test_a_plan_is_read_only_a_little_ahead() -> None:
    """A plan of a million files must not be in memory: the engine reads it only a window ahead."""
    storage, workers = Watched(), 2
    [transfer] = filled(storage, 1)
    release, taken = threading.Event(), 0
    storage.waits = {"0000": lambda: release.wait(SOON)}
    storage.always = UnauthenticatedError("no")

    def plan() -> Iterator[Transfer]:
        nonlocal taken
        for _ in range(5_000):
            taken += 1
            yield transfer

    thread = threading.Thread(target=pull, args=(plan(), context_on(storage, workers)))
    thread.start()
    until(lambda: taken >= 4 * workers)
    settle(0.3)
    assert taken <= 4 * workers + 2
    release.set()
    thread.join()
    assert taken == 5_000


def test_a_slow_file_does_not_delay_the_others() -> None:
    storage = Watched()
    plan = filled(storage, 1000)

    def wait_for_all_others() -> None:
        end = time.monotonic() + SOON
        while len(storage.calls) < 1000 and time.monotonic() < end:
            time.sleep(0.001)

    storage.waits = {"0000": wait_for_all_others}
    started = time.monotonic()
    report = pull(plan, context_on(storage, 4))
    assert time.monotonic() - started < SOON
    assert report.keys == [item.key for item in plan]


def test_only_some_results_wait_for_a_slow_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_WAITING == 10_000
    monkeypatch.setattr("pfstorage.transfer.engine.MAX_WAITING", 50)
    storage, release = Watched(), threading.Event()
    plan = filled(storage, 300)
    storage.waits = {"0000": lambda: release.wait(SOON)}
    thread = threading.Thread(target=pull, args=(plan, context_on(storage, 4)))
    thread.start()
    until(lambda: len(storage.calls) >= 50)
    settle(0.3)
    assert len(storage.calls) <= 52
    release.set()
    thread.join()
    assert len(storage.calls) == 300


# errors that end a run


@pytest.mark.parametrize(
    "error", [UnauthenticatedError("the key is wrong"), ContainerNotFoundError("it is gone")]
)
def test_a_fatal_error_ends_the_run_at_once(error: PfstorageError) -> None:
    storage = Watched()
    plan = filled(storage, 100)
    storage.always = error
    report = pull(plan, context_on(storage, retries=0))
    assert (report.count, report.failed_count) == (0, 100)
    assert len({*storage.calls}) < 20
    assert str(report.failed[-1].error) == f"not tried: {error}"
    assert type(report.failed[-1].error) is type(error)


def test_an_outage_ends_the_run_and_single_failures_do_not() -> None:
    storage = Watched()
    plan = filled(storage, 500)
    storage.errors = {f"{number:04}": UnavailableError("busy") for number in range(0, 500, 7)}
    assert pull(plan, context_on(storage)).count == 500 - len(storage.errors)
    storage.always = UnavailableError("gone")
    storage.calls.clear()
    for item in plan:
        Path(item.path).unlink(missing_ok=True)
    assert pull(plan, context_on(storage)).failed_count == 500
    assert len(storage.calls) < 30


def test_failures_of_single_files_do_not_end_the_run() -> None:
    storage = Watched()
    plan = filled(storage, 200)
    storage.errors = {item.key: PermissionDeniedError("403") for item in plan[:150]}
    report = pull(plan, context_on(storage))
    assert (report.count, report.failed_count) == (50, 150)
    assert len(storage.calls) == 200


def test_a_disk_that_fills_up_ends_the_run(tmp_path: Path) -> None:
    storage = Watched()
    with mounted(tmp_path / "disk", "tmpfs", "-o", "size=256k") as disk:
        tree = LocalTree(str(disk))
        plan = [
            Transfer(item.key, str(disk / item.key), item.known, tree, item.parts)
            for item in filled(storage, 300, 40_000)
        ]
        report = pull(plan, context_on(storage))
        assert 0 < report.count < 8
        assert isinstance(report.failed[0].error, FullDiskError)
        assert str(report.failed[-1].error).startswith("not tried: ")
        assert len(storage.calls) < 30
        assert parts_in(str(disk)) == []
        assert set(read_tree(disk)) == set(report.keys)


def test_a_plan_of_one_file_needs_no_worker_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "HOLD_SECONDS", 60.0)
    storage, started, start = Watched(), [], threading.Thread.start

    def noting_start(thread: threading.Thread) -> None:
        started.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noting_start)
    assert pull(filled(storage, 1), context_on(storage)).count == 1
    assert started == ["plan"]
    assert pull(filled(storage, 2), context_on(storage)).count == 2
    assert "transfer" in started


def test_a_first_file_does_not_wait_for_a_slow_plan() -> None:
    storage, is_stored = Watched(), threading.Event()
    [transfer] = filled(storage, 1)
    storage.waits = {"0000": is_stored.set}

    def plan() -> Iterator[Transfer]:
        yield transfer
        assert is_stored.wait(SOON)

    report = pull(plan(), context_on(storage))
    assert (report.count, report.error) == (1, None)


def test_a_plan_that_fails_after_one_file_keeps_this_file() -> None:
    storage = Watched()
    [transfer] = filled(storage, 1)

    def plan() -> Iterator[Transfer]:
        yield transfer
        raise UnavailableError("the listing broke off")

    report = pull(plan(), context_on(storage))
    assert (report.keys, str(report.error)) == (["0000"], "the listing broke off")


def test_a_run_that_is_cancelled_before_its_first_file_has_no_file() -> None:
    storage, token = Watched(), CancellationToken()
    [transfer] = filled(storage, 1)

    def plan() -> Iterator[Transfer]:
        yield transfer
        token.cancel("a test")

    report = pull(plan(), context_on(storage, cancellation=token))
    assert (report.keys, type(report.error)) == ([], StoppedError)


def test_a_failed_plan_keeps_the_finished_files() -> None:
    storage = Watched()
    transfers = filled(storage, 10)

    def plan() -> Iterator[Transfer | Failure]:
        yield from transfers
        raise UnavailableError("the listing broke off")

    report = pull(plan(), context_on(storage))
    assert report.keys == [item.key for item in transfers]
    assert (str(report.error), report.failed) == ("the listing broke off", [])


def test_an_unexpected_error_of_a_plan_is_raised_after_its_files(tmp_path: Path) -> None:
    storage = Watched()
    transfers = filled(storage, 10)
    storage.waits = {"0009": lambda: time.sleep(0.2)}

    def plan() -> Iterator[Transfer]:
        yield from transfers
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        pull(plan(), context_on(storage))
    assert len(read_tree(tmp_path / "out")) == 10


def test_an_unexpected_error_fails_one_file_only(caplog: pytest.LogCaptureFixture) -> None:
    storage = Watched()
    plan = filled(storage, 5)
    storage.errors = {"0002": ZeroDivisionError("a bug")}
    report = pull(plan, context_on(storage))
    assert (report.count, failed_keys(report)) == (4, ["0002"])
    assert "unexpected ZeroDivisionError" in str(report.failed[0].error)
    assert "a reason that pfstorage does not know" in caplog.text
    assert parts_in("out") == []


@pytest.mark.parametrize("given", [0, 2])
def test_too_few_threads_do_not_hang_the_run(given: int, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, start = Watched(), threading.Thread.start
    plan = filled(storage, 100)

    def start_one(thread: threading.Thread) -> None:
        nonlocal given
        if thread.name == "transfer":
            given -= 1
            if given < 0:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    if given:
        assert pull(plan, context_on(storage, 8)).count == 100
    else:
        with pytest.raises(RuntimeError):
            pull(plan, context_on(storage, 8))


def test_failures_beyond_a_bound_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pfstorage.transfer.plan.MAX_FAILURES", 10)
    storage = Watched()
    storage.always = PermissionDeniedError("403")
    report = pull(filled(storage, 50), context_on(storage))
    assert (len(report.failed), report.failed_count) == (10, 50)


def test_damaged_and_late_objects_are_downloaded_again(tmp_path: Path) -> None:
    class Damaging(Watched):
        def get(self, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
            first = self.calls.count(key) == 0
            self.calls.append(key)
            if first and key == "0001":
                raise NotFoundError("not yet", retry_after=0)
            if first:
                sink.write(b"half of something longer")
                raise IntegrityError("damaged", retry_after=0)
            return MemoryStorage.get(self, key, sink, byte_range)

    storage = Damaging()
    assert pull(filled(storage, 3), context_on(storage)).count == 3
    assert set(read_tree(tmp_path / "out").values()) == {b"0000", b"0001", b"0002"}


def test_a_file_that_grows_while_it_is_pushed_fails(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": b"x" * 10})

    class Growing(MemoryStorage):
        def put(self, key: str, *arguments: Any, **options: Any) -> ObjectInfo:
            with (tmp_path / "a").open("ab") as file:
                file.write(b"more")
            return super().put(key, *arguments, **options)

    report = push([Transfer("a", "a")], context_on(Growing()))
    assert "changed its length" in str(report.failed[0].error)


# stops and interrupts


def test_a_cancelled_listing_is_reported_as_a_cancellation() -> None:
    storage, cancellation = Watched(), CancellationToken()
    transfers = filled(storage, 10)
    transfer_context = context_on(storage, cancellation=cancellation)
    broken, ended = threading.Event(), threading.Event()

    def plan() -> Iterator[Transfer]:
        yield from transfers
        try:
            with transfer_context.retry_policy.abortable(broken.set):
                threading.Timer(0.1, cancellation.cancel, ["tired"]).start()
                broken.wait(SOON)
                time.sleep(0.2)
                raise UnavailableError("the connection broke")
        finally:
            ended.set()

    started = time.monotonic()
    report = pull(plan(), transfer_context)
    assert time.monotonic() - started < 5.0
    assert ended.wait(SOON)
    time.sleep(0.01)
    assert isinstance(report.error, StoppedError)
    assert report.keys == [item.key for item in transfers]


def test_cancelled_files_are_not_reported_as_failed() -> None:
    storage, cancellation = Watched(), CancellationToken(grace_seconds=0.1)
    plan = filled(storage, 100, 4000)

    def wait() -> None:
        cancellation.cancel("tired")
        time.sleep(0.2)

    storage.waits = {item.key: wait for item in plan[10:]}
    report = pull(plan, context_on(storage, cancellation=cancellation))
    assert report.keys == [item.key for item in plan[:10]]
    assert (report.failed, type(report.error)) == ([], StoppedError)
    assert len(storage.calls) < 20
    assert parts_in("out") == []


@pytest.mark.parametrize("type_", ["s3", ""])
def test_an_unknown_backend_or_option_is_refused(type_: str) -> None:
    with pytest.raises(PfstorageError, match="there is no backend"):
        open_storage(type=type_)
    with pytest.raises(PfstorageError, match="has no option 'colour'"):
        open_storage(type="memory", colour="red")
