"""The context of one run: its storage, options, workers, rate limit and cancellation."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass, field
from typing import TypeVar

from pfstorage.backends import Storage
from pfstorage.backends.capabilities import SupportsRetryPolicy
from pfstorage.backends.contract import Sink, Source
from pfstorage.backends.retry import RetryPolicy
from pfstorage.errors import PfstorageError, without_traceback
from pfstorage.local import NewFile
from pfstorage.runtime.cancellation import TICK, CancellationToken
from pfstorage.transfer.concurrency import (
    DESCRIPTORS_PER_WORKER,
    AdaptiveConcurrency,
    WorkerBudget,
    free_descriptors,
    max_workers,
)
from pfstorage.transfer.plan import SAME, Progress, TransferResult
from pfstorage.transfer.pool import WorkerPool
from pfstorage.transfer.rate import PacedSink, PacedSource, RateLimiter

T = TypeVar("T")
log = logging.getLogger(__name__)

# Complete files that may wait, open, for the commit of their batch.
MAX_PENDING_FILES = 512


def no_progress(_: Progress) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Options:
    """The options of a run. Sizes are in bytes.

    - *workers* is the number of files at once; 0 adapts it to the store.
    - *retries* is the number of retries of each request.
    - *overwrite* is ``changed``, ``always`` or ``never``.
    - *dry_run* compares files and transfers none.
    - *segment_size*: a larger file is stored in segments. *range_size*: a larger object is downloaded in ranges.
    - *durable* is ``none``, ``file`` or ``batch``: pulled files are flushed to the disk before their rename, one by one
      or many together.
    - *keep_names* is false if the report needs only numbers.
    - *rate_limiter* and *worker_budget* may be shared with other runs of the process.
    - *progress* is called several times per second, in the thread that runs the plan.
    - *warn* is called with the text of a problem that is no failure.
    """

    workers: int = 0
    retries: int = 3
    overwrite: str = "changed"
    dry_run: bool = False
    segment_size: int = 1024**3
    range_size: int = 64 * 1024**2
    durable: str = "none"
    keep_names: bool = True
    rate_limiter: RateLimiter = field(default_factory=RateLimiter)
    worker_budget: WorkerBudget = field(default_factory=WorkerBudget)
    cancellation: CancellationToken = field(default_factory=CancellationToken)
    progress: Callable[[Progress], None] = no_progress
    warn: Callable[[str], None] = log.warning

    @property
    def if_absent(self) -> bool:
        """Whether an existing object or file is never replaced."""
        return self.overwrite == "never"


class TransferContext:
    """The state that the transfers of one plan share. Create one for each plan. Any thread may call a method.

    *storage* is the storage with the retry policy of this run, and *size* the number of bytes transferred so far.
    """

    def __init__(self, storage: Storage, options: Options) -> None:
        self.options = options
        # its own token: an error of this plan must not cancel other plans
        self.cancellation = CancellationToken(parent=options.cancellation)
        descriptors = free_descriptors()
        self.concurrency = AdaptiveConcurrency(
            options.workers, workers=options.worker_budget, maximum=max_workers(descriptors)
        )
        self.pool = WorkerPool(self.concurrency)
        self.size = 0
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        # bounds the files that wait for the commit of their batch; a further file is committed alone
        self.batch_room = threading.Semaphore(_batch_room(descriptors, self.concurrency.maximum))
        self.retry_policy = RetryPolicy(
            options.retries,
            cancellation=self.cancellation,
            on_failure=self.concurrency.note_failure,
            has_budget=True,
        )
        self.storage = storage
        if isinstance(storage, SupportsRetryPolicy):
            self.storage = storage.with_retry_policy(self.retry_policy)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run submitted calls during the ``with`` block, and abort those that are unfinished at its end."""
        with self.cancellation.listening(), self.options.worker_budget.registered(lambda: self.pool.busy):
            try:
                yield
            finally:
                self.pool.cancel()
                self.retry_policy.abort_requests()  # nobody waits for their results
                self.pool.close(0.0)

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Call *call* in a worker thread, and return the future of its result."""
        future: Future[T] = Future()

        def task() -> None:
            try:
                future.set_result(call())
            except PfstorageError as e:
                future.set_exception(without_traceback(e))
            except BaseException as e:  # noqa: BLE001 - `wait_for` raises it
                future.set_exception(e)

        self.pool.submit(task)
        return future

    def wait_for(self, future: Future[T]) -> T:
        """Wait for the result of *future*. Raise its error, or `StoppedError` as soon as the run is cancelled."""
        while not self.cancellation.is_cancelled:
            with contextlib.suppress(NotYetError):
                return future.result(TICK)
        raise self.cancellation.error()

    def commit(self, file: NewFile, *, durable: bool = False) -> TransferResult:
        """Rename the complete *file* to its final name. With ``overwrite`` "never", skip an existing name.

        Raise `OSError`.
        """
        with file:
            try:
                file.commit(durable, if_absent=self.options.if_absent)
            except FileExistsError:  # made during the download
                return SAME
            if file.unsynced:
                self.warn_unsynced(file.unsynced)
            return TransferResult(file.size)

    def warn_unsynced(self, refusal: OSError) -> None:
        self.warn_once(
            f"the file system can't confirm that files are on the disk (--durable): {refusal.strerror}"
        )

    def warn_once(self, text: str, example: str = "") -> None:
        """Warn with *text* once for all files. *example* is the first file."""
        with self._lock:
            is_new = text not in self._warned
            self._warned.add(text)
        if is_new:
            self.options.warn(f"{text}; the first was {example}" if example else text)

    def count_bytes(self, size: int) -> None:
        """Count *size* bytes, and wait until the rate limit lets them pass. Raise `StoppedError`."""
        self.cancellation.raise_if_overdue()
        self.options.rate_limiter.take(size, self.cancellation)
        with self._lock:
            self.size += size

    def sink(self, sink: Sink) -> Sink:
        """Return a sink that writes to *sink*, counts the bytes and limits their rate."""
        return PacedSink(sink, self.count_bytes)

    def source(self, source: Source) -> Source:
        """Return a source that reads *source*, counts the bytes and limits their rate."""
        return PacedSource(source, self.count_bytes)


def _batch_room(descriptors: int, workers: int) -> int:
    """Return how many complete files may be open besides the *workers*, if the process may open *descriptors* more.

    Each complete file has two descriptors.
    """
    return max(0, min(MAX_PENDING_FILES, (descriptors - DESCRIPTORS_PER_WORKER * workers) // 2))
