"""Bound the sum of all waits for the other end of a connection.

A bound on each single wait does not end an answer that arrives one byte at a time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class TooSlowError(TimeoutError):
    """The other end has used up its `Allowance`."""


class Allowance:
    """A count of the seconds that may still be spent waiting for the other end, *most* of them at any time.

    Only waits count, not the work of this end, such as writing to a slow disk. *does* describes in the text of the
    error the action that the other end does too slowly.
    """

    def __init__(self, most: float, does: str) -> None:
        self._most = most
        self._does = does
        self.begin()

    def begin(self, rate: float = math.inf) -> None:
        """Allow all seconds again. Each *rate* bytes restore one second. With a *rate* of 0, any byte restores all."""
        self._left = self._most
        self._rate = rate

    def timed(self, wait: Callable[[], int | None]) -> int | None:
        """Call *wait*, subtract its time, and return its result. Raise `TooSlowError` if no time is left."""
        if self._left <= 0:
            raise TooSlowError(self._text())
        started = time.monotonic()
        try:
            return wait()
        finally:
            self._left -= time.monotonic() - started

    def credit(self, count: int) -> None:
        """Restore the seconds for *count* bytes."""
        if count:
            earned = count / self._rate if self._rate else math.inf
            self._left = min(self._most, self._left + earned)

    def _text(self) -> str:
        if math.isinf(self._rate):
            return f"it {self._does} too slowly: that took over {self._most:g} s, see --timeout"
        return f"it {self._does} too slowly: under {self._rate:g} bytes a second, see --minRate"
