"""Fair shares of owners: requests of an owner with much processor time wait for those of owners with less."""

from __future__ import annotations

import math
import queue
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import pytest

from pfstorage.runtime import owner_shares
from pfstorage.runtime.owner_shares import HALF_LIFE, REQUEST_LASTS, Clocks, OwnerShares, RequestUsage
from tests.support.waiting import LONG, settle, until

MUCH, LITTLE = 10.0, 1.0


class Clock:
    """The time, and the processor time of each thread, as a test sets them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.computed: Counter[int] = Counter()
        self._usages: defaultdict[int, RequestUsage] = defaultdict(RequestUsage)
        self.shares = OwnerShares(
            Clocks(lambda: self.now, lambda: self.now, lambda: self.computed[threading.get_ident()])
        )
        self.now += 1.0  # measured from here on, the process is busy

    @property
    def usage(self) -> RequestUsage:
        return self._usages[threading.get_ident()]

    def begin_waiting(self) -> None:
        self.shares.begin_waiting(self.usage)

    def end(self) -> None:
        self.shares.end(self.usage)

    def compute(self, seconds: float) -> None:
        self.computed[threading.get_ident()] += seconds  # type: ignore[assignment]


class Thread:
    """A thread that runs one function after the other."""

    def __init__(self) -> None:
        self._steps: queue.Queue[Callable[[], object] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while step := self._steps.get():
            step()
            self._steps.task_done()

    def start(self, *steps: Callable[[], object]) -> None:
        for step in steps:
            self._steps.put(step)

    def do(self, *steps: Callable[[], object]) -> None:
        """Run *steps*, and fail if they wait for other requests."""
        self.start(*steps)
        until(lambda: not self.is_waiting)

    @property
    def is_waiting(self) -> bool:
        return self._steps.unfinished_tasks > 0

    def close(self) -> None:
        self._steps.put(None)
        self._thread.join()


@pytest.fixture(autouse=True)
def waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_shares, "YIELD_SECONDS", 2 * LONG)  # longer than `until` waits


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def threads() -> Iterator[tuple[Thread, Thread]]:
    both = Thread(), Thread()
    yield both
    for thread in both:
        thread.close()


def has_used(clock: Clock, owner: str, seconds: float) -> None:
    """Answer one request of *owner* in this thread."""
    begin(clock, owner)()
    clock.compute(seconds)
    clock.begin_waiting()
    clock.end()


def begin(clock: Clock, owner: str) -> Callable[[], None]:
    def begin_of_owner() -> None:
        clock.shares.begin(clock.usage)
        clock.shares.set_owner(clock.usage, owner)

    return begin_of_owner


@pytest.fixture
def light_at_work(clock: Clock, threads: tuple[Thread, Thread]) -> Thread:
    """The first of *threads*, with a request at work, whose owner has used less than the owner ``heavy``."""
    has_used(clock, "heavy", MUCH)
    has_used(clock, "light", LITTLE)
    threads[0].do(begin(clock, "light"))
    return threads[0]


@pytest.mark.parametrize("ends", ["begin_waiting", "end"])
def test_an_owner_who_has_used_more_waits_for_the_reply_or_the_end(
    clock: Clock, threads: tuple[Thread, Thread], light_at_work: Thread, ends: str
) -> None:
    heavy = threads[1]
    heavy.start(begin(clock, "heavy"), clock.shares.give_way)
    settle()
    assert heavy.is_waiting
    light_at_work.do(getattr(clock, ends))
    heavy.do()


def test_time_counts_while_a_request_is_at_work(clock: Clock, threads: tuple[Thread, Thread]) -> None:
    light, heavy = threads
    has_used(clock, "light", LITTLE)
    heavy.do(begin(clock, "heavy"), lambda: clock.compute(MUCH))
    light.do(begin(clock, "light"))
    heavy.start(clock.shares.give_way)
    settle()
    assert heavy.is_waiting
    light.do(clock.begin_waiting)
    heavy.do()


@pytest.mark.parametrize(
    ("mine", "other", "used"),
    [("same", "same", MUCH), ("less", "more", LITTLE), ("new", "more", 0.0)],
)
def test_nobody_waits_for_themselves_or_for_those_who_have_used_more(
    clock: Clock, threads: tuple[Thread, Thread], mine: str, other: str, used: float
) -> None:
    has_used(clock, other, MUCH)
    has_used(clock, mine, used)
    threads[0].do(begin(clock, other))
    threads[1].do(begin(clock, mine), clock.shares.give_way)


def test_an_owner_who_uses_less_than_a_quarter_of_a_processor_waits_for_neither_of_two(
    clock: Clock, threads: tuple[Thread, Thread]
) -> None:
    quarter = HALF_LIFE / math.log(2) / 4
    has_used(clock, "light", LITTLE / 10)
    has_used(clock, "moderate", 0.99 * quarter)
    threads[0].do(begin(clock, "light"))
    threads[1].do(begin(clock, "moderate"), clock.shares.give_way)
    threads[1].do(lambda: clock.compute(0.02 * quarter))
    threads[1].start(clock.shares.give_way)
    settle()
    assert threads[1].is_waiting
    threads[0].do(clock.begin_waiting)
    threads[1].do()


@pytest.mark.usefixtures("light_at_work")
def test_a_request_that_waits_for_its_store_delays_nobody(
    clock: Clock, threads: tuple[Thread, Thread]
) -> None:
    clock.now += REQUEST_LASTS
    threads[1].do(begin(clock, "heavy"), clock.shares.give_way)


@pytest.mark.usefixtures("light_at_work")
def test_a_wait_is_bounded(
    clock: Clock, threads: tuple[Thread, Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner_shares, "YIELD_SECONDS", 0.001)
    threads[1].do(begin(clock, "heavy"), clock.shares.give_way)


def test_used_time_is_forgotten(clock: Clock, threads: tuple[Thread, Thread]) -> None:
    """Ten half-lives later, the former heavy user has used less than one who has computed since."""
    has_used(clock, "heavy", MUCH)
    clock.now += 10 * HALF_LIFE
    has_used(clock, "light", LITTLE)
    threads[0].do(begin(clock, "light"))
    threads[1].do(begin(clock, "heavy"), clock.shares.give_way)


@pytest.mark.usefixtures("light_at_work")
def test_a_thread_without_a_request_never_waits(clock: Clock, threads: tuple[Thread, Thread]) -> None:
    threads[1].do(clock.shares.give_way, clock.begin_waiting, clock.end)
