"""Programs that the tests start."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for *ready*, which comes before *process* ends and within 30 s."""
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.002)
            pytest.fail(f"it ended too early: {process.communicate()}")


def parts() -> list[Path]:
    return list(Path.cwd().rglob(".pfstorage-*"))


def is_waiting(process: subprocess.Popen[bytes]) -> Callable[[], bool]:
    """Return a function: has *process* ended, or was it asleep at each of the last 100 calls?"""
    lately: list[str] = []

    def is_so() -> bool:
        lately.append(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0])
        return process.poll() is not None or (len(lately) > 100 and set(lately[-100:]) == {"S"})

    return is_so
