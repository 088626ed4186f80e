"""Try again what may help to try again: with growing, random pauses, and not for ever."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from pfstorage.errors import StorageError, UnavailableError

T = TypeVar("T")
log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 8.0
LONGEST_RETRY_AFTER = 60.0
CONNECT_PATIENCE = 3.0
"""Seconds after which a store that takes no connection is given up, whatever tries are left."""


def retried(
    call: Callable[[], T], retries: int, again_on: tuple[type[StorageError], ...] = (UnavailableError,)
) -> T:
    """Return what *call* returns; on an error of *again_on*, call it up to *retries* times more.

    Raise the last error. *call* must be able to run again: rewind what it read.
    """
    started = time.monotonic()
    for attempt in itertools.count():
        try:
            return call()
        except again_on as e:
            out_of_patience = e.facts.get("connecting") and time.monotonic() - started > CONNECT_PATIENCE
            if attempt >= retries or out_of_patience:
                raise
            pause = _pause(attempt, e)
            log.debug("trying again in %.1f s: %s", pause, e)
            time.sleep(pause)
    raise AssertionError("the loop above has no end")


def _pause(attempt: int, error: StorageError) -> float:
    """Return the seconds to wait: what the store asks for, or a random part of a growing time.

    The randomness keeps workers that failed together from coming back together.
    """
    asked = error.facts.get("retry_after")
    if isinstance(asked, int):
        return min(asked, LONGEST_RETRY_AFTER)
    longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
    return random.uniform(longest / 4, longest)  # noqa: S311 - no secret depends on it
