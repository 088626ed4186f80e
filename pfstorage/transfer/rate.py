"""Limit the bytes per second of all transfers together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from pfstorage.backends.capabilities import rewind_window
from pfstorage.backends.contract import Sink, Source
from pfstorage.errors import StoppedError
from pfstorage.runtime.cancellation import TICK, CancellationToken

# Seconds by which a thread may wake up late. The limiter makes up for this time, but not for longer pauses.
LATE_SECONDS = 0.005


class RateLimiter:
    """A limiter that lets *rate* bytes per second pass, in the order of calls of `take`; 0 is no limit. Thread-safe."""

    def __init__(self, rate: float = 0.0) -> None:
        self.rate = rate
        self._lock = threading.Lock()
        # one event of each waiting thread; the first is set, and only its thread changes `_free_at`
        self._waiting: deque[threading.Event] = deque()
        self._free_at = 0.0

    def take(
        self, size: int, cancellation: CancellationToken, is_abandoned: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait until *size* bytes may pass.

        Raise `StoppedError` if *cancellation* is requested or *is_abandoned* returns true before that. The bytes do
        not count then, so that a caller that leaves does not delay the others.
        """
        if not self.rate or not size:
            return
        turn = threading.Event()
        with self._lock:
            self._waiting.append(turn)
            self._waiting[0].set()
        try:
            while not turn.wait(TICK):
                _require_wanted(cancellation, is_abandoned)
            while (wait := self._free_at - time.monotonic()) > 0:
                _require_wanted(cancellation, is_abandoned)
                cancellation.sleep(min(wait, TICK))
            self._free_at = max(self._free_at, time.monotonic() - LATE_SECONDS) + size / self.rate
        finally:
            with self._lock:
                self._waiting.remove(turn)
                if self._waiting:
                    self._waiting[0].set()


def _require_wanted(cancellation: CancellationToken, is_abandoned: Callable[[], bool]) -> None:
    if cancellation.is_cancelled:
        raise cancellation.error()
    if is_abandoned():
        raise StoppedError("nobody waits for it any more")


class PacedSink:
    """A sink that calls *on_bytes*, which may sleep, with the number of bytes before each write to *sink*."""

    def __init__(self, sink: Sink, on_bytes: Callable[[int], None]) -> None:
        self._sink = sink
        self._on_bytes = on_bytes

    def write(self, data: bytes | memoryview) -> int | None:
        self._on_bytes(len(data))
        return self._sink.write(data)


class PacedSource:
    """A source that calls *on_bytes*, which may sleep, with the number of bytes after each read from *source*."""

    def __init__(self, source: Source, on_bytes: Callable[[int], None]) -> None:
        self._source = source
        self._on_bytes = on_bytes
        self.window = rewind_window(source)

    def read(self, size: int = -1) -> bytes:
        chunk = self._source.read(size)
        self._on_bytes(len(chunk))
        return chunk

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()
