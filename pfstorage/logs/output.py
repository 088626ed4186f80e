"""Write to stdout completely or fail; write log lines to stderr without ever failing or blocking for long.

Another process may share a standard stream and may have set ``O_NONBLOCK`` on it (node, an event loop, a CI runner).
Python then drops text for which the stream has no room. All processes share the flag, so it must not change: these
streams wait until there is room.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from select import PIPE_BUF, POLLOUT, poll
from typing import TextIO

# Bytes of a reply that are collected before they are written.
BUFFER_SIZE = 64 * 1024
# Seconds for which a log line waits for a reader that does not read.
LOG_WAIT_SECONDS = 5.0


def loss_text(count: int) -> str:
    return f"{count} lines of the log are lost: nobody read them in time"


class Outlet(io.TextIOBase):
    """A text stream to the descriptor of *stream*, which may be blocking or not.

    `flush` writes everything or raises `OSError`. `close` drops unflushed text.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._descriptor = stream.fileno()
        self._codec = (stream.encoding, stream.errors or "strict")
        self._buffer = bytearray()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # there it is an attribute
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._buffer += text.encode(*self._codec)
        if len(self._buffer) >= BUFFER_SIZE:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Write everything, however long that takes. Drop the text if that fails."""
        data, self._buffer = memoryview(self._buffer), bytearray()
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                self._has_room(None)

    def close(self) -> None:
        self._buffer.clear()
        super().close()

    def finish(self) -> None:
        """Flush, and raise the `OSError` that some file systems report only when a file is closed."""
        self.flush()
        os.close(os.dup(self._descriptor))

    def _has_room(self, seconds: float | None) -> bool:
        """Wait up to *seconds* until the stream has room, and return whether it has. A broken stream has room."""
        waiter = poll()
        waiter.register(self._descriptor, POLLOUT)
        return bool(waiter.poll(None if seconds is None else max(0.0, seconds) * 1000))


class LogOutlet(Outlet):
    """An `Outlet` for log lines. It drops lines rather than fail or block the program. Any thread may write.

    If the stream has no room for *wait_seconds*, lines are dropped until it has. A line that *note* makes of a text
    then reports their number.
    """

    def __init__(
        self, stream: TextIO, note: Callable[[str], str], wait_seconds: float = LOG_WAIT_SECONDS
    ) -> None:
        super().__init__(stream)
        self._note = note
        self._wait_seconds = wait_seconds
        self._lost = 0
        self._is_cut = False
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        with self._lock:
            if self._lost and self._has_room(0):
                self._report_loss(self._lost)
            self._send(text)
        return len(text)

    def _report_loss(self, lost: int) -> None:
        """Report *lost* dropped lines. If this line is dropped, too, keep the count: the disk may be full."""
        start = "\n" if self._is_cut else ""
        self._lost, self._is_cut = 0, False
        self._send(f"{start}{self._note(loss_text(lost))}\n")
        if self._lost:
            self._lost = lost

    def flush(self) -> None:
        """Do nothing: `write` flushes."""

    def _send(self, text: str) -> None:
        data = memoryview(text.encode(*self._codec))
        size, deadline = len(data), time.monotonic() + (0.0 if self._lost else self._wait_seconds)
        with contextlib.suppress(OSError):  # the disk is full, or the reader has ended
            while data and self._has_room(deadline - time.monotonic()):
                # a write of this size never blocks on a pipe that has room, not even on a blocking one
                with contextlib.suppress(BlockingIOError):
                    data = data[os.write(self._descriptor, data[:PIPE_BUF]) :]
                    deadline = time.monotonic() + self._wait_seconds
        if data:
            self._lost += bytes(data).count(b"\n") or 1
            self._is_cut = self._is_cut or 0 < len(data) < size


@contextlib.contextmanager
def standard_streams(note: Callable[[str], str] = str) -> Iterator[None]:
    """Replace ``sys.stdout`` by an `Outlet` and ``sys.stderr`` by a `LogOutlet` within the block."""
    _occupy_closed_descriptors()
    before = sys.stdout, sys.stderr
    out, log = (stream if _has_descriptor(stream) else None for stream in before)
    if out is not None:
        out.flush()
        sys.stdout = Outlet(out)
    if log is not None:
        log.flush()
        sys.stderr = LogOutlet(log, note)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _has_descriptor(stream: TextIO | None) -> bool:
    """Return whether *stream* writes to a descriptor. A stream that a test has replaced may not."""
    try:
        return stream is not None and stream.fileno() >= 0
    except (OSError, ValueError, AttributeError):
        return False


def _occupy_closed_descriptors() -> None:
    """Open /dev/null for closed standard streams. A file could get their number otherwise, and with it their output."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # stdin, stdout, stderr
        pass
    os.close(descriptor)


def is_stream(path: str) -> bool:
    """Return whether *path* is the file of stdout or stderr, or not a regular file, such as a pipe."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    ours = (os.fstat(descriptor) for descriptor in (1, 2))
    return not stat.S_ISREG(there.st_mode) or any(os.path.samestat(there, each) for each in ours)


def stdout() -> TextIO:
    """Return the stream for replies. Raise `OSError` if it is closed."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "stdout is closed")
    return sys.stdout


def finish(stream: TextIO) -> None:
    """Write everything that *stream* has collected. Raise `OSError` if that fails."""
    stream.finish() if isinstance(stream, Outlet) else stream.flush()


def print_text(text: str) -> bool:
    """Write *text* and a newline to stdout, and return whether that worked. If not, report it on stderr."""
    try:
        stream = stdout()
        stream.write(f"{text}\n")
        finish(stream)
    except OSError as e:
        if sys.stderr is not None:
            sys.stderr.write(f"pfstorage: cannot write to stdout: {e.strerror}\n")
        return False
    return True


class Parser(argparse.ArgumentParser):
    """A parser whose ``--help`` reports a failed output, unlike argparse."""

    def print_help(self, file: object = None) -> None:
        if not print_text(self.format_help().rstrip("\n")):
            self.exit(1)
