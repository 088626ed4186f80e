"""Choose how many files to transfer at once: a fixed number, or one that follows the throughput of the store."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator

from pfstorage.backends.errors import OverloadedError, SilentStoreError
from pfstorage.errors import StorageError

AUTO_START = 8
AUTO_MAX = 64
# The bytes that each file adds to the throughput, so that many small files count, too.
FILE_OVERHEAD = 64 * 1024

SAMPLE_SECONDS = 0.25
# The factor by which twice as many workers must increase the throughput. Otherwise, the last step is undone.
MIN_GAIN = 1.25
# Seconds until the next try with more workers, after one that brought too little.
LIMIT_SETTLED_SECONDS = 15.0
# Seconds in which further failures do not reduce the workers again: these requests began before the reduction.
HALVING_SECONDS = 1.0

# Descriptors of one worker: the file, its directory, a connection, and one for opening a path.
DESCRIPTORS_PER_WORKER = 4
# Descriptors for everything else: listings, open directories, imports, the log.
RESERVED_DESCRIPTORS = 64


class WorkerBudget:
    """A budget of *maximum* workers, divided evenly among all transfers of a process, at least one for each.

    So a transfer of ten files does not wait for one of a hundred thousand. Any thread may call a method.
    """

    def __init__(self, maximum: int = sys.maxsize) -> None:
        self.maximum = maximum
        self._transfers: tuple[Callable[[], int], ...] = ()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def registered(self, busy: Callable[[], int]) -> Iterator[None]:
        """Count one more transfer during the ``with`` block. *busy* returns the number of its busy workers.

        The other transfers give up workers as their current files end.
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
        """The number of workers for one transfer."""
        return max(1, self.maximum // max(1, len(self._transfers)))

    def counts(self) -> dict[str, int]:
        """Return the numbers of busy workers, and of workers that are left."""
        busy = sum(busy() for busy in self._transfers)
        return {"busy": busy, "idle": max(0, self.maximum - busy)}


class AdaptiveConcurrency:
    """The number of files that one transfer moves at once: *fixed*, or adapted to the store if that is 0.

    An adapted number starts at `AUTO_START`. It doubles while the throughput grows with it, up to `AUTO_MAX`. It is
    halved when the store asks for fewer requests or does not answer. The number is never more than
    *maximum*, nor than the transfer's share of *workers*. Any thread may call a method.
    """

    def __init__(
        self,
        fixed: int = 0,
        clock: Callable[[], float] = time.monotonic,
        workers: WorkerBudget | None = None,
        maximum: int = sys.maxsize,
    ) -> None:
        self.maximum = min(fixed or AUTO_MAX, maximum)
        self._wanted = min(fixed or AUTO_START, self.maximum)
        self._workers = workers or WorkerBudget()
        self._is_auto = not fixed
        self._clock = clock
        self._lock = threading.Lock()
        self._previous: tuple[int, float] = (0, 0.0)  # the previous number of workers, and its throughput
        self._halved_at, self._settled_until = float("-inf"), clock()
        self._begin_sample(warm_up=True)

    @property
    def allowed(self) -> int:
        """The number of files to transfer at once now."""
        return min(self._wanted, self._workers.share)

    def _begin_sample(self, *, warm_up: bool) -> None:
        self._since = self._clock()
        self._bytes = 0
        self._count = 0
        self._is_warm_up = warm_up

    def note(self, size: int) -> None:
        """Count a finished file of *size* bytes."""
        if not self._is_auto:
            return
        with self._lock:
            self._bytes += size + FILE_OVERHEAD
            self._count += 1
            seconds = self._clock() - self._since
            if self._count < self.allowed or (seconds < SAMPLE_SECONDS and not self._is_warm_up):
                return
            if not self._is_warm_up:
                self._judge(self._bytes / seconds)
                self._begin_sample(warm_up=True)  # new connections are slow at first
            else:
                self._begin_sample(warm_up=False)

    def _judge(self, throughput: float) -> None:
        workers, previous = self._previous
        if self._clock() < self._settled_until:
            return
        if throughput >= previous * MIN_GAIN:
            self._previous = (self._wanted, throughput)
            self._wanted = min(self.maximum, max(self._wanted, self.allowed * 2))
        else:
            self._wanted = workers or self._wanted
            self._previous = (0, 0.0)
            self._settled_until = self._clock() + LIMIT_SETTLED_SECONDS

    def note_failure(self, error: StorageError) -> None:
        """Take the failure of a request into account."""
        is_congested = isinstance(error, (OverloadedError, SilentStoreError))
        if not self._is_auto or not is_congested:
            return
        with self._lock:
            now = self._clock()
            if now - self._halved_at < HALVING_SECONDS:
                return
            self._halved_at, self._settled_until = now, now + LIMIT_SETTLED_SECONDS
            self._wanted = max(1, self.allowed // 2)
            self._previous = (0, 0.0)
            self._begin_sample(warm_up=True)


def free_descriptors() -> int:
    """Return how many more files this process may open, without the reserved descriptors."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit - _open_descriptors() - RESERVED_DESCRIPTORS if limit != resource.RLIM_INFINITY else 2**31


def _open_descriptors() -> int:
    with contextlib.suppress(OSError):
        # Since Linux 6.2, the size is their number (proc(5)). A listing makes a system call for each of them.
        if count := os.stat("/proc/self/fd").st_size:
            return count
    with contextlib.suppress(OSError):
        return len(os.listdir("/dev/fd"))
    return 0  # the reserved descriptors must be enough


def max_workers(descriptors: int) -> int:
    """Return for how many workers, at least one, *descriptors* are enough."""
    return max(1, descriptors // DESCRIPTORS_PER_WORKER)
