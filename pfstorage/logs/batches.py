"""A log that no request waits for."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import TextIO

from pfstorage.logs.output import text_of_loss

SECONDS = 0.1
"""How long a line lies at most until it is written; a process that is killed takes those along."""
MOST_LINES = 10_000
MOST_CHARACTERS = 4 * 1024**2
"""So much lies there at most. What comes then is lost."""
PATIENCE = 2.0
"""Seconds for which the end of the process waits for the stream."""


class BatchHandler(logging.Handler):
    """Writes lines to *stream* in the order in which they came, many at once, by a thread of its own.

    A line that each request wrote for itself would have all of them wait for one another, and
    for whoever reads the log. So only that thread waits for the stream, however slow it is. Lines that come when
    there are too many are dropped; after those that were there, one says how many, which *note* makes of a text.
    What is there at the end of the process is written by `logging.shutdown`.
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
        self._changed = threading.Condition(threading.Lock())
        self._is_urgent = threading.Event()

    def createLock(self) -> None:  # noqa: N802 - the name of the base class
        """Have no lock of the base class: `say` has one, for much shorter."""
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
            self.say(self.format(record))
        except Exception:  # noqa: BLE001 - as the base class tells to
            self.handleError(record)

    def say(self, line: str) -> None:
        """Have *line* be written soon, after what was logged before."""
        with self._changed:
            if len(self._lines) >= MOST_LINES or self._size + len(line) > MOST_CHARACTERS:
                self._lost += 1
                return
            self._lines.append(line)
            self._size += len(line) + 1
            if len(self._lines) == 1 or self._thread is None:
                self._begin()
            if len(self._lines) > MOST_LINES // 2:
                self._is_urgent.set()

    def _begin(self) -> None:
        """Wake the thread up, or start it. Where there can be no more threads, a later line tries again."""
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
            self._is_urgent.wait(SECONDS)
            self._is_urgent.clear()
            self._write(self._taken())

    def _taken(self) -> str:
        with self._changed:
            lines, self._lines, self._size = self._lines, [], 0
            lost, self._lost = self._lost, 0
            self._is_writing = True
        if lost:
            lines.append(self._note(text_of_loss(lost)))
        return "".join(f"{line}\n" for line in lines)

    def _write(self, text: str) -> None:
        """Write *text*. A stream that can't be written to is no reason to end anything."""
        with contextlib.suppress(OSError, ValueError):  # it may be closed
            self._stream.write(text)
            self._stream.flush()
        with self._changed:
            self._is_writing = False
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all is written that was logged, for some seconds at most."""
        self.wait(PATIENCE)

    def wait(self, seconds: float) -> bool:
        """Have what was logged be written now; wait for that for *seconds* at most, and tell whether it is done."""
        self._is_urgent.set()
        with self._changed:
            return self._changed.wait_for(lambda: not (self._lines or self._is_writing), seconds)
