"""The threads that move files: in what order, how many at once, and how they end."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from pfstorage.transfer.concurrency import AdaptiveConcurrency
from pfstorage.transfer.pool import WorkerPool
from tests.support.waiting import settle

SOON = 10.0
"""Seconds within which whatever is to happen has happened, on a busy machine, too."""


@pytest.fixture
def crew_of() -> Iterator[Callable[[int], WorkerPool]]:
    """Make crews of so many threads, which are ended with the test."""
    crews: list[WorkerPool] = []

    def make(workers: int) -> WorkerPool:
        crews.append(WorkerPool(AdaptiveConcurrency(workers)))
        return crews[-1]

    yield make
    for pool in crews:
        assert pool.close(SOON)


class Meeting:
    """Ends once *count* threads are in it at the same time."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)
        self.held = threading.Event()

    def __call__(self) -> None:
        try:
            self._barrier.wait(SOON)
        except threading.BrokenBarrierError:
            return
        self.held.set()


def shared(pool: WorkerPool, tasks: Sequence[Callable[[], int]]) -> list[int] | ValueError:
    """Let a task of *pool* share out *tasks*; return what came of it."""
    results: list[list[int] | ValueError] = []
    done = threading.Event()

    def task() -> None:
        try:
            results.append(pool.share(tasks))
        except ValueError as e:
            results.append(e)
        done.set()

    pool.submit(task)
    assert done.wait(SOON)
    return results[0]


def test_tasks_begin_in_the_order_in_which_they_came(crew_of: Callable[[int], WorkerPool]) -> None:
    pool, all_done = crew_of(1), threading.Event()
    begun: list[int] = []
    for number in range(200):
        pool.submit(functools.partial(begun.append, number))
    pool.submit(all_done.set)
    assert all_done.wait(SOON)
    assert begun == list(range(200))


def test_so_many_tasks_run_at_once_as_are_allowed_and_no_more(crew_of: Callable[[int], WorkerPool]) -> None:
    pool, lock, all_done = crew_of(4), threading.Lock(), threading.Semaphore(0)
    now, most = 0, 0
    meeting = Meeting(4)

    def task() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        meeting()
        with lock:
            now -= 1
        all_done.release()

    for _ in range(40):
        pool.submit(task)
    for _ in range(40):
        assert all_done.acquire(timeout=SOON)
    assert meeting.held.is_set()
    assert most == 4


@pytest.mark.parametrize("idle", [0, 1, 3, 4])
def test_as_many_begin_at_once_however_many_threads_there_were(
    crew_of: Callable[[int], WorkerPool], idle: int
) -> None:
    pool = crew_of(4)
    before = Meeting(max(idle, 1))
    for _ in range(idle):
        pool.submit(before)
    assert not idle or before.held.wait(SOON)
    while pool.busy:
        time.sleep(0.001)
    meeting = Meeting(4)
    for _ in range(4):
        pool.submit(meeting)
    assert meeting.held.wait(SOON)


