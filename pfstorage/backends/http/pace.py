"""How long the other end of a connection may keep this one waiting: a bound on all waits together.

A bound on each silence does not end an answer of which a byte comes now and then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class TooSlowError(TimeoutError):
    """The other end has used up its `Allowance`."""


class Allowance:
    """The seconds for which the other end may still keep this one waiting, *most* of them at any time.

    Only waiting counts. What this end does meanwhile, such as to keep to a bandwidth or to write to a slow disk, is
    not the other's fault. The text of the error says that the other end *does* something too slowly.
    """

    def __init__(self, most: float, does: str) -> None:
        self._most = most
        self._does = does
        self.begin()

    def begin(self, rate: float = math.inf) -> None:
        """Allow all seconds again. Each *rate* bytes bring back one of them; with a *rate* of 0, a byte brings all."""
        self._left = self._most
        self._rate = rate

    def timed(self, wait: Callable[[], int | None]) -> int | None:
        """Return what *wait* returns. Raise `TooSlowError` if there is no time left to wait."""
        if self._left <= 0:
            raise TooSlowError(self._text())
        started = time.monotonic()
        try:
            return wait()
        finally:
            self._left -= time.monotonic() - started

    def credit(self, count: int) -> None:
        """Bring back the seconds for *count* bytes."""
        if count:
            earned = count / self._rate if self._rate else math.inf
            self._left = min(self._most, self._left + earned)

    def _text(self) -> str:
        if math.isinf(self._rate):
            return f"it {self._does} too slowly: that took over {self._most:g} s, see --timeout"
        return f"it {self._does} too slowly: under {self._rate:g} bytes a second, see --minRate"
