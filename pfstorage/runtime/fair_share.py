"""Fair use of the processor by the threads of this process: one long loop computes at a time, short ones first.

Among the requests of several owners, those of the owner who has used the least go first.

Only one Python thread runs at a time. A thread that makes a system call releases the interpreter's lock, and then
queues for it behind all other threads that compute. So a dozen long listings at once slow down a short one a
hundredfold, although each of them would be as fast if they ran one after the other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from pfstorage.runtime.owner_shares import Clocks, OwnerShares

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


@dataclass(eq=False)
class _Loop:
    """The loop of a *thread*, for its request that *began* at a time, or for none.

    *seen* is the time of its last call, *computed* the processor time of the thread at that moment, and *used* the
    processor time of the loop. Its turn ends when *used* reaches *turn_ends*.
    """

    thread: int
    began: float
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

    A loop ends if its thread does not call `pause` for a second, or answers another request. Threads that answer
    requests tell *requests* when these begin and end.
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
        self.requests = OwnerShares(self._clocks)

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
        request = self.requests.current
        began = request.began if request else 0.0
        if loop is None or now - loop.seen > _RECENT or loop.began != began:
            loop = self._loops[thread] = _Loop(thread, began, now, computed)
        loop.used += computed - loop.computed
        loop.computed = computed
        self.requests.give_way()
        loop.seen = now = self._clocks.now()
        if loop.used < (REQUEST_SECONDS if request else FREE_SECONDS):
            return
        if request:
            self.requests.end_priority(request)
        if self.requests.is_busy(now):
            if not self._keeps_turn(loop, now):
                self._wait(loop, now + MAX_WAIT)
            self.requests.wait_until_answered(PASS_SECONDS)
            loop.seen = self._clocks.now()

    def rest(self) -> None:
        """End the turn of this thread, if it has one, because it is about to wait for something else."""
        loop = self._at_turn
        if loop and loop.thread == threading.get_ident():
            with self._lock:
                if loop is self._at_turn:
                    self._at_turn = None
                    self._start_next(self._clocks.now())

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


# The loops of this process.
FAIR_SHARE = FairShare()
os.register_at_fork(after_in_child=FAIR_SHARE.forget)
