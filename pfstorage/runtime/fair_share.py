"""The processor, shared between the loops of this process: one computes at a time, and short ones go first.

One thread of Python runs at a time. A thread that makes a system call gives up its place, and waits for
it anew behind all others that compute. So a dozen long listings at once slow a short one a hundredfold,
though each of them would be as fast if they ran one after the other.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

SLICE_SECONDS = 0.002
"""Seconds after which a loop calls `FairShare.pause` again."""
FREE_SECONDS = 0.005
"""Seconds of computing up to which a loop needs no turn."""
REQUEST_SECONDS = 0.02
"""Seconds of computing up to which the loops of a request need none: most requests are answered by then."""
PASS_SECONDS = 0.015
"""Seconds for which a loop at its turn waits, at most, for requests to be answered."""
TURN_SECONDS = 0.01
"""Seconds of computing that a turn has."""
LONG_SECONDS = 0.1
"""Seconds of computing from which on all loops are alike."""
STALE_SECONDS = 0.05
"""Seconds after which a loop that has not called no longer computes, but waits for something else."""
MOST_PAUSE = 1.0
"""Seconds that one pause takes at most, so that a loop soon notices that it is to end."""
_CREDIT = 0.1
"""Seconds of computing that a second of waiting makes up for: long loops get on, however many short ones there are."""
_RECENT = 1.0
_REQUEST_LASTS = 0.5
"""Seconds after which a request that is not answered waits for something else."""
_BUSY = 0.5
"""The share of one processor from which on threads of Python stand in each other's way."""
_BUSY_SECONDS = 0.1


@dataclass(frozen=True)
class Clocks:
    """The time, that which the process has computed and that which the thread has, all in seconds."""

    now: Callable[[], float] = time.monotonic
    process: Callable[[], float] = time.process_time
    thread: Callable[[], float] = time.thread_time


@dataclass(eq=False)
class _Loop:
    """The loop of *thread*: when it called last, what its thread had computed by then, and what in the loop."""

    thread: int
    seen: float
    computed: float
    used: float = 0.0
    turn_ends: float = 0.0
    """What it has used when its turn is over."""
    waits_since: float = 0.0
    turn: threading.Event = field(default_factory=threading.Event)

    def rank(self, now: float) -> float:
        return min(self.used, LONG_SECONDS) - _CREDIT * (now - self.waits_since)


class FairShare:
    """Has the loops of a busy process take turns. Any thread may call each method.

    A loop of which its thread has not called `pause` for a second is over.
    """

    def __init__(self, clocks: Clocks | None = None) -> None:
        self._clocks = clocks or Clocks()
        self.forget()

    def forget(self) -> None:
        """Forget all loops, as a child must: after a fork, it has none of the threads that they were in."""
        self._loops: dict[int, _Loop] = {}  # by thread
        self._waiting: list[_Loop] = []
        self._at_turn: _Loop | None = None
        self._lock = threading.Lock()
        self._measured = self._clocks.now(), self._clocks.process()
        self._is_busy = False
        self._requests: dict[int, float] = {}  # since when, by thread
        self._all_answered = threading.Event()
        self._all_answered.set()

    @property
    def waiting(self) -> int:
        """How many loops wait for their turn."""
        return len(self._waiting)

    def in_turns(self, rows: Iterable[T], pause: Callable[[], object] | None = None) -> Iterator[T]:
        """Pass *rows* on, of which each takes its time to compute. *pause* is called instead of that of this class."""
        pause, clock, look_at = pause or self.pause, self._clocks.now, 0.0
        try:
            for row in rows:
                if clock() >= look_at:
                    pause()
                    look_at = clock() + SLICE_SECONDS
                yield row
        finally:
            self.rest()

    def pause(self) -> None:
        """Wait until this thread may compute, `MOST_PAUSE` at most."""
        now, thread = self._clocks.now(), threading.get_ident()
        computed, loop = self._clocks.thread(), self._loops.get(thread)
        if loop is None or now - loop.seen > _RECENT:
            loop = self._loops[thread] = _Loop(thread, now, computed)
        loop.used += computed - loop.computed
        loop.seen, loop.computed = now, computed
        if loop.used < (REQUEST_SECONDS if thread in self._requests else FREE_SECONDS):
            return
        self._note_answered(thread)  # or that it takes long
        if self._looks_busy(now):
            if not self._keeps_turn(loop, now):
                self._wait(loop, now + MOST_PAUSE)
            self._let_pass(loop)

    def begin_request(self) -> None:
        """Begin a request: until `end_request`, long loops wait for it a little, unless it takes long itself."""
        thread = threading.get_ident()
        self.rest()
        self._loops.pop(thread, None)
        self._requests[thread] = self._clocks.now()

    def end_request(self) -> None:
        """Note that the request of this thread is answered, but for what its client has yet to take."""
        self._note_answered(threading.get_ident())

    def rest(self) -> None:
        """End the turn of this thread, if it has one: it is about to wait for something else."""
        loop = self._at_turn
        if loop and loop.thread == threading.get_ident():
            with self._lock:
                if loop is self._at_turn:
                    self._at_turn = None
                    self._give(self._clocks.now())

    def _note_answered(self, thread: int) -> None:
        if self._requests.pop(thread, None) is not None and not (
            self._requests or self._all_answered.is_set()
        ):
            self._all_answered.set()

    def _let_pass(self, loop: _Loop) -> None:
        now = self._clocks.now()
        if any(now - since < _REQUEST_LASTS for since in list(self._requests.values())):
            self._all_answered.clear()
            if self._requests:
                self._all_answered.wait(PASS_SECONDS)
            loop.seen = self._clocks.now()

    def _keeps_turn(self, loop: _Loop, now: float) -> bool:
        """Tell whether it is still the turn of *loop*; else, have it wait for the next one."""
        with self._lock:
            if self._at_turn is loop:
                if not self._is_over(loop):
                    return True
                self._at_turn = None
            loop.waits_since = now
            loop.turn.clear()
            self._waiting.append(loop)
            self._give(now)
            return False

    def _is_over(self, loop: _Loop) -> bool:
        """Tell whether another loop is to compute: a long one ends its turn at once for one that has just begun."""
        if loop.used >= loop.turn_ends:
            return bool(self._waiting)
        return loop.used >= LONG_SECONDS and any(each.used < TURN_SECONDS for each in self._waiting)

    def _wait(self, loop: _Loop, over_at: float) -> None:
        while not loop.turn.wait(STALE_SECONDS):
            with self._lock:
                now = self._clocks.now()
                self._give(now)
                if now >= over_at and not loop.turn.is_set():
                    self._waiting.remove(loop)
                    break
        loop.seen = self._clocks.now()

    def _give(self, now: float) -> None:
        """Give the next loop its turn, if no other computes."""
        if self._waiting and not (self._at_turn and now - self._at_turn.seen < STALE_SECONDS):
            loop = min(self._waiting, key=lambda loop: loop.rank(now))
            self._waiting.remove(loop)
            loop.seen, loop.turn_ends = now, loop.used + TURN_SECONDS
            self._at_turn = loop
            loop.turn.set()

    def _looks_busy(self, now: float) -> bool:
        then, computed = self._measured
        if now - then > _BUSY_SECONDS:
            total = self._clocks.process()
            self._is_busy = total - computed > _BUSY * (now - then)
            self._measured = now, total
        return self._is_busy


FAIR_SHARE = FairShare()
"""That of this process."""
os.register_at_fork(after_in_child=FAIR_SHARE.forget)
