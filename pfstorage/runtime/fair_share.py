"""Fair use of the processor by the threads of this process: one long loop computes at a time, short ones first.

Among the requests of several owners, those of the owner who has used the least go first.

Only one Python thread runs at a time. A thread that makes a system call releases the interpreter's lock, and then
queues for it behind all other threads that compute. So a dozen long listings at once slow down a short one a
hundredfold, although each of them would be as fast if they ran one after the other.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from pfstorage.runtime.owner_shares import OwnerShares

T = TypeVar("T")

# All times are in seconds.
# A loop calls `FairShare.pause` again after this time.
SLICE_SECONDS = 0.002
# A loop that has computed for less needs no turn.
FREE_SECONDS = 0.005
# The same for the loops of a request: most requests are answered within this time.
REQUEST_SECONDS = 0.02
# The maximum time for which a loop at its turn waits for requests to be answered.
PASS_SECONDS = 0.015
# The computing time of one turn.
TURN_SECONDS = 0.01
# All loops that have computed for longer have the same rank.
LONG_SECONDS = 0.1
# A loop that has not called for this time no longer computes, but waits for something else.
STALE_SECONDS = 0.05
# The maximum time of one pause, so that a loop soon notices its cancellation.
MAX_WAIT = 1.0
# A second of waiting offsets this much computing time. So long loops progress, however many short ones there are.
_CREDIT = 0.1
# A loop that has not called for this time is over.
_RECENT = 1.0
# A request that is not answered after this time waits for something else.
_REQUEST_LASTS = 0.5
# The share of one processor above which Python threads hinder each other, and the time to measure it over.
_BUSY = 0.5
_BUSY_SECONDS = 0.1


@dataclass(frozen=True)
class Clocks:
    """Three clocks, in seconds: the time, the processor time of the process, and that of the thread."""

    now: Callable[[], float] = time.monotonic
    process: Callable[[], float] = time.process_time
    thread: Callable[[], float] = time.thread_time


@dataclass(eq=False)
class _Loop:
    """The loop of a *thread*.

    *seen* is the time of its last call, *computed* the processor time of the thread at that moment, and *used* the
    processor time of the loop. Its turn ends when *used* reaches *turn_ends*.
    """

    thread: int
    seen: float
    computed: float
    used: float = 0.0
    turn_ends: float = 0.0
    waits_since: float = 0.0
    turn: threading.Event = field(default_factory=threading.Event)

    def rank(self, now: float) -> float:
        return min(self.used, LONG_SECONDS) - _CREDIT * (now - self.waits_since)


class FairShare:
    """A scheduler that lets the loops of a busy process take turns. Any thread may call each method.

    A loop ends if its thread does not call `pause` for a second.
    """

    def __init__(self, clocks: Clocks | None = None) -> None:
        self._clocks = clocks or Clocks()
        self.forget()

    def forget(self) -> None:
        """Forget all loops. A child process calls this after a fork, because it does not have their threads."""
        self._loops: dict[int, _Loop] = {}  # by thread
        self._waiting: list[_Loop] = []
        self._at_turn: _Loop | None = None
        self._lock = threading.Lock()
        self._measured = self._clocks.now(), self._clocks.process()
        self._is_busy = False
        self._requests: dict[int, float] = {}  # start times, by thread
        self._all_answered = threading.Event()
        self._all_answered.set()
        self._owners = OwnerShares(self._clocks.now, self._clocks.thread)

    @property
    def waiting(self) -> int:
        """The number of loops that wait for their turn."""
        return len(self._waiting)

    def in_turns(self, rows: Iterable[T], pause: Callable[[], object] | None = None) -> Iterator[T]:
        """Yield *rows*, each of which takes time to compute, with calls of `pause`, or of *pause*, in between."""
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
        """Wait until this thread may compute: at most `MAX_WAIT` for its turn, and a second for other owners."""
        now, thread = self._clocks.now(), threading.get_ident()
        computed, loop = self._clocks.thread(), self._loops.get(thread)
        if loop is None or now - loop.seen > _RECENT:
            loop = self._loops[thread] = _Loop(thread, now, computed)
        loop.used += computed - loop.computed
        loop.seen, loop.computed = now, computed
        loop.seen = now = self._give_way(now)
        if loop.used < (REQUEST_SECONDS if thread in self._requests else FREE_SECONDS):
            return
        self._end_wait_for(thread)  # it is answered, or takes too long to have priority
        if self._looks_busy(now):
            if not self._keeps_turn(loop, now):
                self._wait(loop, now + MAX_WAIT)
            self._wait_for_requests(loop)

    def begin_request(self) -> None:
        """Start a request: until `begin_reply`, long loops wait for it a little, unless it takes long itself."""
        thread = threading.get_ident()
        self.rest()
        self._loops.pop(thread, None)
        self._requests[thread] = self._clocks.now()

    def set_owner(self, owner: str) -> None:
        """Set the owner of the request. It waits for requests of owners who have used less processor time."""
        self._owners.begin(owner)
        self._give_way(self._clocks.now())

    def begin_reply(self) -> None:
        """Let nobody wait for the request of this thread any longer: its reply is about to be sent."""
        self._owners.begin_reply()
        self._end_wait_for(threading.get_ident())

    def end_request(self) -> None:
        """End the request of this thread: its reply was sent."""
        self._owners.end()

    def rest(self) -> None:
        """End the turn of this thread, if it has one, because it is about to wait for something else."""
        loop = self._at_turn
        if loop and loop.thread == threading.get_ident():
            with self._lock:
                if loop is self._at_turn:
                    self._at_turn = None
                    self._start_next(self._clocks.now())

    def _give_way(self, now: float) -> float:
        """Let requests of owners who have used less go first, if the process is busy. Return the time afterwards."""
        if self._looks_busy(now):
            self._owners.give_way()
            return self._clocks.now()
        return now

    def _end_wait_for(self, thread: int) -> None:
        if self._requests.pop(thread, None) is not None and not (
            self._requests or self._all_answered.is_set()
        ):
            self._all_answered.set()

    def _wait_for_requests(self, loop: _Loop) -> None:
        now = self._clocks.now()
        if any(now - since < _REQUEST_LASTS for since in list(self._requests.values())):
            self._all_answered.clear()
            if self._requests:
                self._all_answered.wait(PASS_SECONDS)
            loop.seen = self._clocks.now()

    def _keeps_turn(self, loop: _Loop, now: float) -> bool:
        """Return whether it is still the turn of *loop*; otherwise put it into the queue."""
        with self._lock:
            if self._at_turn is loop:
                if not self._is_over(loop):
                    return True
                self._at_turn = None
            loop.waits_since = now
            loop.turn.clear()
            self._waiting.append(loop)
            self._start_next(now)
            return False

    def _is_over(self, loop: _Loop) -> bool:
        """Return whether the turn of *loop* is over. A long loop yields at once to a loop that has just started."""
        if loop.used >= loop.turn_ends:
            return bool(self._waiting)
        return loop.used >= LONG_SECONDS and any(each.used < TURN_SECONDS for each in self._waiting)

    def _wait(self, loop: _Loop, over_at: float) -> None:
        while not loop.turn.wait(STALE_SECONDS):
            with self._lock:
                now = self._clocks.now()
                self._start_next(now)
                if now >= over_at and not loop.turn.is_set():
                    self._waiting.remove(loop)
                    break
        loop.seen = self._clocks.now()

    def _start_next(self, now: float) -> None:
        """Start the turn of the next loop, if no other computes."""
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


# The loops of this process.
FAIR_SHARE = FairShare()
os.register_at_fork(after_in_child=FAIR_SHARE.forget)
