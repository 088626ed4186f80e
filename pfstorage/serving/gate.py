"""How many requests are worked on at once, and how many may wait for that."""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

from pfstorage.errors import BusyError

WAIT_SECONDS = 30.0
"""A client waits longer than that for the answer to its request; and one that was sent away would come again."""
WAITING_PER_WORKING = 8
"""By default, as many as there are connections: each of them has its thread already."""


class Gate:
    """Lets *most* at once in, in the order in which they came; some more wait for some seconds."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside = 0
        self._waiting: deque[threading.Lock] = deque()
        self._lock = threading.Lock()

    def counts(self) -> dict[str, int]:
        """Return how many are at work, and how many wait for that."""
        return {"busy": self._inside, "waiting": len(self._waiting)}

    def enter(self) -> None:
        """Be one of those inside, until `leave`. Raise `BusyError`."""
        with self._lock:
            if self._inside < self._most:
                self._inside += 1
                return
            if len(self._waiting) >= WAITING_PER_WORKING * self._most:
                raise _busy()
            turn = threading.Lock()  # who leaves wakes up the next one, and nobody else
            turn.acquire()
            self._waiting.append(turn)
        if not turn.acquire(timeout=WAIT_SECONDS):
            self._give_up(turn)

    def leave(self) -> None:
        """Hand the place to who has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._inside -= 1

    def _give_up(self, turn: threading.Lock) -> None:
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
                raise _busy()
        # its turn came just now


class Turn:
    """One request's place: inside the gate *quick*, and, once its message turns out to move files, of *long*.

    A context manager. An ``ls`` so never waits for those that pull a hundred thousand files.
    """

    def __init__(self, quick: Gate, long: Gate) -> None:
        self._quick = quick
        self._long = long
        self._inside: Gate | None = None

    def __enter__(self) -> Turn:
        self._enter(self._quick)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()

    def begin_transfer(self) -> None:
        """Leave the one gate, and enter the other. Raise `BusyError`."""
        self._leave()
        self._enter(self._long)

    def begin_waiting(self) -> None:
        """Leave the gate: who only waits takes nothing from others."""
        self._leave()

    def _enter(self, gate: Gate) -> None:
        gate.enter()
        self._inside = gate

    def _leave(self) -> None:
        if self._inside:
            self._inside.leave()
            self._inside = None


def _busy() -> BusyError:
    return BusyError("the server has too much to do: try again in some seconds")
