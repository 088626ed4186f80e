"""Long loops leave each other, and whatever is short, their share of the processor."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from pfstorage.fair_share import LONG_SECONDS, MOST_PAUSE, Clocks, FairShare


class Machine:
    """Clocks that go on as a test says: of each second, the process computes the share *busy*."""

    def __init__(self, busy: float = 1.0) -> None:
        self.pauses: list[float] = []
        self._time = 0.0
        self._computed: Counter[int] = Counter()  # by thread
        clocks = Clocks(
            lambda: self._time,
            lambda: self._time * busy,
            lambda: self._computed[threading.get_ident()],
            self.pauses.append,
        )
        self.share = FairShare(clocks)

    def compute(self, *steps: float) -> None:
        """Have this thread compute so many seconds, and call `pause` after each step."""
        for seconds in steps:
            self._time += seconds
            self._computed[threading.get_ident()] += seconds  # type: ignore[assignment]
            self.share.pause()

    def wait(self, seconds: float) -> None:
        self._time += seconds


def in_another_thread(machine: Machine, *steps: float) -> None:
    thread = threading.Thread(target=machine.compute, args=steps)
    thread.start()
    thread.join()


LONG = (0.0, *[0.02] * 10)
"""What a loop computes between two calls, until it is a long one."""


def test_a_long_loop_pauses_for_as_long_as_another_computes() -> None:
    machine = Machine()
    in_another_thread(machine, *LONG)
    machine.compute(*LONG)
    assert len(machine.pauses) in (5, 6)  # those from `LONG_SECONDS` on
    assert machine.pauses == pytest.approx([0.02] * len(machine.pauses))


def test_a_long_loop_alone_never_pauses() -> None:
    machine = Machine()
    machine.compute(*LONG * 3)
    assert machine.pauses == []


def test_a_short_loop_beside_a_long_one_never_pauses() -> None:
    machine = Machine()
    in_another_thread(machine, *LONG)
    machine.compute(0.0, LONG_SECONDS * 0.9)
    assert machine.pauses == []


def test_nobody_pauses_while_the_process_is_not_busy() -> None:
    machine = Machine(busy=0.5)
    in_another_thread(machine, *LONG)
    machine.compute(*LONG)
    assert machine.pauses == []


def test_a_loop_that_has_ended_makes_nobody_pause() -> None:
    machine = Machine()
    in_another_thread(machine, *LONG)
    machine.wait(1.1)
    machine.compute(*LONG)
    assert machine.pauses == []


def test_no_pause_is_long() -> None:
    machine = Machine()
    in_another_thread(machine, *LONG)
    machine.compute(0.0, 0.9)
    assert machine.pauses == [MOST_PAUSE]
