"""One signal that ends what is under way, soon and tidily."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pfstorage.errors import StoppedError
from pfstorage.runtime.fair_share import FAIR_SHARE, SLICE_SECONDS

T = TypeVar("T")

TICK = 0.1
"""Seconds after which a sleeper looks whether a parent's end is requested."""

LOOK_SECONDS = 0.2
"""Seconds after which a client is looked at again, whether it is still there."""


class CancellationToken:
    """Tells work that it should end. It is asked between pieces of work, from any thread.

    Once it is requested, nothing new should begin; what runs has *grace_seconds* seconds to
    come to its end, and is then to be given up.
    """

    def __init__(
        self,
        grace_seconds: float = 2.0,
        parent: CancellationToken | None = None,
        is_abandoned: Callable[[], bool] | None = None,
    ) -> None:
        """A request of *parent* is one of this, too, but not the other way round.

        *is_abandoned* tells whether nobody waits any more for what runs. Whoever looks at this has it asked, some
        times a second at most; what it is true of is requested to end.
        """
        self._parent = parent
        self._is_unwanted = is_abandoned
        self._look_at = self._heed_at = 0.0
        self._reason = ""
        self._patience = grace_seconds
        self._requested = threading.Event()
        self._deadline = float("inf")
        self._listeners = 0
        self._lock = threading.Lock()

    def cancel(self, reason: str = "it was told to stop") -> None:
        """Ask for the end. Only the first *reason* counts; a signal handler may call this."""
        if not self._requested.is_set():
            self._reason, self._deadline = reason, time.monotonic() + self._patience
            self._requested.set()

    @property
    def reason(self) -> str:
        return self._reason or (self._parent.reason if self._parent else "")

    @property
    def is_cancelled(self) -> bool:
        if self._requested.is_set() or (self._parent and self._parent.is_cancelled):
            return True
        if self._is_unwanted and (now := time.monotonic()) >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            if self._is_unwanted():
                self.cancel("nobody waits for it any more")
        return self._requested.is_set()

    @property
    def is_overdue(self) -> bool:
        """Tell whether what still runs is to be given up."""
        return time.monotonic() > self._deadline or bool(self._parent and self._parent.is_overdue)

    @property
    def has_listeners(self) -> bool:
        """Tell whether anybody looks at it now: if not, a signal must end the program in another way."""
        return self._listeners > 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Promise to look at it often for the length of the block."""
        with self._lock:
            self._listeners += 1
        try:
            with self._parent.listening() if self._parent else contextlib.nullcontext():
                yield
        finally:
            with self._lock:
                self._listeners -= 1

    def error(self) -> StoppedError:
        return StoppedError(
            f"stopped before the end: {self.reason}; send the same message again: what is done is not done twice"
        )

    def raise_if_overdue(self) -> None:
        """Raise `StoppedError` if what runs is to be given up."""
        if self.is_overdue:
            raise self.error()

    def checkpoint(self) -> None:
        """Raise `StoppedError` if the end was requested; else, wait until this thread may compute.

        It is cheap enough for each row of a plan.
        """
        if time.monotonic() >= self._heed_at:
            if self.is_cancelled:
                self._heed_at = 0.0
                raise self.error()
            FAIR_SHARE.pause()
            self._heed_at = time.monotonic() + SLICE_SECONDS

    def checked(self, rows: Iterable[T]) -> Iterator[T]:
        """Pass *rows* on as they come, of which perhaps none is wanted. Raise as `checkpoint` does."""
        return FAIR_SHARE.in_turns(rows, self.checkpoint)

    def sleep(self, seconds: float) -> None:
        """Sleep. Raise `StoppedError` soon after the end is requested."""
        end = time.monotonic() + seconds
        while not self.is_cancelled:
            left = end - time.monotonic()
            if left <= 0:
                return
            self._requested.wait(min(left, TICK))
        raise self.error()
