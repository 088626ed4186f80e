"""Run a plan: transfer several files at once, and report them in the order of the plan."""

from __future__ import annotations

import functools
import threading
import time
from collections import deque

from pfstorage.errors import PfstorageError, StoppedError
from pfstorage.transfer.batch import BATCH_SIZE, CommitBatch, Slot
from pfstorage.transfer.breaker import CircuitBreaker, TransferOne
from pfstorage.transfer.context import TransferContext
from pfstorage.transfer.plan import Failure, Plan, Progress, Transfer, TransferReport, TransferResult

# Finished files that may wait for the report behind an unfinished one, so that a large file does not delay others.
MAX_WAITING = 10_000
# Seconds between two looks of the caller's thread at finished files. It does not wake up for each file: it would take
# the interpreter's lock from the workers.
POLL_INTERVAL = 0.1
REPORT_INTERVAL = 0.2
# Seconds for which the first file waits for a second one in the plan. A plan of one file needs no worker thread.
HOLD_SECONDS = 0.02
# Seconds until the end of aborted transfers. With the grace time of a cancellation, a run ends within 5 s.
CLOSE_SECONDS = 2.5


def run(
    plan: Plan, transfer_one: TransferOne, context: TransferContext, report: TransferReport | None = None
) -> TransferReport:
    """Call *transfer_one* for each transfer of *plan* in the worker threads, and return the report.

    The report has the results in the order of *plan*. It is *report* if given. A failure is an entry of the report and
    does not end the run, unless all further files would fail, too. If the plan itself fails, or the run is cancelled,
    the report has the finished files, and `TransferReport.error` is the reason. A cancelled run returns within 5 s.
    """
    engine = _Engine(transfer_one, context, report or TransferReport(context.options.keep_names))
    with (
        context.cancellation.listening(),
        context.options.worker_budget.registered(lambda: context.pool.busy),
    ):
        try:
            engine.start(plan)
            engine.wait()
        except BaseException:  # such as KeyboardInterrupt without a signal handler
            context.cancellation.cancel("an error")
            raise
        finally:
            engine.end()
    return engine.report


