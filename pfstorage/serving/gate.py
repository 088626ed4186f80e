"""How many requests are worked on at once, and how many may wait for that."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType

from pfstorage.errors import BusyError, StoppedError

WAIT_SECONDS = 30.0
"""A client waits longer than that for the answer to its request; and one that was sent away would come again."""
WAITING_PER_WORKING = 8
"""By default, as many as there are connections: each of them has its thread already."""


class Gate:
    """Lets *most* at once in, in the order in which they came; *waiting* times as many wait for some seconds.

    The others are told *why* they have to come again.
    """

    def __init__(
        self, most: int, waiting: int = WAITING_PER_WORKING, why: str = "the server has too much to do"
    ) -> None:
        self._most = most
        self._why = why
        self._most_waiting = waiting * most
        self._inside = 0
        self._waiting: deque[threading.Lock] = deque()
        self._is_ended = False
        self._lock = threading.Lock()

    def counts(self) -> dict[str, int]:
        """Return how many are at work, and how many wait for that."""
        return {"busy": self._inside, "waiting": len(self._waiting)}

    @property
    def is_wanted(self) -> bool:
        """Tell whether somebody waits for a place."""
        return bool(self._waiting)

    def enter(self) -> bool:
        """Be one of those inside, until `leave`; tell whether that took a while.

        Raise `BusyError`, or `StoppedError` after the `end`.
        """
        with self._lock:
            if self._is_ended:
                raise _ended()
            if self._inside < self._most:
                self._inside += 1
                return False
            if len(self._waiting) >= self._most_waiting:
                raise self._busy()
            ticket = threading.Lock()  # who leaves wakes up the next one, and nobody else
            ticket.acquire()
            self._waiting.append(ticket)
        if not ticket.acquire(timeout=WAIT_SECONDS) or self._is_ended:
            self._leave_queue(ticket)
        return True

    def end(self) -> None:
        """Let nobody in any more, and send away who waits."""
        with self._lock:
            tickets = () if self._is_ended else tuple(self._waiting)
            self._is_ended = True
            for ticket in tickets:
                ticket.release()

    def leave(self) -> None:
        """Hand the place to who has waited longest."""
        with self._lock:
            if self._waiting and not self._is_ended:
                self._waiting.popleft().release()
            else:
                self._inside -= 1

    def _busy(self) -> BusyError:
        return BusyError(f"{self._why}: try again in some seconds")

    def _leave_queue(self, ticket: threading.Lock) -> None:
        """Wait no more. Raise `BusyError` or `StoppedError`, unless its turn came just now."""
        with self._lock:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
                raise _ended() if self._is_ended else self._busy()


class Turn:
    """One request's place among those at work: inside the gate *quick*, *long* if it moves files, or *followers*.

    It is taken when it is needed, and given back when all of the answer has left. So an ``ls`` never waits
    for those that pull a hundred thousand files, and what needs no store waits for nobody.
    *is_gone* tells whether the client has gone meanwhile.
    """

    def __init__(
        self,
        quick: Gate,
        long: Gate,
        is_gone: Callable[[], bool] = lambda: False,
        *,
        followers: Gate | None = None,
    ) -> None:
        self._quick = quick
        self._long = long
        self._followers = followers
        self.is_gone = is_gone
        self._inside: Gate | None = None

    @property
    def is_wanted(self) -> bool:
        """Tell whether this request has a place that another waits for."""
        return self._inside is not None and self._inside.is_wanted

    def __enter__(self) -> Turn:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def begin(self) -> None:
        """Be inside. Raise `BusyError`, or `StoppedError` if nobody waits for the answer any more."""
        if self._inside is None:
            self._enter(self._quick)

    def begin_transfer(self) -> None:
        """Be inside the gate of those that move files. Raise as `begin` does."""
        if self._inside is not self._long:
            self.end()
            self._enter(self._long)

    def begin_following(self) -> None:
        """Be one of those who wait for what becomes of a job. Raise `BusyError`, and let nobody wait for that."""
        if self._followers and self._inside is not self._followers:
            self.end()
            self._enter(self._followers)

    def end(self) -> None:
        """Give the place back, if there is one."""
        if self._inside:
            self._inside.leave()
            self._inside = None

    def _enter(self, gate: Gate) -> None:
        has_waited = gate.enter()
        self._inside = gate
        if has_waited and self.is_gone():
            raise StoppedError("the client went away before its turn came")


def _ended() -> StoppedError:
    return StoppedError("the server ends: send the same again when it is there again")
