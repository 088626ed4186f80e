"""stdout and stderr of the programs: what goes to stdout is written whole or fails, a log line does neither harm.

Another process may share a standard stream and may have set ``O_NONBLOCK`` on it (node, an event
loop, a CI runner). Python then drops what the stream does not take at once. The flag belongs to
all who share the stream, so it stays as it is: these streams wait until there is room.
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

AT_ONCE = 64 * 1024
"""Bytes of a reply that are gathered before they are written."""
LOG_PATIENCE = 5.0
"""Seconds for which a log line waits for a reader that takes nothing."""


def text_of_loss(count: int) -> str:
    return f"{count} lines of the log are lost: nobody read them in time"


class Outlet(io.TextIOBase):
    """A text stream onto the descriptor of *stream*, which may block or not.

    `flush` writes all, or raises `OSError`; what was not flushed by then is lost with `close`.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._descriptor = stream.fileno()
        self._codec = (stream.encoding, stream.errors or "strict")
        self._gathered = bytearray()

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
        self._gathered += text.encode(*self._codec)
        if len(self._gathered) >= AT_ONCE:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Write all, however long that takes; what can't be written is forgotten."""
        data, self._gathered = memoryview(self._gathered), bytearray()
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                self._has_room(None)

    def close(self) -> None:
        self._gathered.clear()
        super().close()

    def finish(self) -> None:
        """Flush, and raise the `OSError` that some file systems tell only of when a file is closed."""
        self.flush()
        os.close(os.dup(self._descriptor))

    def _has_room(self, seconds: float | None) -> bool:
        """Wait up to *seconds* until the stream takes more; tell whether it does. A broken one takes all."""
        waiter = poll()
        waiter.register(self._descriptor, POLLOUT)
        return bool(waiter.poll(None if seconds is None else max(0.0, seconds) * 1000))


class LogOutlet(Outlet):
    """The same for log lines, which are lost rather than break or hold up the program. Any thread may write.

    After *retry_policy* seconds in which the stream takes nothing, lines are dropped for as long as that
    lasts. Then one line says how many there were, made by *note* of the text.
    """

    def __init__(
        self, stream: TextIO, note: Callable[[str], str], retry_policy: float = LOG_PATIENCE
    ) -> None:
        super().__init__(stream)
        self._note = note
        self._patience = retry_policy
        self._lost = 0
        self._is_cut = False
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        with self._lock:
            if self._lost and self._has_room(0):
                self._tell_loss(self._lost)
            self._send(text)
        return len(text)

    def _tell_loss(self, lost: int) -> None:
        """Write that *lost* lines were dropped. If that is dropped, too, they still count: a disk may be full."""
        start = "\n" if self._is_cut else ""
        self._lost, self._is_cut = 0, False
        self._send(f"{start}{self._note(text_of_loss(lost))}\n")
        if self._lost:
            self._lost = lost

    def flush(self) -> None:
        """There is nothing to do: `write` has done it."""

    def _send(self, text: str) -> None:
        data = memoryview(text.encode(*self._codec))
        size, deadline = len(data), time.monotonic() + (0.0 if self._lost else self._patience)
        with contextlib.suppress(OSError):  # it is full, or its reader has gone
            while data and self._has_room(deadline - time.monotonic()):
                # so few don't block a pipe that has room, even if the pipe is one that blocks
                with contextlib.suppress(BlockingIOError):
                    data = data[os.write(self._descriptor, data[:PIPE_BUF]) :]
                    deadline = time.monotonic() + self._patience
        if data:
            self._lost += bytes(data).count(b"\n") or 1
            self._is_cut = self._is_cut or 0 < len(data) < size


@contextlib.contextmanager
def standard_streams(note: Callable[[str], str] = str) -> Iterator[None]:
    """Have ``sys.stdout`` and ``sys.stderr`` be an `Outlet` and a `LogOutlet` for the length of the block."""
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
    """Tell whether *stream* writes to a descriptor; one that Python replaced, as tests do, may not."""
    try:
        return stream is not None and stream.fileno() >= 0
    except (OSError, ValueError, AttributeError):
        return False


def _occupy_closed_descriptors() -> None:
    """See that no file gets the number of a standard stream that is closed: what is written there would be in it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # stdin, stdout, stderr
        pass
    os.close(descriptor)


def is_stream(path: str) -> bool:
    """Tell whether *path* leads to what is no regular file, such as a pipe, or to where stdout or stderr go."""
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
    """See that all is written that went into *stream*. Raise `OSError` if that can't be."""
    stream.finish() if isinstance(stream, Outlet) else stream.flush()


def tell(text: str) -> bool:
    """Write *text* and a newline to stdout; tell whether that worked. If not, stderr says why."""
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
    """A parser whose ``--help`` fails if the help can't be written; argparse itself would say nothing."""

    def print_help(self, file: object = None) -> None:
        if not tell(self.format_help().rstrip("\n")):
            self.exit(1)
