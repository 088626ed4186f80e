"""Works off a plan: so many files at once, results in the order of the plan, and a sure end."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from pfstorage.errors import (
    ContainerNotFoundError,
    FullDiskError,
    MisconfiguredError,
    NoSpaceError,
    ObjectTooLargeError,
    PfstorageError,
    StoppedError,
    UnauthenticatedError,
    UnavailableError,
)
from pfstorage.local import NewFile, local_errors, sync_file_systems
from pfstorage.runtime.unexpected import unexpected_error
from pfstorage.transfer.context import TransferContext
from pfstorage.transfer.plan import Failure, Plan, Progress, Transfer, TransferReport, TransferResult

log = logging.getLogger(__name__)

TransferOne = Callable[[Transfer], TransferResult]

MAX_WAITING = 10_000
"""Finished files that wait for an unfinished one before them: a large file does not hold up the others."""
BATCH_SIZE = 128
"""Files of a batch that is brought to the disk at once. Each holds two descriptors until then."""
BATCH_SECONDS = 5.0
TICK = 0.1
"""Seconds after which the caller's thread looks at what has finished.

Not at each file: a thread that wakes up takes the interpreter's lock from those that move files.
"""
PROGRESS_INTERVAL = 0.2
CLOSE_SECONDS = 2.5
"""What is left, of 5 s in all, for what runs to end once it was given up."""

_HOPELESS = (UnauthenticatedError, MisconfiguredError, ContainerNotFoundError)
_HOPELESS_IN_A_ROW = (UnavailableError, FullDiskError, NoSpaceError)


class _Slot:
    """One item of the plan, what the crew made of it, and what came of it in the end: a file has its name then."""

    __slots__ = ("final", "item", "result")

    def __init__(self, item: Transfer | Failure) -> None:
        self.item = item
        self.result: TransferResult | Failure | None = None
        self.final: TransferResult | Failure | None = item if isinstance(item, Failure) else None


def run(
    plan: Plan, transfer_one: TransferOne, context: TransferContext, report: TransferReport | None = None
) -> TransferReport:
    """Call *transfer_one* for each transfer of *plan*, in several threads; return what came of it, in *report*.

    What fails is listed; it never ends the run, unless nothing more can succeed. If
    *context*'s stop is requested, what was done until then is returned, within 5 s, with `StoppedError`.
    """
    engine = _Engine(transfer_one, context, report or TransferReport(context.options.keep_names))
    with (
        context.cancellation.listening(),
        context.options.worker_budget.registered(lambda: context.pool.busy),
    ):
        try:
            engine.start(plan)
            engine.wait()
        except BaseException:  # such as Ctrl-C where nobody turns it into a request to stop
            context.cancellation.cancel("an error")
            raise
        finally:
            engine.end()
    return engine.report


class _Engine:
    """Three kinds of threads: one takes the plan, the crew moves the files, the caller's notes what came of it."""

    def __init__(self, transfer_one: TransferOne, context: TransferContext, report: TransferReport) -> None:
        self.report = report
        self._transfer_one = transfer_one
        self._context = context
        self._breaker = CircuitBreaker(context.concurrency.allowed)
        self._slots: deque[_Slot] = deque()
        self._finished: deque[_Slot] = deque()
        self._wake_up = threading.Event()  # what has happened is to be looked at before the next tick
        self._room = threading.Condition()
        self._running = 0
        self._total: int | None = None  # until the plan has come to its end
        self._is_plan_read = False
        self._unexpected_error: BaseException | None = None
        self._batch: dict[_Slot, NewFile] = {}
        self._started = self._shown_at = self._batch_begun_at = time.monotonic()

    def start(self, plan: Plan) -> None:
        """Begin to take the transfers of *plan*, no further than is needed."""
        feeder = threading.Thread(target=self._read_plan, args=(plan,), name="plan", daemon=True)
        feeder.start()

    def _read_plan(self, plan: Plan) -> None:
        count = 0
        try:
            for item in plan:
                if self._is_full():
                    self._await_room()
                if self._context.cancellation.is_cancelled:
                    break
                count += 1
                slot = _Slot(item)
                self._slots.append(slot)
                if slot.final is None:
                    self._context.pool.submit(functools.partial(self._attempt, slot))
                    with self._room:
                        self._running += 1
            else:
                self._total = count
        except PfstorageError as e:
            if not self._context.cancellation.is_cancelled:  # else that is what broke it off
                self.report.error = e
        except BaseException as e:  # noqa: BLE001 - it is raised again where it can be seen
            self._unexpected_error = e
        finally:
            self._is_plan_read = True
            self._wake_up.set()

    def _is_full(self) -> bool:
        return self._running > 4 * self._context.concurrency.allowed or len(self._slots) > MAX_WAITING

    def _await_room(self) -> None:
        with self._room:
            while self._is_full() and not self._context.cancellation.is_cancelled:
                self._room.wait()

    def wait(self) -> None:
        """Wait until all is done, or given up."""
        cancellation = self._context.cancellation
        while not self._is_done and not cancellation.is_cancelled:
            self._take_finished()
        if cancellation.is_cancelled:
            self._context.pool.cancel()
            while self._context.pool.busy and not cancellation.is_overdue:
                self._take_finished()
        self._commit_batch()
        if self._unexpected_error:
            raise self._unexpected_error

    @property
    def _is_done(self) -> bool:
        return self._is_plan_read and self._running == 0

    def end(self) -> None:
        """End the threads, and make the report complete."""
        if self._context.cancellation.is_cancelled:
            if not self._context.pool.close(0.0) or not self._is_plan_read:
                self._context.retry_policy.abort_requests()
            self._context.pool.close(CLOSE_SECONDS)
            self.report.error = self._context.cancellation.error()
            with self._room:
                self._room.notify_all()
        else:
            self._context.pool.close()
        for slot in list(self._slots):  # not from the queue: an interrupt may have lost what it gave out
            self._note_finished(slot)
        self._commit_batch()
        self._note_in_order(at_end=True)
        self.report.seconds = time.monotonic() - self._started
        self._show(is_last=True)

    def _attempt(self, slot: _Slot) -> None:
        assert isinstance(slot.item, Transfer)
        try:
            result = slot.result = _attempt(slot.item, self._transfer_one, self._breaker)
            if isinstance(result, TransferResult):
                self._context.concurrency.note(result.size or 0)
        except BaseException as e:  # noqa: BLE001 - it is raised again where it can be seen
            self._unexpected_error = e  # such as a lack of memory to tell of a lack of memory
        finally:
            self._finished.append(slot)
            with self._room:
                self._running -= 1
                if self._running <= 2 * self._context.concurrency.allowed:  # not for each: see TICK
                    self._room.notify()
            if self._is_done or len(self._finished) >= BATCH_SIZE or self._context.cancellation.is_cancelled:
                self._wake_up.set()

    def _take_finished(self) -> None:
        self._wake_up.wait(TICK)
        self._wake_up.clear()
        while self._finished:
            self._note_finished(self._finished.popleft())
        now = time.monotonic()
        if self._batch and (len(self._batch) >= BATCH_SIZE or now - self._batch_begun_at > BATCH_SECONDS):
            self._commit_batch()
        self._note_in_order()
        with self._room:  # there is room once something was noted
            self._room.notify()
        if now - self._shown_at > PROGRESS_INTERVAL:
            self._shown_at = now
            self._show()

    def _note_finished(self, slot: _Slot) -> None:
        result = slot.result
        if (
            isinstance(result, TransferResult) and result.file is not None
        ):  # it is not done before it has its name
            if not self._batch:
                self._batch_begun_at = time.monotonic()
            self._batch[slot] = result.file
        elif result is not None:
            slot.final = result
        slot.result = None

    def _commit_batch(self) -> None:
        """Give the files of the batch their names, once all their bytes are on the disk."""
        slots, error = list(self._batch), None
        if not slots:
            return
        try:
            if refusal := sync_file_systems(self._batch.values()):
                self._context.warn_unsynced(refusal)
        except OSError as e:
            error = e
        for slot in slots:
            with self._batch[slot] as file:
                del self._batch[slot]  # not before: an interrupt leaves none behind
                try:
                    if error:
                        raise error
                    slot.final = self._context.commit(file)
                except OSError as e:
                    slot.final = _failure_of(slot, e)
            self._context.batch_room.release()
        _sync_names([slot.item for slot in slots if isinstance(slot.item, Transfer)])

    def _note_in_order(self, *, at_end: bool = False) -> None:
        while self._slots and (self._slots[0].final is not None or at_end):
            slot = self._slots.popleft()
            if isinstance(slot.final, Failure):
                if not isinstance(slot.final.error, StoppedError):
                    self.report.note_failure(slot.final)
            elif slot.final is not None:
                assert isinstance(slot.item, Transfer)
                self.report.note(slot.item, slot.final)

    def _show(self, *, is_last: bool = False) -> None:
        report, context = self.report, self._context
        seconds = time.monotonic() - self._started
        progress = Progress(
            report.count + len(report.unstable),
            report.failed_count,
            report.skipped + len(report.unstable),
            context.size,
            seconds,
            self._total,
            context.concurrency.allowed,
            is_last,
        )
        context.options.progress(progress)


