"""`RequestCoalescer`: one request serves simultaneous callers, and no answer is older than its call."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from pfstorage.backends import coalescing
from pfstorage.backends.coalescing import MAX_CONCURRENT, RequestCoalescer
from pfstorage.errors import StoppedError
from tests.support.waiting import settle, until

SECONDS = 30


class Store:
    """Answers each request with a new number, when `may_answer` permits."""

    def __init__(self) -> None:
        self.answers: RequestCoalescer[int] = RequestCoalescer()
        self.may_answer = threading.Semaphore(0)
        self.asked = itertools.count()
        self.questions = 0

    def get(self, name: str = "ls") -> int:
        return self.answers.get(name, self._answer)

    def _answer(self) -> int:
        number = next(self.asked)
        self.questions = number + 1
        assert self.may_answer.acquire(timeout=SECONDS)
        return number

    def waiting(self, name: str = "ls") -> bool:
        question = self.answers._requests.get(name)
        return bool(question and question.next)


@pytest.fixture
def long_shared_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "MAX_SHARED_WAIT", SECONDS)


def fill_slots(store: Store, pool: ThreadPoolExecutor) -> list[Future[int]]:
    """Start as many requests as may run at once."""
    first = [pool.submit(store.get) for _ in range(MAX_CONCURRENT)]
    until(lambda: store.questions == MAX_CONCURRENT)
    return first


def join_waiting(store: Store, pool: ThreadPoolExecutor, count: int) -> list[Future[int]]:
    """Start *count* more callers. Return when all of them wait."""
    entered = threading.Semaphore(0)

    def ask() -> int:
        entered.release()
        return store.get()

    asked = [pool.submit(ask) for _ in range(count)]
    for _ in asked:
        assert entered.acquire(timeout=SECONDS)
    settle()  # from there on it is a lock that each takes
    assert store.waiting()
    return asked


@pytest.mark.usefixtures("long_shared_wait")
def test_waiting_callers_are_answered_together() -> None:
    store = Store()
    with ThreadPoolExecutor(20) as pool:
        first = fill_slots(store, pool)
        rest = join_waiting(store, pool, 10)
        assert store.questions == MAX_CONCURRENT
        store.may_answer.release(MAX_CONCURRENT + 1)
        assert {each.result(SECONDS) for each in first} == set(range(MAX_CONCURRENT))
        assert {each.result(SECONDS) for each in rest} == {MAX_CONCURRENT}
    assert store.questions == MAX_CONCURRENT + 1
    assert store.answers._requests == {}


@pytest.mark.usefixtures("long_shared_wait")
def test_no_caller_joins_a_request_that_is_under_way() -> None:
    store = Store()
    with ThreadPoolExecutor(20) as pool:
        fill_slots(store, pool)
        early = join_waiting(store, pool, 3)
        store.may_answer.release(1)
        until(lambda: store.questions == MAX_CONCURRENT + 1)  # the early ones are being asked for
        late = join_waiting(store, pool, 3)
        store.may_answer.release(3)
        assert {each.result(SECONDS) for each in early} == {MAX_CONCURRENT}
        assert {each.result(SECONDS) for each in late} == {MAX_CONCURRENT + 1}
    assert store.answers._requests == {}


@pytest.mark.usefixtures("long_shared_wait")
def test_another_request_does_not_wait() -> None:
    store = Store()
    with ThreadPoolExecutor(20) as pool:
        fill_slots(store, pool)
        waiting = join_waiting(store, pool, 1)
        other = pool.submit(store.get, "another")
        until(lambda: store.questions == MAX_CONCURRENT + 1)
        store.may_answer.release(MAX_CONCURRENT + 2)
        assert other.result(SECONDS) == MAX_CONCURRENT
        assert waiting[0].result(SECONDS) == MAX_CONCURRENT + 1


def test_a_caller_that_asks_alone_asks_each_time() -> None:
    store = Store()
    store.may_answer.release(3)
    assert [store.get() for _ in range(3)] == [0, 1, 2]


def test_a_request_that_is_never_answered_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "MAX_SHARED_WAIT", 0.01)
    store = Store()
    with ThreadPoolExecutor(20) as pool:
        stalled = fill_slots(store, pool)
        late = pool.submit(store.get)
        until(lambda: store.questions == MAX_CONCURRENT + 1)
        store.may_answer.release(MAX_CONCURRENT + 1)
        assert late.result(SECONDS) == MAX_CONCURRENT
        assert {each.result(SECONDS) for each in stalled} == set(range(MAX_CONCURRENT))
    assert store.answers._requests == {}


@pytest.mark.usefixtures("long_shared_wait")
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_a_failure_is_raised_to_each_waiting_caller_and_then_forgotten(kind: type[BaseException]) -> None:
    answers: RequestCoalescer[int] = RequestCoalescer()
    may_answer = threading.Semaphore(0)

    def fail() -> int:
        assert may_answer.acquire(timeout=SECONDS)
        raise kind

    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(answers.get, "ls", fail) for _ in range(MAX_CONCURRENT + 5)]
        until(lambda: bool(answers._requests) and answers._requests["ls"].next is not None)
        settle()
        may_answer.release(len(asked))
        assert [type(each.exception(SECONDS)) for each in asked] == [kind] * len(asked)
    assert answers._requests == {}
    assert answers.get("ls", lambda: 7) == 7


def test_a_caller_that_is_interrupted_leaves_no_waiting_caller_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store()

    class Interrupted(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            until(has_joined.is_set)
            raise KeyboardInterrupt

    has_joined = threading.Event()
    make = coalescing._SharedRequest
    monkeypatch.setattr(coalescing, "_SharedRequest", lambda: make(Interrupted()))
    with ThreadPoolExecutor(20) as pool:
        fill_slots(store, pool)
        rest = [pool.submit(store.get) for _ in range(4)]
        until(store.waiting)
        settle()
        has_joined.set()
        assert [type(each.exception(SECONDS)) for each in rest] == [KeyboardInterrupt] * 4
        store.may_answer.release(MAX_CONCURRENT)
    assert store.answers._requests == {}


def test_a_caller_that_is_cancelled_while_it_asks_for_others_cancels_none_of_them(
    long_shared_wait: None,
) -> None:
    answers: RequestCoalescer[int] = RequestCoalescer()
    may_answer, asked = threading.Semaphore(0), threading.Semaphore(0)

    def wait() -> int:
        asked.release()
        assert may_answer.acquire(timeout=SECONDS)
        return 1

    def stopped() -> int:
        raise StoppedError("nobody waits for it any more")

    def question() -> Any:
        return answers._requests["ls"].next

    with ThreadPoolExecutor(8) as pool:
        before = [pool.submit(answers.get, "ls", wait) for _ in range(MAX_CONCURRENT)]
        assert all(asked.acquire(timeout=SECONDS) for _ in before)
        asks = pool.submit(answers.get, "ls", stopped)
        until(question)
        joins = pool.submit(answers.get, "ls", lambda: 2)
        settle()
        may_answer.release(MAX_CONCURRENT)
        with pytest.raises(StoppedError):
            asks.result(SECONDS)
        assert joins.result(SECONDS) == 2
