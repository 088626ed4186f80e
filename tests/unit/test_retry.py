"""Retries, and pages of a listing that are fetched ahead: accepted failures, time limits, and cancellation."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from pfstorage.backends import retry
from pfstorage.backends.errors import ConnectError, ProxyAnswerError
from pfstorage.backends.retry import (
    BUDGET,
    BUDGET_FOR_SUCCESS,
    CONNECT_PATIENCE,
    MAX_PAUSE,
    OutageTracker,
    RetryPolicy,
    _pause,
)
from pfstorage.backends.swift.pages import AHEAD, FROM_BOTH_ENDS_AFTER, PageRow, fetched_ahead
from pfstorage.errors import (
    IntegrityError,
    NotFoundError,
    PfstorageError,
    StoppedError,
    StorageError,
    UnavailableError,
)
from pfstorage.runtime.cancellation import CancellationToken
from tests.support.waiting import settle, until

AT_ONCE = UnavailableError("busy", retry_after=0)
LATER = UnavailableError("busy", retry_after=3600)
SOON = 10.0


class Failing:
    """A function that raises *errors*, one for each call, and then returns 7. *count* is the number of calls."""

    def __init__(self, *errors: StorageError) -> None:
        self.errors = list(errors)
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        if self.errors:
            raise self.errors.pop(0)
        return 7


def test_the_result_of_the_last_try_is_returned() -> None:
    call = Failing(AT_ONCE, AT_ONCE, AT_ONCE)
    assert RetryPolicy(3).call(call) == 7
    assert call.count == 4


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_tries_end_with_the_last_error(retries: int) -> None:
    call = Failing(*[UnavailableError(str(number), retry_after=0) for number in range(9)])
    with pytest.raises(UnavailableError, match=str(retries)):
        RetryPolicy(retries).call(call)
    assert call.count == retries + 1


def test_a_call_may_retry_other_errors() -> None:
    call = Failing(IntegrityError("damaged", retry_after=0), IntegrityError("damaged", retry_after=0))
    assert RetryPolicy(2).call(call, (IntegrityError,)) == 7
    call = Failing(NotFoundError("gone"))
    with pytest.raises(NotFoundError):
        RetryPolicy(3).call(call, (IntegrityError,))
    assert call.count == 1


def test_a_kind_of_error_may_bound_its_retries() -> None:
    answer = ProxyAnswerError("404", retry_after=0)
    call = Failing(AT_ONCE, answer, AT_ONCE, answer, answer, AT_ONCE)
    with pytest.raises(ProxyAnswerError):
        RetryPolicy(10).call(call)
    assert call.count == 5


def test_a_repetition_uses_the_budget_and_a_success_of_it_adds_nothing() -> None:
    retry_policy = RetryPolicy(1000, has_budget=True)
    call = Failing(IntegrityError("damaged", retry_after=0))
    assert retry_policy.repeat(call, (IntegrityError,), 1) == 7
    with pytest.raises(UnavailableError):
        retry_policy.call(call := Failing(*[AT_ONCE] * 1000))
    assert call.count == BUDGET


def test_a_repetition_ends_with_the_last_error() -> None:
    call = Failing(*[IntegrityError(str(number), retry_after=0) for number in range(9)])
    with pytest.raises(IntegrityError, match="2"):
        RetryPolicy(0).repeat(call, (IntegrityError,), 2)
    assert call.count == 3


def test_a_call_that_makes_progress_is_retried_without_a_limit() -> None:
    call = Failing(*[AT_ONCE] * 50)
    assert RetryPolicy(2).call(call, progress=lambda: call.count // 2) == 7


def test_a_call_that_makes_no_more_progress_has_the_remaining_tries() -> None:
    call = Failing(*[AT_ONCE] * 50)
    with pytest.raises(UnavailableError):
        RetryPolicy(3).call(call, progress=lambda: min(call.count, 10))
    assert call.count == 10 + 3


def test_a_store_that_takes_no_connection_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = 0.5
    monkeypatch.setattr(retry, "CONNECT_PATIENCE", patience)
    call = Failing(*[ConnectError("nothing listens", retry_after=0.2)] * 50)
    started = time.monotonic()
    with pytest.raises(UnavailableError):
        RetryPolicy(100).call(call)
    assert patience <= time.monotonic() - started < patience + 5


DOWN = ConnectError("nothing listens")


def test_a_call_to_a_store_that_is_known_to_be_away_is_tried_once() -> None:
    outage = OutageTracker()
    outage.note(DOWN)
    outage._began -= CONNECT_PATIENCE
    call = Failing(*[DOWN] * 50)
    with pytest.raises(UnavailableError):
        RetryPolicy(100).call(call, outage=outage)
    assert call.count == 1


@pytest.mark.parametrize("error", [None, UnavailableError("it answered 503")])
def test_an_outage_is_over_once_the_store_takes_a_connection(error: UnavailableError | None) -> None:
    outage = OutageTracker()
    outage.note(DOWN)
    outage._began -= 100
    assert outage.seconds >= 100
    outage.note(error)
    assert outage.seconds == 0
    outage.note(DOWN)
    assert outage.seconds < 1


def test_an_outage_that_was_not_seen_for_a_while_begins_again() -> None:
    outage = OutageTracker()
    outage.note(DOWN)
    outage._began -= 1000
    outage._seen -= MAX_PAUSE + 1
    assert outage.seconds == 0
    outage.note(DOWN)
    assert outage.seconds < 1


def test_all_share_a_budget_so_that_a_failing_store_is_not_asked_many_times_as_often() -> None:
    retry_policy = RetryPolicy(100, has_budget=True)
    count = 0
    for _ in range(50):
        call = Failing(*[AT_ONCE] * 200)
        with pytest.raises(UnavailableError):
            retry_policy.call(call)
        count += call.count - 1
    assert count == BUDGET


def test_each_success_adds_to_the_budget() -> None:
    retry_policy = RetryPolicy(1000, has_budget=True)
    with pytest.raises(UnavailableError):
        retry_policy.call(Failing(*[AT_ONCE] * 1000))
    for _ in range(int(20 / BUDGET_FOR_SUCCESS)):
        assert retry_policy.call(Failing()) == 7
    call = Failing(*[AT_ONCE] * 1000)
    with pytest.raises(UnavailableError):
        retry_policy.call(call)
    assert 20 - 1 <= call.count <= 20 + 1  # the failure before cost one that was not there


def test_without_a_bound_there_is_no_budget() -> None:
    assert RetryPolicy(1000).call(Failing(*[AT_ONCE] * 900)) == 7


def test_each_failure_that_is_retried_is_reported() -> None:
    on_failure: list[StorageError] = []
    errors = [UnavailableError("one", retry_after=0), UnavailableError("two", retry_after=0)]
    RetryPolicy(3, on_failure=on_failure.append).call(Failing(*errors))
    assert on_failure == errors


def test_the_budget_is_right_in_many_threads() -> None:
    retry_policy = RetryPolicy(1000, has_budget=True)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(retry_policy.call, [Failing(AT_ONCE) for _ in range(300)])) == [7] * 300
    call = Failing(*[AT_ONCE] * 1000)
    with pytest.raises(UnavailableError):
        retry_policy.call(call)
    assert call.count - 1 == BUDGET - 300 + 300 * BUDGET_FOR_SUCCESS


def test_a_pause_ends_as_soon_as_it_should() -> None:
    cancellation = CancellationToken()
    threading.Timer(0.05, cancellation.cancel).start()
    started = time.monotonic()
    with pytest.raises(StoppedError):
        RetryPolicy(3, cancellation=cancellation).call(Failing(LATER))
    assert time.monotonic() - started < SOON


def test_nothing_is_retried_after_a_cancellation() -> None:
    cancellation = CancellationToken(grace_seconds=0.0)
    cancellation.cancel()
    time.sleep(0.001)
    call = Failing()
    with pytest.raises(StoppedError):
        RetryPolicy(3, cancellation=cancellation).call(call)
    assert call.count == 0


def test_a_call_that_runs_before_the_deadline_completes() -> None:
    cancellation = CancellationToken(grace_seconds=SOON)
    cancellation.cancel()
    assert RetryPolicy(3, cancellation=cancellation).call(Failing()) == 7


def test_an_interruption_ends_the_current_waits_and_nothing_else() -> None:
    retry_policy, broken = RetryPolicy(0), []
    with retry_policy.abortable(lambda: broken.append("first")):
        with retry_policy.abortable(lambda: broken.append("second")):
            retry_policy.abort_requests()
        assert sorted(broken) == ["first", "second"]
        broken.clear()
        retry_policy.abort_requests()
        assert broken == ["first"]
    retry_policy.abort_requests()
    assert broken == ["first"]


@pytest.mark.parametrize(("asked", "pause"), [(0, 0), (7, 7), (3600, 60)])
def test_the_pause_that_a_store_asks_for_is_made_within_bounds(asked: int, pause: float) -> None:
    assert _pause(0, UnavailableError("busy", retry_after=asked)) == pause


def test_pauses_grow_are_random_and_are_bounded() -> None:
    pauses = [[_pause(attempt, UnavailableError("busy")) for _ in range(200)] for attempt in range(8)]
    bounds = [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0]
    for each, bound in zip(pauses, bounds, strict=True):
        assert 0.8 * bound < max(each) <= bound
        assert min(each) < 0.2 * bound


# pages


def name_of(row: PageRow) -> str:
    return str(row["name"])


class Pages:
    """Rows in pages of ten, either way. *fetched* are the markers that were asked for, *back* those backward."""

    def __init__(self, count: int, fails_after: str | None = None) -> None:
        self.fetched: list[str] = []
        self.back: list[str] = []
        self.seconds = 0.0
        self.waits: threading.Event | None = None
        self.rows: list[PageRow] = [{"name": f"{number:04}"} for number in range(count)]
        self._fails_after = fails_after

    def __call__(self, marker: str) -> tuple[Sequence[PageRow], str | None]:
        self.fetched.append(marker)
        if marker == self._fails_after:
            raise UnavailableError(f"after {marker}")
        if self.waits and marker:
            self.waits.wait(SOON)
        return self._page([row for row in self.rows if name_of(row) > marker])

    def backward(self, marker: str) -> tuple[Sequence[PageRow], str | None]:
        self.back.append(marker)
        return self._page([row for row in reversed(self.rows) if not marker or name_of(row) < marker])

    def _page(self, rows: list[PageRow]) -> tuple[Sequence[PageRow], str | None]:
        time.sleep(self.seconds)
        return rows[:10], name_of(rows[9]) if len(rows) > 10 else None


def rows_of(pages: Iterator[Sequence[PageRow]]) -> list[PageRow]:
    return [row for page in pages for row in page]


def listing_threads() -> int:
    return sum(thread.name.startswith("listing") for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    until(lambda: listing_threads() == 0)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 35, 100])
def test_pages_come_in_order_each_once(count: int) -> None:
    fetch = Pages(count)
    assert rows_of(fetched_ahead(fetch, "")) == fetch.rows
    assert fetch.fetched == ["", *[f"{start - 1:04}" for start in range(10, count, 10)]]


def test_pages_begin_after_the_marker() -> None:
    fetch = Pages(35)
    assert rows_of(fetched_ahead(fetch, "0019")) == fetch.rows[20:]


@pytest.mark.parametrize(("limit", "fetches"), [(1, 1), (10, 1), (11, 2), (30, 3)])
def test_no_page_is_fetched_beyond_the_limit(limit: int, fetches: int) -> None:
    fetch = Pages(1000)
    assert rows_of(fetched_ahead(fetch, "", limit)) == fetch.rows[: 10 * fetches]
    assert len(fetch.fetched) == fetches


def test_one_page_needs_no_thread() -> None:
    pages = fetched_ahead(Pages(10), "")
    next(pages)
    assert listing_threads() == 0


@pytest.mark.parametrize("marker", ["", "0009", "0029"])
def test_an_error_is_raised_after_the_pages_before_it(marker: str) -> None:
    fetch = Pages(100, fails_after=marker)
    got: list[PageRow] = []
    with pytest.raises(UnavailableError):
        got.extend(row for page in fetched_ahead(fetch, "") for row in page)
    assert got == [row for row in fetch.rows if name_of(row) <= marker]
    assert fetch.fetched[-1] == marker


def test_the_next_pages_are_fetched_while_one_is_used_and_no_more_of_them() -> None:
    fetch = Pages(1000)
    with contextlib.closing(fetched_ahead(fetch, "")) as pages:  # type: ignore[type-var]
        next(pages)
        until(lambda: len(fetch.fetched) == 1 + AHEAD + 1)
        settle()
        assert len(fetch.fetched) == 1 + AHEAD + 1
        next(pages)
        until(lambda: len(fetch.fetched) == 2 + AHEAD + 1)
    until(lambda: listing_threads() == 0)
    assert len(fetch.fetched) <= 2 + AHEAD + 1


def test_a_reader_that_stops_early_does_not_wait_for_the_next_page() -> None:
    fetch = Pages(1000)
    fetch.waits = threading.Event()
    pages = fetched_ahead(fetch, "")
    next(pages)
    started = time.monotonic()
    pages.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < SOON / 2
    fetch.waits.set()
    until(lambda: listing_threads() == 0)
    assert len(fetch.fetched) <= 2


def test_an_error_in_the_use_of_a_page_ends_the_fetching() -> None:
    fetch = Pages(1000)

    def use() -> None:
        for _ in fetched_ahead(fetch, ""):
            raise KeyError

    with pytest.raises(KeyError):
        use()
    until(lambda: listing_threads() == 0)
    assert len(fetch.fetched) <= 1 + AHEAD + 1


@pytest.mark.parametrize("both_ends", [False, True])
def test_readers_that_stop_at_any_moment_leave_no_thread(both_ends: bool) -> None:
    def leave(after: int) -> None:
        fetch = Pages(300)
        back = fetch.backward if both_ends else None
        for number, _ in enumerate(fetched_ahead(fetch, "", None, back, name_of)):
            if number == after:
                return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(leave, [number % 31 for number in range(93)]))
    until(lambda: listing_threads() == 0)


@pytest.mark.parametrize("count", [10 * (FROM_BOTH_ENDS_AFTER + 1), 95, 100, 101, 305])
@pytest.mark.parametrize("seconds", [0.0, 0.003])
def test_a_long_listing_comes_from_both_ends_and_each_row_once(count: int, seconds: float) -> None:
    fetch = Pages(count)
    fetch.seconds = seconds
    assert rows_of(fetched_ahead(fetch, "", None, fetch.backward, name_of)) == fetch.rows
    if seconds and count > 300:
        assert len(fetch.back) > 2
        assert len(fetch.fetched) + len(fetch.back) <= count / 10 + 1 + AHEAD + 2


def test_a_short_listing_comes_from_one_end() -> None:
    fetch = Pages(10 * FROM_BOTH_ENDS_AFTER)
    fetch.seconds = 0.003
    assert rows_of(fetched_ahead(fetch, "", None, fetch.backward, name_of)) == fetch.rows
    assert fetch.back == []


@pytest.mark.parametrize("error", [UnavailableError("gone"), StoppedError("stopped")])
def test_a_failure_at_the_other_end_only_takes_longer(error: PfstorageError) -> None:
    fetch = Pages(305)
    fetch.seconds = 0.003

    def backward(marker: str) -> tuple[Sequence[PageRow], str | None]:
        if len(fetch.back) == 3:
            raise error
        return fetch.backward(marker)

    assert rows_of(fetched_ahead(fetch, "", None, backward, name_of)) == fetch.rows


@pytest.mark.parametrize("leaves", [False, True])
def test_a_page_that_stalls_delays_nobody_else(leaves: bool) -> None:
    fetch, release, begun = Pages(305), threading.Event(), threading.Event()
    fetch.seconds = 0.003

    def backward(marker: str) -> tuple[Sequence[PageRow], str | None]:
        if marker:
            begun.set()
            release.wait(SOON)
        return fetch.backward(marker)

    started = time.monotonic()
    with contextlib.closing(fetched_ahead(fetch, "", None, backward, name_of)) as pages:  # type: ignore[type-var]
        for _ in pages:
            if leaves and begun.is_set():
                break
    assert time.monotonic() - started < SOON / 2
    assert begun.is_set()
    release.set()


def test_a_store_that_knows_no_other_order_is_believed_one_way() -> None:
    fetch = Pages(305)
    fetch.seconds = 0.003
    assert rows_of(fetched_ahead(fetch, "", None, lambda _: fetch(""), name_of)) == fetch.rows


@pytest.mark.parametrize("retries", [0, 3])
def test_a_cancelled_fetch_ends_at_once_and_nothing_starts_any_more(retries: int) -> None:
    retry_policy, broken = RetryPolicy(retries), threading.Event()
    begun = threading.Event()

    def wait() -> None:
        with retry_policy.abortable(broken.set):
            begun.set()
            assert broken.wait(30)
            raise UnavailableError("the connection broke")

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(retry_policy.call, wait)
        assert begun.wait(30)
        retry_policy.abort("the server ends")
        with pytest.raises(StoppedError, match="the server ends"):
            waiting.result(30)
    with pytest.raises(StoppedError):
        retry_policy.call(lambda: 7)
    with pytest.raises(StoppedError), retry_policy.abortable(broken.set):
        raise AssertionError("it has begun")