def _sync_names(items: list[Transfer]) -> None:
    """Bring the names of what was committed to the disk, too; what fails is told, the files are there."""
    for tree in {item.tree for item in items if item.tree is not None}:
        try:
            tree.sync_directories(item.parts[:-1] for item in items if item.tree is tree)
        except OSError as e:
            log.warning("the names of pulled files may not be on the disk yet: %s", e.strerror)


def _failure_of(slot: _Slot, error: OSError) -> Failure:
    try:
        with local_errors(slot.item.path):
            raise error
    except PfstorageError as e:
        return Failure(slot.item.key, slot.item.path, e)


def _attempt(item: Transfer, transfer_one: TransferOne, breaker: CircuitBreaker) -> TransferResult | Failure:
    try:
        breaker.check()
        result = transfer_one(item)
        breaker.note(None)
    except PfstorageError as e:
        breaker.note(e)
        log.debug("%r, %r failed: %s", item.key, item.path, e)
        return Failure(item.key, item.path, e)
    except Exception as e:  # noqa: BLE001 - it is logged
        return Failure(item.key, item.path, unexpected_error(e, "a transfer"))
    log.debug("%r, %r: %s", item.key, item.path, result.verdict or f"{result.size} bytes")
    return result


class CircuitBreaker:
    """Ends a run that can't go on: the store is gone, or refuses the login; the disk or the store is full.

    Else each of a hundred thousand files would wait out its own tries.
    """

    def __init__(self, workers: int) -> None:
        self._lock = threading.Lock()
        self._limit = max(workers, 3)
        self._in_a_row = 0
        self._reason: PfstorageError | None = None

    def check(self) -> None:
        if self._reason:
            raise type(self._reason)(f"not tried: {self._reason}")

    def note(self, error: PfstorageError | None) -> None:
        with self._lock:
            is_one_more = isinstance(error, _HOPELESS_IN_A_ROW) and not isinstance(error, ObjectTooLargeError)
            self._in_a_row = self._in_a_row + 1 if is_one_more else 0
            if isinstance(error, _HOPELESS) or self._in_a_row >= self._limit:
                self._reason = self._reason or error
