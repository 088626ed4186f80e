"""The loops of a busy process compute one at a time, and those that have just begun go first."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from pfstorage.runtime import fair_share
from pfstorage.runtime.fair_share import (
    FREE_SECONDS,
    LONG_SECONDS,
    MAX_WAIT,
    REQUEST_SECONDS,
    STALE_SECONDS,
    TURN_SECONDS,
    FairShare,
)
from pfstorage.runtime.owner_shares import REQUEST_LASTS, Clocks, RequestUsage
from tests.support.waiting import LONG as LONG_WAIT
from tests.support.waiting import settle, until


class Machine:
    """Clocks that a test advances. The process computes during the fraction *busy* of each second."""

    def __init__(self, busy: float = 1.0) -> None:
        self.noted: list[str] = []
        self._time = 0.0
        self._computed: Counter[int] = Counter()  # by thread
        self.share = FairShare(
            Clocks(
                lambda: self._time,
                lambda: self._time * busy,
                lambda: self._computed[threading.get_ident()],
            )
        )
        self.wait(1.0)

    def compute(self, seconds: float) -> None:
        """Advance the processor time of this thread by so much, and call `pause`."""
        self._computed[threading.get_ident()] += seconds  # type: ignore[assignment]
        self.share.pause()

    def wait(self, seconds: float) -> None:
        self._time += seconds


class Worker:
    """A loop in a separate thread, which notes its *name* at the machine after each pause."""

    def __init__(self, machine: Machine, name: str) -> None:
        self._machine = machine
        self._name = name
        self._usage = RequestUsage()
        self._steps: queue.Queue[float | str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.compute_all(0.0)

    def _run(self) -> None:
        while (step := self._steps.get()) is not None:
            if step == "rest":
                self._machine.share.rest()
            elif step == "request":
                self._machine.share.rest()  # as before each reply
                self._machine.share.requests.begin(self._usage)
                self._machine.share.requests.begin_waiting(self._usage)
            else:
                self._machine.compute(float(step))
                self._machine.noted.append(self._name)
            self._steps.task_done()
        self._steps.task_done()

    def compute(self, seconds: float) -> None:
        self._steps.put(seconds)

    def compute_all(self, seconds: float) -> None:
        """Compute so long, and wait until that is done."""
        self.compute(seconds)
        self.done()

    def do(self, step: str) -> None:
        self._steps.put(step)

    def done(self) -> None:
        """Wait until the loop has done all its steps."""
        self._steps.join()

    def close(self) -> None:
        self._steps.put(None)
        self._thread.join()


@contextlib.contextmanager
def workers(machine: Machine, names: str) -> Iterator[list[Worker]]:
    """Yield loops with these *names*, a letter each, and wait for the end of all of them."""
    made = [Worker(machine, name) for name in names]
    machine.noted.clear()
    try:
        yield made
    finally:
        for worker in made:
            worker.do("rest")
        for worker in made:
            worker.close()


@contextlib.contextmanager
def answering(machine: Machine) -> Iterator[None]:
    usage = RequestUsage()
    machine.share.requests.begin(usage)
    yield
    machine.share.requests.begin_waiting(usage)


@pytest.fixture
def machine() -> Machine:
    return Machine()


LONG, SHORT = LONG_SECONDS * 2, FREE_SECONDS * 1.5


def waits(machine: Machine, count: int) -> None:
    until(lambda: machine.share.waiting == count)


def test_one_long_loop_computes_at_a_time(machine: Machine) -> None:
    with workers(machine, "ab") as (a, b):
        a.compute_all(LONG)
        b.compute(LONG)
        waits(machine, 1)
        a.compute(TURN_SECONDS)  # after which its turn is over
        b.done()
        assert machine.noted == ["a", "b"]
        waits(machine, 1)
        b.do("rest")
        a.done()
        assert machine.noted == ["a", "b", "a"]


def test_a_loop_alone_never_waits(machine: Machine) -> None:
    for _ in range(100):
        machine.compute(TURN_SECONDS * 2)
    assert machine.share.waiting == 0


def test_a_loop_that_computes_little_does_not_wait(machine: Machine) -> None:
    with workers(machine, "ab") as (a, b):
        a.compute_all(LONG)
        b.compute_all(FREE_SECONDS * 0.9)
        assert machine.noted == ["a", "b"]


def test_nobody_waits_while_the_process_is_not_busy() -> None:
    machine = Machine(busy=0.3)
    with workers(machine, "ab") as (a, b):
        a.compute(LONG)
        b.compute(LONG)
        a.done()
        b.done()
        assert sorted(machine.noted) == ["a", "b"]


def test_the_loop_with_least_computing_time_goes_first(machine: Machine) -> None:
    with workers(machine, "abc") as (a, b, c):
        a.compute_all(SHORT)
        b.compute(LONG)
        waits(machine, 1)
        c.compute(SHORT)
        waits(machine, 2)
        a.do("rest")
        c.done()
        assert machine.noted == ["a", "c"]


def test_a_long_loop_pauses_for_one_that_has_just_begun(machine: Machine) -> None:
    with workers(machine, "ab") as (a, b):
        a.compute_all(LONG)
        b.compute(SHORT)
        waits(machine, 1)
        a.compute(TURN_SECONDS / 10)
        b.done()
        assert machine.noted == ["a", "b"]


def test_a_loop_that_has_waited_long_goes_before_one_that_has_just_begun(machine: Machine) -> None:
    with workers(machine, "abc") as (a, b, c):
        a.compute_all(SHORT)
        b.compute(LONG)
        waits(machine, 1)
        for _ in range(9):  # it is still at work, but has its turn
            machine.wait(STALE_SECONDS / 2)
            a.compute_all(0.0)
        machine.noted.clear()
        machine.wait(MAX_WAIT * 0.76)
        c.compute(SHORT)
        until(lambda: "b" in machine.noted)
        assert machine.noted[0] == "b"


def test_a_loop_that_waits_for_something_else_blocks_no_other(machine: Machine) -> None:
    with workers(machine, "ab") as (a, b):
        a.compute_all(LONG)
        b.compute(LONG)
        waits(machine, 1)
        machine.wait(STALE_SECONDS)
        b.done()
        assert machine.noted == ["a", "b"]


def test_no_pause_is_long(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    most = STALE_SECONDS / 2  # otherwise the other loop would lose its turn
    monkeypatch.setattr(fair_share, "MAX_WAIT", most)
    with workers(machine, "ab") as (a, b):
        a.compute_all(LONG)
        b.compute(LONG)
        waits(machine, 1)
        machine.wait(most)
        b.done()
        assert machine.share.waiting == 0


def test_computing_for_another_request_counts_as_another_loop(machine: Machine) -> None:
    with workers(machine, "ab") as (a, b):
        b.compute(LONG)
        b.do("request")
        b.done()
        a.compute_all(LONG)
        b.compute(0.0)
        b.compute_all(FREE_SECONDS * 0.9)
        assert machine.noted == ["b", "a", "b", "b"]


def test_a_short_computation_of_a_request_does_not_wait(machine: Machine) -> None:
    with workers(machine, "a") as (a,):
        a.compute_all(LONG)
        with answering(machine):
            machine.compute(0.0)
            machine.compute(REQUEST_SECONDS * 0.9)
        assert machine.share.waiting == 0


def test_a_long_loop_lets_a_request_pass(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_share, "PASS_SECONDS", LONG_WAIT)
    with workers(machine, "a") as (a,):
        with answering(machine):
            a.compute(LONG)
            settle()
            assert machine.noted == []
        a.done()
        assert machine.noted == ["a"]


def test_a_request_that_takes_long_delays_nobody(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_share, "PASS_SECONDS", LONG_WAIT)
    with workers(machine, "a") as (a,), answering(machine):
        machine.wait(REQUEST_LASTS)
        a.compute_all(LONG)
        assert machine.noted == ["a"]


def test_rows_between_pauses_are_complete_and_let_other_loops_run(machine: Machine) -> None:
    def rows() -> Iterator[int]:
        for number in range(10):
            machine.compute(LONG)
            yield number

    with workers(machine, "a") as (a,):
        assert list(machine.share.in_turns(rows())) == list(range(10))
        a.compute_all(LONG)
        assert machine.noted == ["a"]
