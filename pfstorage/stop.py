"""One signal that ends what is under way, soon and tidily."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from pfstorage.errors import StoppedError


class Stop:
    """Tells work that it should end. It is asked between pieces of work, from any thread.

    Once it is requested, nothing new should begin; what runs has *patience* seconds to
    come to its end, and is then to be given up.
    """

    def __init__(self, patience: float = 2.0) -> None:
        self.reason = ""
        self._patience = patience
        self._requested = threading.Event()
        self._deadline = float("inf")
        self._listeners = 0
        self._lock = threading.Lock()

    def request(self, reason: str = "it was told to stop") -> None:
        """Ask for the end. Only the first *reason* counts; a signal handler may call this."""
        if not self._requested.is_set():
            self.reason, self._deadline = reason, time.monotonic() + self._patience
            self._requested.set()

    @property
    def is_requested(self) -> bool:
        return self._requested.is_set()

    @property
    def is_overdue(self) -> bool:
        """Tell whether what still runs is to be given up."""
        return time.monotonic() > self._deadline

    @property
    def is_heeded(self) -> bool:
        """Tell whether anybody looks at it now: if not, a signal must end the program in another way."""
        return self._listeners > 0

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Promise to look at it often for the length of the block."""
        with self._lock:
            self._listeners += 1
        try:
            yield
        finally:
            with self._lock:
                self._listeners -= 1

    def error(self) -> StoppedError:
        return StoppedError(
            f"stopped before the end: {self.reason}; the same message again goes on from here"
        )

    def check(self) -> None:
        """Raise `StoppedError` if what runs is to be given up."""
        if self.is_overdue:
            raise self.error()

    def sleep(self, seconds: float) -> None:
        """Sleep. Raise `StoppedError` as soon as the end is requested."""
        if self._requested.wait(seconds):
            raise self.error()
