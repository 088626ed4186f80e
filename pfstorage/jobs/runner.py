"""Works off jobs, so many at once, in the order of their arrival."""

from __future__ import annotations

import functools
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pfstorage.errors import (
    BusyError,
    LocalFileError,
    PfstorageError,
    StoppedError,
    UnknownJobError,
)
from pfstorage.jobs.job import CANCELLED, DONE, QUEUED, RUNNING, Job, Order
from pfstorage.jobs.outcome import kept
from pfstorage.jobs.run import FIRST_PAUSE, Perform, Run
from pfstorage.jobs.store import JobStore
from pfstorage.reply import Reply

log = logging.getLogger(__name__)

TTL = 7 * 86400.0
MOST_AT_ONCE = 4
MOST_QUEUED = 10_000
MOST_QUEUED_OF_ONE = 1000
MOST_KEPT = 10_000
"""Jobs that are over, and not yet old enough to be removed."""
SWEPT_EVERY = 60.0
HEARTBEAT = 15.0
"""Seconds after which an event is repeated where nothing happens: whoever passes it on sees if nobody listens."""


class Jobs:
    """The jobs of one process, kept in *directory*, or only in memory. Any thread may call a method.

    What the file can't do is a `LocalFileError`; a job that there isn't, an `UnknownJobError`.
    """

    def __init__(
        self,
        perform: Perform,
        directory: str = "",
        *,
        ttl: float = TTL,
        most: int = MOST_AT_ONCE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Run *most* at once; forget them *ttl* seconds after their end. Raise `SettingsError` or `StateFileError`."""
        self.survives = bool(directory)
        self._perform = perform
        self._ttl = ttl
        self._most = most
        self._clock = clock
        self._swept_at = float("-inf")
        self._changed = threading.Condition(threading.RLock())
        self._waiting: dict[str, str] = {}  # whose each is, in the order of arrival
        self._runs: dict[str, Run] = {}
        self._unsaved: dict[str, Job] = {}  # they are over, and the file could not take that
        self._is_started = self._is_closed = False
        self._store = JobStore(directory)

    def start(self) -> None:
        """Begin to work, with what an earlier process has left."""
        with self._changed:
            self._waiting = self._store.resume(self._clock())
            self._is_started = True
            self._start_waiting()
        threading.Thread(target=self._sweep_unasked, name="jobs", daemon=True).start()

    def submit(self, order: Order) -> str:
        """Queue *order*; return the id of its job. The same jid of the same owner is the same job.

        Raise `JobConflictError` if that job has another message, `BusyError` if there are too
        many, `StoppedError` if the process ends.
        """
        with self._changed:
            self._sweep()
            if self._is_closed:
                raise StoppedError("the server ends: send the message when it is there again")
            of_one = sum(owner == order.owner for owner in self._waiting.values())
            is_full = len(self._waiting) >= MOST_QUEUED or of_one >= MOST_QUEUED_OF_ONE
            if is_full and not (order.jid and self._store.id_of(order.jid, order.owner, of_all=False)):
                raise BusyError(f"{of_one} of your jobs are waiting: try again later")
            job, is_new = self._store.add(order, self._clock())
            if is_new:
                self._waiting[job.id] = order.owner
                self._start_waiting()
                self._changed.notify_all()
            return job.id

    def find(self, jid: str, owner: str, *, of_all: bool = False) -> str:
        """Return the id of *owner*'s job of that jid; *of_all*: or of somebody else's."""
        with self._changed:
            self._require_open()
            job_id = self._store.id_of(jid, owner, of_all=of_all) if jid.isprintable() else None
        if job_id is None:
            raise UnknownJobError(f"there is no job with the jid {jid[:80]!r}", jid=jid[:80])
        return job_id

    def status(self, job_id: str, wait: float = 0.0) -> Job:
        """Return a job as it is now, or as soon as it is over, *wait* seconds later at most.

        Raise `StoppedError` if the process ends meanwhile.
        """
        with self._changed:
            self._sweep()
            self._changed.wait_for(lambda: self._is_closed or not self._is_unfinished(job_id), wait)
            return self._read(job_id)

    def list(self, limit: int, owner: str | None = None, prefix: str = "") -> list[Job]:
        """Return the last *limit* jobs without their replies, the latest first: *owner*'s, or all.

        Those that are for other keys than those that begin with *prefix* are left out.
        """
        with self._changed:
            self._require_open()
            self._sweep()
            return [self._as_it_is(job) for job in self._store.latest(limit, owner, prefix)]

    def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state."""
        with self._changed:
            self._require_open()
            self._save_ends()
            counts = self._store.counts()
            for job in self._unsaved.values():
                counts[RUNNING] -= 1
                counts[job.state] += 1
            return counts

    def cancel(self, job_id: str) -> Job:
        """See that a job ends soon, whatever becomes of this process; return it. One that is over stays as it is."""
        with self._changed:
            self._require_open()
            if job_id in self._waiting:
                self._store.finish(job_id, CANCELLED, self._clock(), {})
                del self._waiting[job_id]
                self._changed.notify_all()
            elif job_id in self._runs:
                self._runs[job_id].is_cancelled = True
                self._runs[job_id].stop.request("the job was cancelled")
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
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            for run in self._runs.values():
                run.stop.request("the server ends")
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._runs, grace)
            for run in self._runs.values():
                self._end(run, CANCELLED if run.is_cancelled else QUEUED)
            self._runs.clear()
            self._save_ends()
            self._store.close()

    def _events(self, job_id: str) -> Iterator[dict[str, Any]]:
        version = None
        while not self._is_closed:
            with self._changed:
                self._changed.wait_for(functools.partial(self._is_news, job_id, version), HEARTBEAT)
                if self._is_closed:
                    return
                version, job = self._version(job_id), self._read(job_id)
            yield job.as_body()
            if job.is_over:
                return

    def _is_news(self, job_id: str, version: object) -> bool:
        return self._is_closed or self._version(job_id) != version

    def _version(self, job_id: str) -> object:
        """Return what differs from one state of a job to the next that is worth an event."""
        run = self._runs.get(job_id)
        return run.changes if run else QUEUED if job_id in self._waiting else DONE

    def _is_unfinished(self, job_id: str) -> bool:
        return job_id in self._waiting or job_id in self._runs

    def _read(self, job_id: str) -> Job:
        self._require_open()
        job = self._unsaved.get(job_id) or (self._store.read(job_id) if job_id.isprintable() else None)
        if job is None:
            raise UnknownJobError(f"there is no job {job_id[:80]!r}", job=job_id[:80])
        return self._as_it_is(job)

    def _require_open(self) -> None:
        if self._is_closed:
            raise StoppedError("the server ends: its jobs go on when it is there again")

    def _as_it_is(self, job: Job) -> Job:
        run = self._runs.get(job.id)
        return replace(job, progress=run.progress) if run else self._unsaved.get(job.id, job)

    def _start_waiting(self) -> None:
        while self._is_started and not self._is_closed and self._waiting and len(self._runs) < self._most:
            job_id = self._next()
            run = Run(job_id, self._waiting[job_id], self._tell)
            thread = threading.Thread(target=self._work, args=(run,), name=f"job {job_id}", daemon=True)
            try:
                thread.start()  # its first step waits for the lock
            except RuntimeError as e:  # there can be no more threads now
                log.error("job %s waits on: %s", job_id, e)
                return
            del self._waiting[job_id]
            self._runs[job_id] = run

    def _next(self) -> str:
        """Return the job to begin: the first of those whose owners have the fewest at work."""
        at_work = Counter(run.owner for run in self._runs.values())
        return min(self._waiting, key=lambda job_id: at_work[self._waiting[job_id]])

    def _work(self, run: Run) -> None:
        try:
            run.job = self._begun(run)
            reply = run.perform(self._perform, run.job.order)
            text = kept(reply)
        except Exception as e:
            if isinstance(e, PfstorageError):
                error = e
            else:
                log.exception("a job failed for a reason that pfstorage does not know")
                error = PfstorageError(f"unexpected {type(e).__name__}; the log has the details")
            reply = Reply.of_error(error)
            text = kept(reply)
        with self._changed:
            if self._runs.get(run.job_id) is run:  # else it was left alone
                state = run.final_state(reply, is_closed=self._is_closed)
                log.log(*run.in_words(state, reply, survives=self.survives))
                self._end(run, state, text)
                del self._runs[run.job_id]
                self._start_waiting()
                self._changed.notify_all()

    def _begun(self, run: Run) -> Job:
        """Note that a job runs, as soon as that can be noted: the disk may be full. Raise `StoppedError`."""
        while True:
            with self._changed:
                try:
                    job = self._store.begin(run.job_id, self._clock())
                    log.info("job %s begins: %s%s", run.job_id, job.order.message["action"], run.for_whom)
                    run.changes += 1
                    self._changed.notify_all()
                    return job
                except LocalFileError as e:
                    log.error("job %s can't be begun yet: %s", run.job_id, e)
                if self._changed.wait_for(lambda: self._is_closed, FIRST_PAUSE):
                    raise StoppedError("the server ends")

    def _end(self, run: Run, state: str, reply: str | None = None) -> None:
        """Keep what a job has come to. If the file can't, memory does until it can, or the job is done anew."""
        now = self._clock()
        try:
            if state == QUEUED:
                self._store.park(run.job_id)
            else:
                self._store.finish(run.job_id, state, now, run.progress, reply)
        except PfstorageError as e:
            log.error("job %s is %s, and that can't be kept: %s", run.job_id, state, e)
            if run.job and reply:
                over = replace(run.job, state=state, finished=now, progress=run.progress)
                answer = json.loads(reply)
                reason = "" if state == DONE else answer.get("msg", "")
                self._unsaved[run.job_id] = replace(over, reply=answer, reason=reason)

    def _tell(self, run: Run) -> None:
        """Have those who follow a job see what is new of it, and the file as well."""
        with self._changed:
            if self._runs.get(run.job_id) is not run:
                return
            run.changes += 1
            self._changed.notify_all()
            try:
                self._store.note_progress(run.job_id, run.progress)
            except PfstorageError as e:
                log.warning("the progress of job %s can't be kept: %s", run.job_id, e)

    def _save_ends(self) -> None:
        """Have the file take the ends that it could not take before, if it can now."""
        try:
            for job in list(self._unsaved.values()):
                self._store.finish(
                    job.id, job.state, job.finished or self._clock(), job.progress, json.dumps(job.reply)
                )
                del self._unsaved[job.id]
                log.info("the end of job %s is kept now", job.id)
        except LocalFileError as e:
            log.debug("ends of jobs can't be kept yet: %s", e)

    def _sweep_unasked(self) -> None:
        """Sweep until the end, also where nobody asks: what is kept may name patients."""
        pause = max(1.0, min(SWEPT_EVERY, self._ttl))
        with self._changed:
            while not self._changed.wait_for(lambda: self._is_closed, pause):
                self._sweep()

    def _sweep(self) -> None:
        """Do what could not be done before, and, now and then, remove what was over long ago."""
        self._save_ends()
        self._start_waiting()
        now = self._clock()
        if self._is_closed or now - self._swept_at < min(SWEPT_EVERY, self._ttl):
            return
        self._swept_at = now
        try:
            if count := self._store.remove_finished(now - self._ttl, MOST_KEPT):
                log.info("jobs that are over and forgotten: %d, see --jobTtl", count)
        except LocalFileError as e:
            log.warning("jobs that were over long ago can't be forgotten yet: %s", e)
