"""How many requests are worked on at once, and how many may wait for that."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from pfstorage.errors import BusyError

WAIT_SECONDS = 10.0
WAITING_PER_WORKING = 2


class Gate:
    """Lets *most* at once in, in the order in which they came; a few more wait for some seconds."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside = 0
        self._waiting: list[object] = []
        self._changed = threading.Condition()

    def counts(self) -> dict[str, int]:
        """Return how many are at work, and how many wait for that."""
        return {"busy": self._inside, "waiting": len(self._waiting)}

    def enter(self) -> None:
        """Be one of those inside, until `leave`. Raise `BusyError`."""
        with self._changed:
            if self._inside >= self._most or self._waiting:
                self._wait()
            self._inside += 1

    def leave(self) -> None:
        """Give the place to the next one."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def _wait(self) -> None:
        if len(self._waiting) >= WAITING_PER_WORKING * self._most:
            raise _busy()
        me, deadline = object(), time.monotonic() + WAIT_SECONDS
        self._waiting.append(me)
        try:
            while self._inside >= self._most or self._waiting[0] is not me:
                if not self._changed.wait(deadline - time.monotonic()):
                    raise _busy()
        finally:
            self._waiting.remove(me)
            self._changed.notify_all()


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
