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

Move = Callable[[Transfer], TransferResult]

MOST_WAITING = 10_000
"""Finished files that wait for an unfinished one before them: a large file does not hold up the others."""
BATCH = 128
"""Files of a batch that is brought to the disk at once. Each holds two descriptors until then."""
BATCH_SECONDS = 5.0
TICK = 0.1
"""Seconds after which the caller's thread looks at what has finished.

Not at each file: a thread that wakes up takes the interpreter's lock from those that move files.
"""
SHOWN_EVERY = 0.2
LAST_SECONDS = 2.5
"""What is left, of 5 s in all, for what runs to end once it was given up."""

_HOPELESS = (UnauthenticatedError, MisconfiguredError, ContainerNotFoundError)
_HOPELESS_IN_A_ROW = (UnavailableError, FullDiskError, NoSpaceError)


class _Slot:
    """One item of the plan, what the crew made of it, and what came of it in the end: a file has its name then."""

    __slots__ = ("item", "made", "outcome")

    def __init__(self, item: Transfer | Failure) -> None:
        self.item = item
        self.made: TransferResult | Failure | None = None
        self.outcome: TransferResult | Failure | None = item if isinstance(item, Failure) else None


def run(
    plan: Plan, move: Move, work: TransferContext, report: TransferReport | None = None
) -> TransferReport:
    """Call *move* for each transfer of *plan*, in several threads; return what came of it, in *report*.

    What fails is listed; it never ends the run, unless nothing more can succeed. If
    *work*'s stop is requested, what was done until then is returned, within 5 s, with `StoppedError`.
    """
    engine = _Engine(move, work, report or TransferReport(work.options.names_kept))
    with work.cancellation.listening(), work.options.shared.shared(lambda: work.pool.busy):
        try:
            engine.start(plan)
            engine.wait()
        except BaseException:  # such as Ctrl-C where nobody turns it into a request to stop
            work.cancellation.cancel("an error")
            raise
        finally:
            engine.end()
    return engine.report


