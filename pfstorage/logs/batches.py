"""Write a log in batches, so that no request waits for it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import TextIO

from pfstorage.logs.output import loss_text

# Seconds until a line is written. A process that is killed loses the lines of this time.
BATCH_SECONDS = 0.1
# The limits of unwritten lines. Further lines are lost.
MAX_LINES = 10_000
MAX_CHARACTERS = 4 * 1024**2
# Seconds for which the end of the process waits for the stream.
FLUSH_SECONDS = 2.0


class BatchHandler(logging.Handler):
    """A handler that writes log lines to *stream* in order, many at once, in its own thread.

    If each request wrote its own line, all requests would wait for each other and for the reader of the log. Here
    only the thread waits for the stream. Lines beyond the limits are lost; a line that *note* makes of a text then
    reports their number. `logging.shutdown` writes the remaining lines at the end of the process.
    """

    def __init__(self, stream: TextIO, note: Callable[[str], str] = str) -> None:
        super().__init__()
        self._stream = stream
        self._note = note
        self._lines: list[str] = []
        self._size = 0
        self._lost = 0
        self._is_writing = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._is_urgent = threading.Event()

    def createLock(self) -> None:  # noqa: N802 - the name of the base class
        """Use no lock of the base class: the one in `add_line` is held for a much shorter time."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Emit *record* if the filters accept it."""
        is_wanted = not self.filters or bool(self.filter(record))
        if is_wanted:
            self.emit(record)
        return is_wanted

    def emit(self, record: logging.LogRecord) -> None:
        """Format *record* now, because its arguments may change, and write it soon."""
        try:
            self.add_line(self.format(record))
        except Exception:  # noqa: BLE001 - as the base class requires
            self.handleError(record)

    def add_line(self, line: str) -> None:
        """Write *line* soon, after the lines before it."""
        with self._lock:  # directly, because that is faster than through the condition
            if len(self._lines) >= MAX_LINES or self._size + len(line) > MAX_CHARACTERS:
                self._lost += 1
                return
            self._lines.append(line)
            self._size += len(line) + 1
            if len(self._lines) == 1 or self._thread is None:
                self._begin()
            if len(self._lines) > MAX_LINES // 2:
                self._is_urgent.set()

    def _begin(self) -> None:
        """Wake or start the thread. If the system refuses a new thread, a later line tries again."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="log", daemon=True)
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread = thread
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
            self._is_urgent.wait(BATCH_SECONDS)
            self._is_urgent.clear()
            self._write(self._taken())

    def _taken(self) -> str:
        with self._changed:
            lines, self._lines, self._size = self._lines, [], 0
            lost, self._lost = self._lost, 0
            self._is_writing = True
        if lost:
            lines.append(self._note(loss_text(lost)))
        return "".join(f"{line}\n" for line in lines)

    def _write(self, text: str) -> None:
        """Write *text*. Ignore a stream that fails: it must not end the program."""
        with contextlib.suppress(OSError, ValueError):  # it may be closed
            self._stream.write(text)
            self._stream.flush()
        with self._changed:
            self._is_writing = False
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all lines are written, for at most `FLUSH_SECONDS`."""
        self.wait(FLUSH_SECONDS)

    def wait(self, seconds: float) -> bool:
        """Write all lines now. Wait for at most *seconds*, and return whether all are written."""
        self._is_urgent.set()
        with self._changed:
            return self._changed.wait_for(lambda: not (self._lines or self._is_writing), seconds)
