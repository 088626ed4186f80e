"""How fast to go: how many files at once, and how many bytes a second."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from pfstorage.backends.capabilities import rewind_window
from pfstorage.backends.contract import Sink, Source
from pfstorage.backends.errors import OverloadedError, SilentStoreError
from pfstorage.errors import StoppedError, StorageError
from pfstorage.runtime.cancellation import TICK, CancellationToken

AUTO_FIRST = 8
AUTO_MOST = 64
FILE_COST = 64 * 1024
"""Bytes that one more file counts for, so that the goodput of many small ones is one, too."""

SAMPLE_SECONDS = 0.25
GAIN = 1.25
"""What twice as many workers must bring, or the last step is taken back."""
SETTLED_SECONDS = 15.0
"""How long a number of workers that brought no more is left alone."""

LATE_SECONDS = 0.005
"""How late a thread may wake up."""


class WorkerBudget:
    """At most *most* files at once for all the transfers of a server, each an even share, of one at least.

    Who has ten files to move does not wait for who has a hundred thousand.
    """

    def __init__(self, most: int = sys.maxsize) -> None:
        self.most = most
        self._transfers: tuple[Callable[[], int], ...] = ()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def shared(self, busy: Callable[[], int]) -> Iterator[None]:
        """Be one of the transfers for the length of the block, with *busy* workers at the time.

        The shares of the others follow as their files end.
        """
        with self._lock:
            self._transfers = (*self._transfers, busy)
        try:
            yield
        finally:
            with self._lock:
                self._transfers = tuple(each for each in self._transfers if each is not busy)

    @property
    def share(self) -> int:
        return max(1, self.most // max(1, len(self._transfers)))

    def counts(self) -> dict[str, int]:
        """Return how many of them move a file, and how many more may."""
        busy = sum(busy() for busy in self._transfers)
        return {"busy": busy, "idle": max(0, self.most - busy)}


class AdaptiveConcurrency:
    """How many files are moved at once: *fixed*, or grown while that moves more (0).

    That is no more than its share, nor than *most*, for which there are descriptors.
    What grows begins with `AUTO_FIRST`, doubles while the goodput grows with it, up to
    `AUTO_MOST`, and halves when the store asks for fewer requests or falls silent.
    """

    def __init__(
        self,
        fixed: int = 0,
        clock: Callable[[], float] = time.monotonic,
        workers: WorkerBudget | None = None,
        most: int = sys.maxsize,
    ) -> None:
        self.most = min(fixed or AUTO_MOST, most)
        self._wanted = min(fixed or AUTO_FIRST, self.most)
        self._workers = workers or WorkerBudget()
        self._is_auto = not fixed
        self._clock = clock
        self._lock = threading.Lock()
        self._before: tuple[int, float] = (0, 0.0)  # the last number of workers, and its goodput
        self._halved_at, self._settled_until = float("-inf"), clock()
        self._begin_sample(warm_up=True)

    @property
    def allowed(self) -> int:
        return min(self._wanted, self._workers.share)

    def _begin_sample(self, *, warm_up: bool) -> None:
        self._since = self._clock()
        self._sum = 0
        self._count = 0
        self._is_warm_up = warm_up

    def note(self, size: int) -> None:
        """Take into account that a file of *size* bytes is done."""
        if not self._is_auto:
            return
        with self._lock:
            self._sum += size + FILE_COST
            self._count += 1
            seconds = self._clock() - self._since
            if self._count < self.allowed or (seconds < SAMPLE_SECONDS and not self._is_warm_up):
                return
            if not self._is_warm_up:
                self._judge(self._sum / seconds)
                self._begin_sample(warm_up=True)  # connections that are new are slow at first
            else:
                self._begin_sample(warm_up=False)

    def _judge(self, goodput: float) -> None:
        workers, before = self._before
        if self._clock() < self._settled_until:
            return
        if goodput >= before * GAIN:
            self._before = (self._wanted, goodput)
            self._wanted = min(self.most, max(self._wanted, self.allowed * 2))
        else:  # it brought nothing: go back, and look again later
            self._wanted = workers or self._wanted
            self._before = (0, 0.0)
            self._settled_until = self._clock() + SETTLED_SECONDS

    def note_failure(self, error: StorageError) -> None:
        """Take into account that a request failed."""
        is_congested = isinstance(error, (OverloadedError, SilentStoreError))
        if not self._is_auto or not is_congested:
            return
        with self._lock:
            now = self._clock()
            if now - self._halved_at < 1.0:
                return  # the answers to what was under way then
            self._halved_at, self._settled_until = now, now + SETTLED_SECONDS
            self._wanted = max(1, self.allowed // 2)
            self._before = (0, 0.0)
            self._begin_sample(warm_up=True)


class RateLimiter:
    """Lets *rate* bytes a second pass, whoever they are of, one after the other as they came; 0 is no limit."""

    def __init__(self, rate: float = 0.0) -> None:
        self.rate = rate
        self._lock = threading.Lock()
        self._turns: deque[threading.Event] = deque()
        """One of each who waits. Only the first is set, and only its owner touches the time."""
        self._free_at = 0.0

    def take(
        self, size: int, cancellation: CancellationToken, is_gone: Callable[[], bool] = lambda: False
    ) -> None:
        """Wait until *size* bytes may pass. Raise `StoppedError` if *cancellation* is requested meanwhile.

        So it does if the one who wants them *is_gone*: nothing is taken before its turn has
        come, so those who leave hold up nobody.
        """
        if not self.rate or not size:
            return
        permit = threading.Event()
        with self._lock:
            self._turns.append(permit)
            self._turns[0].set()
        try:
            while not permit.wait(TICK):
                _require_wanted(cancellation, is_gone)
            while (early := self._free_at - time.monotonic()) > 0:
                _require_wanted(cancellation, is_gone)
                cancellation.sleep(min(early, TICK))
            # who woke up late makes up for that, but not for a pause
            self._free_at = max(self._free_at, time.monotonic() - LATE_SECONDS) + size / self.rate
        finally:
            with self._lock:
                self._turns.remove(permit)
                if self._turns:
                    self._turns[0].set()


def _require_wanted(cancellation: CancellationToken, is_gone: Callable[[], bool]) -> None:
    if cancellation.is_cancelled:
        raise cancellation.error()
    if is_gone():
        raise StoppedError("nobody waits for it any more")


class PacedSink:
    """What goes into *sink* is told to *passed*, in bytes, which may take its time."""

    def __init__(self, sink: Sink, passed: Callable[[int], None]) -> None:
        self._sink = sink
        self._passed = passed

    def write(self, data: bytes | memoryview) -> int | None:
        self._passed(len(data))
        return self._sink.write(data)


class PacedSource:
    """What is read from *source* is told to *passed*, in bytes, which may take its time."""

    def __init__(self, source: Source, passed: Callable[[int], None]) -> None:
        self._source = source
        self._passed = passed
        self.window = rewind_window(source)

    def read(self, size: int = -1) -> bytes:
        chunk = self._source.read(size)
        self._passed(len(chunk))
        return chunk

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()