def test_a_tasks_pieces_are_done_by_whoever_is_free(crew_of: Callable[[int], WorkerPool]) -> None:
    pool, first, meeting = crew_of(4), Meeting(1), Meeting(4)
    pool.submit(first)  # one thread is there and idle, the others are yet to be made
    assert first.held.wait(SOON)

    def piece(number: int) -> int:
        meeting()
        return number

    assert shared(pool, [functools.partial(piece, number) for number in range(4)]) == [0, 1, 2, 3]
    assert meeting.held.is_set()


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_results_are_in_order_whoever_is_first(crew_of: Callable[[int], WorkerPool], workers: int) -> None:
    def piece(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    pieces = [functools.partial(piece, number) for number in range(50)]
    assert shared(crew_of(workers), pieces) == list(range(50))


def test_a_crew_of_one_does_all_pieces_itself(crew_of: Callable[[int], WorkerPool]) -> None:
    pool = crew_of(1)
    here = shared(pool, [threading.get_ident] * 20)
    assert isinstance(here, list)
    assert len(set(here)) == 1


def test_tasks_that_all_share_out_do_not_wait_for_each_other(crew_of: Callable[[int], WorkerPool]) -> None:
    pool, results, all_done = crew_of(3), [], threading.Semaphore(0)

    def task() -> None:
        results.append(sum(pool.share([lambda: 1] * 7)))
        all_done.release()

    for _ in range(30):
        pool.submit(task)
    for _ in range(30):
        assert all_done.acquire(timeout=SOON)
    assert results == [7] * 30


def test_nothing_to_share_is_nothing(crew_of: Callable[[int], WorkerPool]) -> None:
    assert shared(crew_of(2), []) == []


def test_pieces_go_before_other_tasks(crew_of: Callable[[int], WorkerPool]) -> None:
    pool, order = crew_of(2), []
    held, hold, shared_out, release, all_done = (threading.Event() for _ in range(5))

    def busy() -> None:
        held.set()
        hold.wait(SOON)

    def first() -> None:  # done by whoever shares
        shared_out.set()
        release.wait(SOON)

    pool.submit(busy)
    assert held.wait(SOON)
    pool.submit(lambda: pool.share([first, *[lambda: order.append("piece")] * 5]))
    assert shared_out.wait(SOON)
    for _ in range(3):
        pool.submit(lambda: order.append("task"))
    pool.submit(all_done.set)
    hold.set()
    assert all_done.wait(SOON)
    release.set()
    assert order == ["piece"] * 5 + ["task"] * 3


def test_the_first_error_is_raised_and_what_has_not_begun_is_left_out(
    crew_of: Callable[[int], WorkerPool],
) -> None:
    begun: list[int] = []

    def piece(number: int) -> int:
        begun.append(number)
        if number >= 3:
            raise ValueError(number)
        return number

    error = shared(crew_of(1), [functools.partial(piece, number) for number in range(100)])
    assert isinstance(error, ValueError)
    assert error.args == (3,)
    assert begun == [0, 1, 2, 3]


def test_of_two_errors_the_first_counts(crew_of: Callable[[int], WorkerPool]) -> None:
    both, failed = Meeting(2), threading.Event()

    def fails_first() -> int:
        both()
        failed.set()
        raise ValueError("first")

    def fails_later() -> int:
        both()
        failed.wait(SOON)
        settle()
        raise ValueError("later")

    for tasks in ([fails_first, fails_later], [fails_later, fails_first]):
        failed.clear()
        assert str(shared(crew_of(2), tasks)) == "first"
        both = Meeting(2)


def test_an_error_waits_for_the_pieces_that_are_under_way(crew_of: Callable[[int], WorkerPool]) -> None:
    pool, both, ended = crew_of(2), Meeting(2), threading.Event()

    def slow() -> int:
        both()
        time.sleep(0.1)
        ended.set()
        return 0

    def fails() -> int:
        both()
        raise ValueError

    assert isinstance(shared(pool, [fails, slow]), ValueError)
    assert ended.is_set()


def test_a_limit_that_grows_is_used_and_one_that_shrinks_is_kept(
    crew_of: Callable[[int], WorkerPool],
) -> None:
    pool = crew_of(8)
    limit = pool._concurrency
    lock, sizes = threading.Lock(), []
    now = 0

    def task(all_done: threading.Semaphore, are_there: threading.Event) -> None:
        nonlocal now
        with lock:
            now += 1
            sizes.append(now)
            if now == allowed:
                are_there.set()
        assert are_there.wait(SOON)
        time.sleep(0.002)
        with lock:
            now -= 1
        all_done.release()

    for allowed in (2, 8, 1, 4):
        limit._wanted = allowed
        sizes.clear()
        all_done, are_there = threading.Semaphore(0), threading.Event()
        for _ in range(60):
            pool.submit(functools.partial(task, all_done, are_there))
        for _ in range(60):
            assert all_done.acquire(timeout=SOON)
        assert max(sizes) == allowed
        while pool.busy:
            time.sleep(0.001)


def test_what_was_cancelled_does_not_begin(crew_of: Callable[[int], WorkerPool]) -> None:
    pool, begun, release = crew_of(1), threading.Event(), threading.Event()
    done: list[int] = []

    def first() -> None:
        begun.set()
        release.wait(SOON)

    pool.submit(first)
    assert begun.wait(SOON)
    for number in range(5):
        pool.submit(functools.partial(done.append, number))
    pool.cancel()
    after = threading.Event()
    pool.submit(after.set)
    release.set()
    assert after.wait(SOON)
    assert done == []


def test_closing_waits_so_long_and_tells_whether_all_has_ended() -> None:
    pool, begun, release = WorkerPool(AdaptiveConcurrency(2)), threading.Event(), threading.Event()
    done: list[int] = []

    def first() -> None:
        begun.set()
        release.wait(SOON)
        done.append(1)

    pool.submit(first)
    assert begun.wait(SOON)
    started = time.monotonic()
    assert not pool.close(0.1)
    assert 0.1 <= time.monotonic() - started < SOON / 2
    pool.submit(functools.partial(done.append, 2))  # it is closed already
    release.set()
    assert pool.close()
    assert done == [1]


def test_threads_are_made_as_they_are_needed_and_end_with_the_crew() -> None:
    before = threading.active_count()
    pool = WorkerPool(AdaptiveConcurrency(64))
    assert threading.active_count() == before
    pool.share([lambda: 1])
    assert threading.active_count() == before
    pool.submit(lambda: None)
    assert threading.active_count() <= before + 1
    assert pool.close(SOON)
    assert threading.active_count() == before


@pytest.fixture
def few_threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As many threads for transfers as the number in the list, as where the system limits them."""
    left, start = [3], threading.Thread.start

    def start_one(thread: threading.Thread) -> None:
        if thread.name == "transfer":
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    return left


def test_where_the_system_gives_few_threads_those_do_it_all(
    crew_of: Callable[[int], WorkerPool], few_threads: list[int]
) -> None:
    pool, all_done = crew_of(8), threading.Semaphore(0)
    for _ in range(100):
        pool.submit(all_done.release)
    for _ in range(100):
        assert all_done.acquire(timeout=SOON)
    assert shared(pool, [lambda: 1] * 20) == [1] * 20


def test_where_it_gives_none_that_is_raised_and_the_task_forgotten(
    crew_of: Callable[[int], WorkerPool], few_threads: list[int]
) -> None:
    pool, done = crew_of(8), threading.Event()
    few_threads[0] = 0
    with pytest.raises(RuntimeError):
        pool.submit(done.set)
    few_threads[0], after = 1, threading.Event()
    pool.submit(after.set)
    assert after.wait(SOON)
    assert not done.is_set()