class _Engine:
    """Three kinds of threads: one takes the plan, the crew moves the files, the caller's notes what came of it."""

    def __init__(self, move: Move, work: TransferContext, report: TransferReport) -> None:
        self.report = report
        self._move = move
        self._work = work
        self._breaker = _Breaker(work.limit.allowed)
        self._slots: deque[_Slot] = deque()
        self._finished: deque[_Slot] = deque()
        self._is_noteworthy = threading.Event()  # what has happened is to be looked at before the next tick
        self._room = threading.Condition()
        self._running = 0
        self._total: int | None = None  # until the plan has come to its end
        self._is_fed = False
        self._fault: BaseException | None = None
        self._batch: dict[_Slot, NewFile] = {}
        self._started = self._shown_at = self._batch_begun_at = time.monotonic()

    def start(self, plan: Plan) -> None:
        """Begin to take the transfers of *plan*, no further than is needed."""
        feeder = threading.Thread(target=self._feed, args=(plan,), name="plan", daemon=True)
        feeder.start()

    def _feed(self, plan: Plan) -> None:
        count = 0
        try:
            for item in plan:
                if self._is_full():
                    self._await_room()
                if self._work.cancellation.is_cancelled:
                    break
                count += 1
                slot = _Slot(item)
                self._slots.append(slot)
                if slot.outcome is None:
                    self._work.pool.submit(functools.partial(self._attempt, slot))
                    with self._room:
                        self._running += 1
            else:
                self._total = count
        except PfstorageError as e:
            if not self._work.cancellation.is_cancelled:  # else that is what broke it off
                self.report.error = e
        except BaseException as e:  # noqa: BLE001 - it is raised again where it can be seen
            self._fault = e
        finally:
            self._is_fed = True
            self._is_noteworthy.set()

    def _is_full(self) -> bool:
        return self._running > 4 * self._work.limit.allowed or len(self._slots) > MOST_WAITING

    def _await_room(self) -> None:
        with self._room:
            while self._is_full() and not self._work.cancellation.is_cancelled:
                self._room.wait()

    def wait(self) -> None:
        """Wait until all is done, or given up."""
        cancellation = self._work.cancellation
        while not self._is_done and not cancellation.is_cancelled:
            self._take_finished()
        if cancellation.is_cancelled:
            self._work.pool.cancel()
            while self._work.pool.busy and not cancellation.is_overdue:
                self._take_finished()
        self._commit_batch()
        if self._fault:
            raise self._fault

    @property
    def _is_done(self) -> bool:
        return self._is_fed and self._running == 0

    def end(self) -> None:
        """End the threads, and make the report complete."""
        if self._work.cancellation.is_cancelled:
            if not self._work.pool.close(0.0) or not self._is_fed:
                self._work.retry_policy.abort_requests()
            self._work.pool.close(LAST_SECONDS)
            self.report.error = self._work.cancellation.error()
            with self._room:
                self._room.notify_all()
        else:
            self._work.pool.close()
        for slot in list(self._slots):  # not from the queue: an interrupt may have lost what it gave out
            self._note_finished(slot)
        self._commit_batch()
        self._note_in_order(at_end=True)
        self.report.seconds = time.monotonic() - self._started
        self._show(is_last=True)

    def _attempt(self, slot: _Slot) -> None:
        assert isinstance(slot.item, Transfer)
        try:
            made = slot.made = _attempt(slot.item, self._move, self._breaker)
            if isinstance(made, TransferResult):
                self._work.limit.note(made.size or 0)
        except BaseException as e:  # noqa: BLE001 - it is raised again where it can be seen
            self._fault = e  # such as a lack of memory to tell of a lack of memory
        finally:
            self._finished.append(slot)
            with self._room:
                self._running -= 1
                if self._running <= 2 * self._work.limit.allowed:  # not for each: see TICK
                    self._room.notify()
            if self._is_done or len(self._finished) >= BATCH or self._work.cancellation.is_cancelled:
                self._is_noteworthy.set()

    def _take_finished(self) -> None:
        self._is_noteworthy.wait(TICK)
        self._is_noteworthy.clear()
        while self._finished:
            self._note_finished(self._finished.popleft())
        now = time.monotonic()
        if self._batch and (len(self._batch) >= BATCH or now - self._batch_begun_at > BATCH_SECONDS):
            self._commit_batch()
        self._note_in_order()
        with self._room:  # there is room once something was noted
            self._room.notify()
        if now - self._shown_at > SHOWN_EVERY:
            self._shown_at = now
            self._show()

    def _note_finished(self, slot: _Slot) -> None:
        made = slot.made
        if (
            isinstance(made, TransferResult) and made.file is not None
        ):  # it is not done before it has its name
            if not self._batch:
                self._batch_begun_at = time.monotonic()
            self._batch[slot] = made.file
        elif made is not None:
            slot.outcome = made
        slot.made = None

    def _commit_batch(self) -> None:
        """Give the files of the batch their names, once all their bytes are on the disk."""
        slots, error = list(self._batch), None
        if not slots:
            return
        try:
            if refusal := sync_file_systems(self._batch.values()):
                self._work.warn_unsynced(refusal)
        except OSError as e:
            error = e
        for slot in slots:
            with self._batch[slot] as file:
                del self._batch[slot]  # not before: an interrupt leaves none behind
                try:
                    if error:
                        raise error
                    slot.outcome = self._work.commit(file)
                except OSError as e:
                    slot.outcome = _failure_of(slot, e)
            self._work.batch_room.release()
        _sync_names([slot.item for slot in slots if isinstance(slot.item, Transfer)])

    def _note_in_order(self, *, at_end: bool = False) -> None:
        while self._slots and (self._slots[0].outcome is not None or at_end):
            slot = self._slots.popleft()
            if isinstance(slot.outcome, Failure):
                if not isinstance(slot.outcome.error, StoppedError):
                    self.report.note_failure(slot.outcome)
            elif slot.outcome is not None:
                assert isinstance(slot.item, Transfer)
                self.report.note(slot.item, slot.outcome)

    def _show(self, *, is_last: bool = False) -> None:
        report, work = self.report, self._work
        seconds = time.monotonic() - self._started
        progress = Progress(
            report.count + len(report.unstable),
            report.failed_count,
            report.skipped + len(report.unstable),
            work.size,
            seconds,
            self._total,
            work.limit.allowed,
            is_last,
        )
        work.options.progress(progress)


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


def _attempt(item: Transfer, move: Move, breaker: _Breaker) -> TransferResult | Failure:
    try:
        breaker.check()
        moved = move(item)
        breaker.note(None)
    except PfstorageError as e:
        breaker.note(e)
        log.debug("%r, %r failed: %s", item.key, item.path, e)
        return Failure(item.key, item.path, e)
    except Exception as e:  # noqa: BLE001 - it is logged
        return Failure(item.key, item.path, unexpected_error(e, "a transfer"))
    log.debug("%r, %r: %s", item.key, item.path, moved.verdict or f"{moved.size} bytes")
    return moved


class _Breaker:
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
