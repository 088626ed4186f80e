"""A log that no request waits for."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from typing import TextIO

SECONDS = 0.1
"""How long a line lies at most until it is written; a process that is killed takes those along."""
MOST_LINES = 10_000
"""So many lie there at most: whoever logs one more writes them, and waits for as long as the stream does."""


class BatchHandler(logging.Handler):
    """Writes lines to *stream* in the order in which they came, many at once, by a thread of its own.

    A line that each request wrote for itself would have all of them wait for one another, and
    for whoever reads the log. What is there at the end of the process is written by `logging.shutdown`.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._lines: deque[str] = deque()
        self._one_writes = threading.Lock()
        self._has_lines = threading.Event()
        self._thread: threading.Thread | None = None

    def createLock(self) -> None:  # noqa: N802 - the name of the base class
        """Have no lock: to append to a deque takes none, and the stream has one of its own."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Take *record*, if the filters do."""
        is_wanted = not self.filters or bool(self.filter(record))
        if is_wanted:
            self.emit(record)
        return is_wanted

    def emit(self, record: logging.LogRecord) -> None:
        """Put *record* in words, to be written soon: what it tells of may change meanwhile."""
        try:
            self._lines.append(self.format(record) + "\n")
        except Exception:  # noqa: BLE001 - as the base class tells to
            self.handleError(record)
        if not self._has_lines.is_set():
            self._has_lines.set()
            self._begin()
        if len(self._lines) > MOST_LINES:
            self.flush()

    def _begin(self) -> None:
        if self._thread is None:
            with self._one_writes:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while True:
            self._has_lines.wait()
            time.sleep(SECONDS)
            self._has_lines.clear()
            self.flush()

    def flush(self) -> None:
        """Write what is there. A stream that can't be written to is no reason to end anything."""
        with self._one_writes:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            with contextlib.suppress(OSError, ValueError):  # it may be closed
                self._stream.write("".join(lines))
                self._stream.flush()
