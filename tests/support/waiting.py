"""Functions that wait for other threads and processes, on a machine that may pause at any time."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

LONG = 30.0
ENDS = [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)]
"""The signals that end the command, and its exit status then."""


def until(is_so: Callable[[], bool], seconds: float = LONG) -> None:
    """Wait until *is_so*; fail if that takes over *seconds*."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def settle(seconds: float = 0.1) -> None:
    """Give the other threads time for all that they can do as things are.

    In short sleeps: a pause of the whole process, in which the others stand still, too, takes but one of them.
    """
    for _ in range(round(seconds / 0.005)):
        time.sleep(0.005)
