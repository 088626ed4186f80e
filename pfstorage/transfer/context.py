"""What the files of one message share: the storage, the threads, the pace, and the sign to stop."""

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

MAX_PENDING_FILES = 512


def no_progress(_: Progress) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class Options:
    """How files are moved. Sizes are in bytes.

    *workers* 0 finds the best number itself. *overwrite* is ``changed``, ``always``
    or ``never``. With *dry_run*, all is compared and nothing moved. A file larger
    than *segment_size* is stored in segments, an object larger than *range_size*
    pulled in several ranges at once. *durable* is ``none``, ``file`` or ``batch``:
    whether pulled files are brought to the disk before they get their names, each for itself or many at once.
    *progress* is called some times a second, by the thread that runs the plan. *worker_budget* is what
    other transfers of this process take their workers from, too. *warn* is told what is not as it
    should be, and no reason to fail.
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
        """Whether what is there stays, whatever it is."""
        return self.overwrite == "never"


class TransferContext:
    """The means to work off one plan on *storage*."""

    def __init__(self, storage: Storage, options: Options) -> None:
        self.options = options
        self.cancellation = CancellationToken(
            parent=options.cancellation
        )  # its own, for an error of this plan ends no other
        self.concurrency = AdaptiveConcurrency(
            options.workers, workers=options.worker_budget, maximum=max_workers()
        )
        self.pool = WorkerPool(self.concurrency)
        self.size = 0
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        self.batch_room = threading.Semaphore(_batch_room(self.concurrency.maximum))
        """Of the files that wait, open, for their batch: what finds none is brought to the disk for itself."""
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
        """Let the crew work for the length of the block; what is not done then is given up."""
        with self.cancellation.listening(), self.options.worker_budget.registered(lambda: self.pool.busy):
            try:
                yield
            finally:
                self.pool.cancel()
                self.retry_policy.abort_requests()  # nobody waits for what is under way
                self.pool.close(0.0)

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Have the crew call *call*; return what comes of it."""
        answer: Future[T] = Future()

        def task() -> None:
            try:
                answer.set_result(call())
            except PfstorageError as e:
                answer.set_exception(without_traceback(e))
            except BaseException as e:  # noqa: BLE001 - it is raised again where the answer is used
                answer.set_exception(e)

        self.pool.submit(task)
        return answer

    def wait_for(self, answer: Future[T]) -> T:
        """Wait for *answer*. Raise `StoppedError` as soon as a stop is requested."""
        while not self.cancellation.is_cancelled:
            with contextlib.suppress(NotYetError):
                return answer.result(TICK)
        raise self.cancellation.error()

    def commit(self, file: NewFile, *, durable: bool = False) -> TransferResult:
        """Give *file*, which has all its bytes, its name, unless that is taken and is to stay. Raise `OSError`."""
        with file:
            try:
                file.commit(durable, if_absent=self.options.if_absent)
            except FileExistsError:  # it was not there when its object was asked for
                return SAME
            if file.unsynced:
                self.warn_unsynced(file.unsynced)
            return TransferResult(file.size)

    def warn_unsynced(self, refusal: OSError) -> None:
        self.warn_once(
            f"the file system does not tell when files are on the disk (--durable): {refusal.strerror}"
        )

    def warn_once(self, what: str, example: str = "") -> None:
        """Warn of *what* is wrong, of which *example* is the first file, once for all files."""
        with self._lock:
            is_new = what not in self._warned
            self._warned.add(what)
        if is_new:
            self.options.warn(f"{what}; the first was {example}" if example else what)

    def count_bytes(self, size: int) -> None:
        """Count *size* bytes, and wait for as long as the pace wants it. Raise `StoppedError`."""
        self.cancellation.raise_if_overdue()
        self.options.rate_limiter.take(size, self.cancellation)
        with self._lock:
            self.size += size

    def sink(self, sink: Sink) -> Sink:
        """Return *sink*, what goes into it counted and paced."""
        return PacedSink(sink, self.count_bytes)

    def source(self, source: Source) -> Source:
        """Return *source*, what is read from it counted and paced."""
        return PacedSource(source, self.count_bytes)


def _batch_room(workers: int) -> int:
    """Return how many finished files may be open beside those that *workers* work on, with two descriptors each."""
    return max(0, min(MAX_PENDING_FILES, (free_descriptors() - DESCRIPTORS_PER_WORKER * workers) // 2))