class _Engine:
    """The threads that run a plan: a feeder reads it, workers transfer files, the caller's thread reports."""

    def __init__(self, transfer_one: TransferOne, context: TransferContext, report: TransferReport) -> None:
        self.report = report
        self._context = context
        self._breaker = CircuitBreaker(transfer_one, max(context.concurrency.allowed, 3))
        self._slots: deque[Slot] = deque()  # in the order of the plan
        self._finished: deque[Slot] = deque()  # in the order of their ends
        self._wake_up = threading.Event()  # set if the caller's thread must not wait for the next tick
        self._room = threading.Condition()
        self._running = 0
        self._first: Slot | None = None  # waits for a second file
        self._total: int | None = None  # None while the plan goes on
        self._is_plan_read = False
        self._unexpected_error: BaseException | None = None
        self._batch = CommitBatch(context)
        self._started = self._shown_at = time.monotonic()

    def start(self, plan: Plan) -> None:
        """Start to read *plan* in a thread, only a little further than the workers need."""
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
                self._add(Slot(item), is_first=count == 1)
            else:
                self._total = count
        except PfstorageError as e:
            if not self._context.cancellation.is_cancelled:  # otherwise, the cancellation is the reason
                self.report.error = e
        except BaseException as e:  # noqa: BLE001 - the caller's thread raises it
            self._unexpected_error = e
        finally:
            if (first := self._take_first()) and not self._context.cancellation.is_cancelled:
                self._running += 1  # no other file is at work
                self._context.pool.run(functools.partial(self._attempt, first))
            self._is_plan_read = True
            self._wake_up.set()

    def _add(self, slot: Slot, *, is_first: bool) -> None:
        """Let a worker transfer the file of *slot*, but hold the first one back."""
        self._slots.append(slot)
        if slot.final is None and is_first:
            self._first = slot
        elif slot.final is None:
            if self._first:
                self._submit_first()
            self._submit(slot)

    def _submit(self, slot: Slot) -> None:
        self._context.pool.submit(functools.partial(self._attempt, slot))
        with self._room:
            self._running += 1

    def _take_first(self) -> Slot | None:
        """Return the slot that is held back, and hold it no longer."""
        with self._room:
            slot, self._first = self._first, None
        return slot

    def _submit_first(self) -> None:
        if slot := self._take_first():
            self._submit(slot)

    def _is_full(self) -> bool:
        return self._running > 4 * self._context.concurrency.allowed or len(self._slots) > MAX_WAITING

    def _await_room(self) -> None:
        with self._room:
            while self._is_full() and not self._context.cancellation.is_cancelled:
                self._room.wait()

    def wait(self) -> None:
        """Wait until all files are done, or the run is cancelled and its grace time is over."""
        cancellation = self._context.cancellation
        if not self._wake_up.wait(HOLD_SECONDS):
            self._submit_first()
        while not self._is_done and not cancellation.is_cancelled:
            self._take_finished()
        if cancellation.is_cancelled:
            self._context.pool.cancel()
            while self._context.pool.busy and not cancellation.is_overdue:
                self._take_finished()
        self._batch.commit()
        if self._unexpected_error:
            raise self._unexpected_error

    @property
    def _is_done(self) -> bool:
        return self._is_plan_read and self._running == 0

    def end(self) -> None:
        """End the threads, and complete the report."""
        context = self._context
        if context.cancellation.is_cancelled:
            if not context.pool.close(0.0) or not self._is_plan_read:
                context.retry_policy.abort_requests()
            context.pool.close(CLOSE_SECONDS)
            self.report.error = context.cancellation.error()
            with self._room:
                self._room.notify_all()
        else:
            context.pool.close()
        for slot in list(self._slots):  # not `_finished`: an interrupt may have lost one between pop and use
            self._note_finished(slot)
        self._batch.commit()
        self._report_in_order(at_end=True)
        self.report.seconds = time.monotonic() - self._started
        self._show_progress(is_last=True)

    def _attempt(self, slot: Slot) -> None:
        """Transfer one file in a worker thread."""
        assert isinstance(slot.item, Transfer)
        try:
            result = slot.result = self._breaker.attempt(slot.item)
            if isinstance(result, TransferResult):
                self._context.concurrency.note(result.size or 0)
        except BaseException as e:  # noqa: BLE001 - the caller's thread raises it
            self._unexpected_error = e  # such as a MemoryError while another error is handled
        finally:
            self._finished.append(slot)
            with self._room:
                self._running -= 1
                if (
                    self._running <= 2 * self._context.concurrency.allowed
                ):  # not for each file: see POLL_INTERVAL
                    self._room.notify()
            is_batch_full = len(self._finished) >= BATCH_SIZE
            if self._is_done or is_batch_full or self._context.cancellation.is_cancelled:
                self._wake_up.set()

    def _take_finished(self) -> None:
        self._wake_up.wait(POLL_INTERVAL)
        self._wake_up.clear()
        while self._finished:
            self._note_finished(self._finished.popleft())
        if self._batch.is_due:
            self._batch.commit()
        self._report_in_order()
        with self._room:  # the report has made room
            self._room.notify()
        now = time.monotonic()
        if now - self._shown_at > REPORT_INTERVAL:
            self._shown_at = now
            self._show_progress()

    def _note_finished(self, slot: Slot) -> None:
        result = slot.result
        if isinstance(result, TransferResult) and result.file is not None:
            self._batch.add(slot, result.file)
        elif result is not None:
            slot.final = result
        slot.result = None

    def _report_in_order(self, *, at_end: bool = False) -> None:
        """Move finished slots from the front of the plan to the report. *at_end*: leave out unfinished ones."""
        while self._slots and (self._slots[0].final is not None or at_end):
            slot = self._slots.popleft()
            if isinstance(slot.final, Failure):
                if not isinstance(slot.final.error, StoppedError):
                    self.report.note_failure(slot.final)
            elif slot.final is not None:
                assert isinstance(slot.item, Transfer)
                self.report.note(slot.item, slot.final)

    def _show_progress(self, *, is_last: bool = False) -> None:
        report, context = self.report, self._context
        context.options.progress(
            Progress(
                report.count + len(report.unstable),
                report.failed_count,
                report.skipped + len(report.unstable),
                context.size,
                time.monotonic() - self._started,
                self._total,
                context.concurrency.allowed,
                is_last,
            )
        )
