"""Show the progress of a transfer: as a bar on a terminal, else as log lines."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from pfstorage.transfer import Progress

log = logging.getLogger("pfstorage.cli.progress")

LINE_SECONDS = 10.0


def shown_on_stderr(verbosity: int) -> Callable[[Progress], None]:
    """Return the function that shows progress on stderr. At *verbosity* 0 it shows nothing."""
    if verbosity <= 0 or sys.stderr is None:
        return lambda _: None
    return Bar() if _has_screen(sys.stderr) else Lines()


def _has_screen(file: TextIO) -> bool:
    """Return whether *file* is a terminal with lines: tqdm shows nothing on one without."""
    try:
        return file.isatty() and os.get_terminal_size(file.fileno()).lines > 0
    except OSError:
        return False


def describe(progress: Progress) -> str:
    """Describe *progress* in one line.

    >>> describe(Progress(done=70, failed=1, skipped=20, size=3 * 2**20, seconds=2.0, total=100))
    '71 of 100 files, 3.0 MiB, 1.5 MiB/s, 20 unchanged, 1 failed'
    """
    files = progress.done + progress.failed
    total = f" of {progress.total}" if progress.total is not None else ""
    rate = progress.size / progress.seconds if progress.seconds else 0.0
    words = [f"{files}{total} files", _human_bytes(progress.size), f"{_human_bytes(rate)}/s"]
    words += [f"{progress.skipped} unchanged"] if progress.skipped else []
    words += [f"{progress.failed} failed"] if progress.failed else []
    return ", ".join(words)


def _human_bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


class Lines:
    """A log of the progress: one line every `LINE_SECONDS`. A shorter transfer has none."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged_at = clock()

    def __call__(self, progress: Progress) -> None:
        if self._clock() - self._logged_at >= LINE_SECONDS:
            self._logged_at = self._clock()
            log.info("%s", describe(progress))


class Bar:
    """A progress bar of tqdm: files, bytes, rate, remaining time and failures."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, progress: Progress) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(unit=" files", file=sys.stderr, dynamic_ncols=True, leave=False)
        bar = self._bar
        bar.total = progress.total
        bar.n = progress.done + progress.failed
        rate = progress.size / progress.seconds if progress.seconds else 0.0
        facts = {"bytes": _human_bytes(progress.size), "rate": f"{_human_bytes(rate)}/s"}
        if progress.failed:
            facts["failed"] = str(progress.failed)
        bar.set_postfix(facts, refresh=False)
        bar.refresh()
        if progress.is_last:
            bar.close()
            self._bar = None
