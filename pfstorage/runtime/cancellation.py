"""Cancellation of work in progress."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pfstorage.errors import StoppedError
from pfstorage.runtime.fair_share import FAIR_SHARE, SLICE_SECONDS

T = TypeVar("T")

# Seconds between two checks of a sleeping thread whether a parent token is cancelled.
TICK = 0.1

# Seconds between two checks whether the client is still connected.
LOOK_SECONDS = 0.2


class CancellationToken:
    """A request to end work, which the work checks from time to time. Any thread may call all methods.

    After `cancel`, nothing new should start. Work in progress has *grace_seconds* to finish; after this time it is
    overdue and should be aborted.
    """

    def __init__(
        self,
        grace_seconds: float = 2.0,
        parent: CancellationToken | None = None,
        is_abandoned: Callable[[], bool] | None = None,
    ) -> None:
        """Make a token that is also cancelled when its *parent* is.

        *is_abandoned* returns whether nobody waits for the result any more; then the token cancels itself. It is
        called while the token is checked, a few times a second at most.
        """
        self._parent = parent
        self._is_abandoned = is_abandoned
        self._look_at = self._check_at = 0.0
        self._reason = ""
        self._patience = grace_seconds
        self._requested = threading.Event()
        self._deadline = float("inf")
        self._listeners = 0
        self._lock = threading.Lock()

    def cancel(self, reason: str = "the work was cancelled") -> None:
        """Request the end of the work. Only the first *reason* is kept. A signal handler may call this."""
        if not self._requested.is_set():
            self._reason, self._deadline = reason, time.monotonic() + self._patience
            self._requested.set()

    @property
    def reason(self) -> str:
        """The reason for the cancellation; "" before it."""
        return self._reason or (self._parent.reason if self._parent else "")

    @property
    def is_cancelled(self) -> bool:
        """Whether the end was requested, here or of a parent."""
        if self._requested.is_set() or (self._parent and self._parent.is_cancelled):
            return True
        if self._is_abandoned and (now := time.monotonic()) >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            if self._is_abandoned():
                self.cancel("nobody waits for it any more")
        return self._requested.is_set()

    @property
    def is_overdue(self) -> bool:
        """Whether the grace period is over, so that work in progress should be aborted."""
        return time.monotonic() > self._deadline or bool(self._parent and self._parent.is_overdue)

    @property
    def has_listeners(self) -> bool:
        """Whether any work checks this token now. If not, a signal must end the program in another way."""
        return self._listeners > 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Announce that the block checks this token often."""
        with self._lock:
            self._listeners += 1
        try:
            with self._parent.listening() if self._parent else contextlib.nullcontext():
                yield
        finally:
            with self._lock:
                self._listeners -= 1

    def error(self) -> StoppedError:
        """Return the error that ends cancelled work."""
        return StoppedError(f"stopped before the end: {self.reason}; send the same message again to continue")

    def raise_if_overdue(self) -> None:
        """Raise `StoppedError` if the grace period is over."""
        if self.is_overdue:
            raise self.error()

    def checkpoint(self) -> None:
        """Raise `StoppedError` if the token is cancelled; otherwise wait until this thread may compute.

        See `FairShare` for the wait. This is cheap enough for each row of a plan.
        """
        if time.monotonic() >= self._check_at:
            if self.is_cancelled:
                self._check_at = 0.0
                raise self.error()
            FAIR_SHARE.pause()
            self._check_at = time.monotonic() + SLICE_SECONDS

    def checked(self, rows: Iterable[T]) -> Iterator[T]:
        """Yield *rows*, with a `checkpoint` between them: use it where a filter may drop most of them."""
        return FAIR_SHARE.in_turns(rows, self.checkpoint)

    def sleep(self, seconds: float) -> None:
        """Sleep for *seconds*. Raise `StoppedError` soon after the token is cancelled."""
        end = time.monotonic() + seconds
        while not self.is_cancelled:
            left = end - time.monotonic()
            if left <= 0:
                return
            self._requested.wait(min(left, TICK))
        raise self.error()
