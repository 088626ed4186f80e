"""Works off jobs, so many at once, the owners in turns."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pfstorage.errors import (
    BusyError,
    LocalFileError,
    PfstorageError,
    StoppedError,
    TooLargeError,
    UnknownJobError,
)
from pfstorage.jobs import limits as bounds
from pfstorage.jobs.final_states import Ends
from pfstorage.jobs.limits import Limits
from pfstorage.jobs.model import CANCELLED, DONE, QUEUED, RUNNING, Job, Order
from pfstorage.jobs.queue import Queue, QueuedJob
from pfstorage.jobs.rows import packed_message
from pfstorage.jobs.run import FIRST_PAUSE, Perform, Run
from pfstorage.jobs.store import JobStore
from pfstorage.jobs.stored_reply import kept
from pfstorage.runtime.unexpected import unexpected_error
from pfstorage.wire.reply import Reply

log = logging.getLogger(__name__)

_CONDITIONS = 64
"""How many conditions those who follow jobs share: who follows one is seldom woken for another."""
HEARTBEAT = 15.0
"""Seconds after which an event is repeated where nothing happens: whoever passes it on sees if nobody listens."""


class Jobs:
    """The jobs of one process, kept in *directory*, or in a file that ends with it. Any thread may call a method.

    What the file can't do is a `LocalFileError`; a job that there isn't, an `UnknownJobError`.
    Reading waits for no lock: `_lock` is for changes, also while the file is written, and `_changed` is never held
    while the file is read or written.
    """

    def __init__(
        self,
        perform: Perform,
        directory: str = "",
        *,
        repairs: bool = False,
        clock: Callable[[], float] = time.time,
        **limits: Any,
    ) -> None:
        """Open the file; one that can't be read is set aside if it *repairs* that. *limits* are those of `Limits`.

        Raise `SettingsError` or `StateFileError`.
        """
        self.survives = bool(directory)
        self._perform = perform
        self._limits = Limits(**limits)
        self._clock = clock
        self._lock = threading.RLock()
        self._changed = threading.Condition()
        self._news = [threading.Condition() for _ in range(_CONDITIONS)]
        self._queue = Queue()
        self._runs: dict[str, Run] = {}
        self._is_started = self._is_closed = False
        self._store = JobStore(directory, repairs=repairs)
        self._ends = Ends(self._store, self._limits, clock)

    def start(self) -> None:
        """Begin to work, with what an earlier process has left."""
        with self._lock:
            for place in self._store.resume(self._clock()):
                self._queue.add(place)
            self._is_started = True
            self._start_waiting()
        threading.Thread(target=self._sweep_unasked, name="jobs", daemon=True).start()

    def submit(self, order: Order) -> str:
        """Queue *order*; return the id of its job. The same jid of the same owner is the same job.

        Raise `JobConflictError` if that job has another message, `BusyError` if there are too
        many, `TooLargeError` if the message alone is too much, `StoppedError` if the process ends.
        """
        message = packed_message(order.message)
        with self._lock:
            self._require_open()
            self._sweep()
            if not (order.jid and self._store.id_of(order.jid, order.owner, of_all=False)):
                self._require_room(order.owner, len(message.data))
            job_id, is_new = self._store.add(order, message, self._clock())
            if is_new:
                self._queue.add(QueuedJob(job_id, order.owner, len(message.data), message.size))
                self._start_waiting()
            return job_id

    def _require_room(self, owner: str, size: int) -> None:
        """Raise `BusyError` or `TooLargeError` if a message of *size* bytes of *owner* can't wait as well."""
        queue, limits = self._queue, self._limits
        if size > limits.most_bytes_of_one:
            raise TooLargeError(f"the message takes {size} bytes, and --maxJobBytes allows fewer")
        of_one, bytes_of_one = queue.count_of(owner), queue.bytes_of(owner)
        if len(queue) >= bounds.MOST_QUEUED or of_one >= bounds.MOST_QUEUED_OF_ONE:
            raise BusyError(f"{of_one} of your jobs are waiting: try again later")
        if bytes_of_one + size > limits.most_bytes_of_one or queue.all_bytes + size > limits.most_bytes:
            text = (
                f"{of_one} of your jobs are waiting, with {bytes_of_one} bytes of messages: try again later"
            )
            raise BusyError(text)

    def find(self, jid: str, owner: str, *, of_all: bool = False) -> str:
        """Return the id of *owner*'s job of that jid; *of_all*: or of somebody else's."""
        self._require_open()
        job_id = self._store.id_of(jid, owner, of_all=of_all) if jid.isprintable() else None
        if job_id is None:
            raise UnknownJobError(f"there is no job with the jid {jid[:80]!r}", jid=jid[:80])
        return job_id

    def status(self, job_id: str, wait: float = 0.0) -> Job:
        """Return a job as it is now, or as soon as it is over, *wait* seconds later at most.

        Raise `StoppedError` if the process ends meanwhile.
        """
        with (news := self._news_of(job_id)):
            news.wait_for(lambda: self._is_closed or not self._is_unfinished(job_id), wait)
        return self._read(job_id)

    def list(self, limit: int, owner: str | None = None, prefix: str = "") -> list[Job]:
        """Return the last *limit* jobs without their replies, the latest first: *owner*'s, or all.

        Those that are for other keys than those that begin with *prefix* are left out.
        """
        self._require_open()
        unsaved = dict(self._ends.unsaved)
        jobs = self._store.latest(limit, owner, prefix)
        listed = [replace(unsaved[job.id], reply=None) if job.id in unsaved else job for job in jobs]
        return [self._with_progress(job) for job in listed]

    def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state."""
        self._require_open()
        unsaved = list(self._ends.unsaved.values())
        counts = self._store.counts()
        for job in unsaved:
            counts[RUNNING] -= 1
            counts[job.state] += 1
        return counts

    def cancel(self, job_id: str) -> Job:
        """See that a job ends soon, whatever becomes of this process; return it. One that is over stays as it is."""
        with self._lock:
            self._require_open()
            if job_id in self._queue:
                self._store.finish(job_id, CANCELLED, self._clock(), {})
                self._queue.remove(job_id)
                self._announce(job_id)
            elif run := self._runs.get(job_id):
                run.is_cancelled = True
                run.cancellation.cancel("the job was cancelled")
                self._store.note_unwanted(job_id)
        return self._read(job_id)

    def events(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Yield what there is to tell of a job: now, at each change, and every `HEARTBEAT` seconds.

        Changes of its progress come about once a second. The last one has the final state and the
        reply, unless the process ends before.
        """
        self.status(job_id)  # raises now, not when the first event is asked for
        return self._events(job_id)

    def close(self, grace: float) -> None:
        """Take no more, and stop what runs: it is queued for the next process. Nobody waits any longer.

        What does not end within *grace* seconds is left alone, and queued as well.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            for run in self._runs.values():
                run.cancellation.cancel("the server ends")
        for news in self._news:
            _wake(news)
        with self._changed:
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._runs, grace)
        with self._lock:
            for run in self._runs.values():
                self._ends.keep(run, CANCELLED if run.is_cancelled else QUEUED)
            self._runs.clear()
            self._ends.save()
            self._store.close()

    def _events(self, job_id: str) -> Iterator[dict[str, Any]]:
        version = None
        while True:
            with (news := self._news_of(job_id)):
                news.wait_for(functools.partial(self._is_news, job_id, version), HEARTBEAT)
            try:
                version, job = self._version(job_id), self._read(job_id)
            except StoppedError:
                return
            yield job.as_body()
            if job.is_over:
                return

    def _is_news(self, job_id: str, version: object) -> bool:
        return self._is_closed or self._version(job_id) != version

    def _version(self, job_id: str) -> object:
        """Return what differs from one state of a job to the next that is worth an event."""
        run = self._runs.get(job_id)
        return run.changes if run else QUEUED if job_id in self._queue else DONE

    def _is_unfinished(self, job_id: str) -> bool:
        return job_id in self._queue or job_id in self._runs

    def _read(self, job_id: str) -> Job:
        self._require_open()
        if (run := self._runs.get(job_id)) and run.job:
            return replace(run.job, progress=run.progress)
        # in this order: what is over is in the file before it is no longer here
        job = self._ends.unsaved.get(job_id) or (self._store.read(job_id) if job_id.isprintable() else None)
        if job is None:
            raise UnknownJobError(f"there is no job {job_id[:80]!r}", job=job_id[:80])
        return self._with_progress(job)

    def _require_open(self) -> None:
        if self._is_closed:
            raise StoppedError("the server ends: its jobs go on when it is there again")

    def _with_progress(self, job: Job) -> Job:
        run = self._runs.get(job.id)
        return replace(job, progress=run.progress) if run and not job.is_over else job

    def _news_of(self, job_id: str) -> threading.Condition:
        return self._news[hash(job_id) % len(self._news)]

    def _announce(self, job_id: str) -> None:
        _wake(self._news_of(job_id))

    def _start_waiting(self) -> None:
        limits = self._limits
        while self._is_started and not self._is_closed:
            at_work = [run.place for run in self._runs.values()]
            place = self._queue.next(at_work, limits.most, limits.most_of_one or limits.most)
            if place is None:
                return
            run = Run(place, self._tell)
            thread = threading.Thread(target=self._work, args=(run,), name=f"job {run.job_id}", daemon=True)
            try:
                thread.start()  # its first step waits for the lock
            except RuntimeError as e:  # there can be no more threads now
                log.error("job %s waits on: %s", run.job_id, e)
                return
            self._runs[run.job_id] = run  # before it leaves the queue: whoever looks finds it in one of both
            self._queue.take(place)

    def _work(self, run: Run) -> None:
        try:
            run.job, order = self._begun(run)
            reply = run.perform(self._perform, order)
            del order  # it may be long
            answer = kept(reply)
        except Exception as e:  # noqa: BLE001 - it is logged
            error = e if isinstance(e, PfstorageError) else unexpected_error(e, "a job")
            reply = Reply.from_error(error)
            answer = kept(reply)
        with self._lock:
            if self._runs.get(run.job_id) is run:  # else it was left alone
                state = run.final_state(reply, is_closed=self._is_closed)
                log.log(*run.in_words(state, reply, survives=self.survives))
                self._ends.keep(run, state, answer, str(reply.body.get("msg", "")))
                del self._runs[run.job_id]
                self._sweep()
                self._start_waiting()
                self._announce(run.job_id)
                _wake(self._changed)

    def _begun(self, run: Run) -> tuple[Job, Order]:
        """Note that a job runs, as soon as that can be noted: the disk may be full. Raise `StoppedError`."""
        while True:
            with self._lock:
                try:
                    job, order = self._store.begin(run.job_id, self._clock())
                    log.info("job %s begins: %s%s", run.job_id, job.action, run.for_whom)
                    run.changes += 1
                    self._announce(run.job_id)
                    return job, order
                except LocalFileError as e:
                    log.error("job %s can't be begun yet: %s", run.job_id, e)
            with self._changed:
                if self._changed.wait_for(lambda: self._is_closed, FIRST_PAUSE):
                    raise StoppedError("the server ends")

    def _tell(self, run: Run) -> None:
        """Have those who follow a job see what is new of it, and the file as well."""
        with self._lock:
            if self._runs.get(run.job_id) is not run:
                return
            run.changes += 1
            self._announce(run.job_id)
            try:
                self._store.note_progress(run.job_id, run.progress)
            except PfstorageError as e:
                log.warning("the progress of job %s can't be kept: %s", run.job_id, e)

    def _sweep_unasked(self) -> None:
        """Sweep until the end, also where nobody asks: what is kept may name patients."""
        while not self._is_closed:
            with self._lock:
                self._sweep()
            is_urgent = self._ends.unsaved or self._queue
            pause = FIRST_PAUSE if is_urgent else max(1.0, self._ends.pause)
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed, pause)

    def _sweep(self) -> None:
        """Do what could not be done before, and, now and then, remove what was over long ago, or is too much."""
        if not self._is_closed:
            self._ends.save()
            self._start_waiting()
            self._ends.forget()


def _wake(condition: threading.Condition) -> None:
    with condition:
        condition.notify_all()
