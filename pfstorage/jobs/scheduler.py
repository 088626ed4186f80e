"""The scheduler: accept jobs, run several at once with the owners in turns, and report on them."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pfstorage.errors import LocalFileError, PfstorageError, StoppedError, UnknownJobError
from pfstorage.jobs.finished import FinishedJobs
from pfstorage.jobs.model import CANCELLED, DONE, QUEUED, RUNNING, Job, JobLimits, JobRequest
from pfstorage.jobs.notifications import JobNotifier, notify_all
from pfstorage.jobs.queue import JobQueue, QueuedJob
from pfstorage.jobs.rows import pack_message
from pfstorage.jobs.running import FIRST_RETRY_PAUSE, JobRunner, RunningJob
from pfstorage.jobs.store import JobStore
from pfstorage.jobs.stored_reply import pack_reply
from pfstorage.runtime.unexpected import unexpected_error
from pfstorage.wire.reply import Reply

log = logging.getLogger(__name__)

# Seconds after which an event is repeated without a change. The server detects a lost client when it sends one.
HEARTBEAT = 15.0


class JobScheduler:
    """The scheduler of the jobs of one process. Any thread may call a method.

    A method raises `LocalFileError` if it can't read or write the file of the jobs, `UnknownJobError` for an unknown
    job, and `StoppedError` after `close`.

    Locks: `_lock` guards changes, and is held while the file is written. Readers take no lock: a job is always in the
    queue, among the running jobs or in the file. `_changed` is never held while the file is read or written.
    """

    def __init__(
        self,
        runner: JobRunner,
        directory: str = "",
        *,
        repairs: bool = False,
        clock: Callable[[], float] = time.time,
        **limits: Any,
    ) -> None:
        """Open the file of the jobs in *directory*. Without one, the jobs end with the process.

        *runner* runs the message of a job. With *repairs*, a damaged file is renamed, and a new one is made. *limits*
        are the fields of `JobLimits`. Raise `SettingsError`, or `StateFileError` if another process uses the file.
        """
        self.is_persistent = bool(directory)
        self._runner = runner
        self._limits = JobLimits(**limits)
        self._clock = clock
        self._lock = threading.RLock()
        self._changed = threading.Condition()
        self._notifier = JobNotifier()
        self._queue = JobQueue()
        self._running: dict[str, RunningJob] = {}
        self._is_started = self._is_closed = False
        self._store = JobStore(directory, repairs=repairs)
        self._finished = FinishedJobs(self._store, self._limits, clock)

    def start(self) -> None:
        """Start to run jobs, those of an earlier process first."""
        with self._lock:
            for queued in self._store.resume(self._clock()):
                self._queue.add(queued)
            self._is_started = True
            self._start_queued()
        threading.Thread(target=self._sweep_periodically, name="jobs", daemon=True).start()

    def submit(self, request: JobRequest) -> str:
        """Queue *request*, and return the id of its job. The job is in the file before this returns.

        If its owner has a job of the same jid, return the id of that job. Raise `JobConflictError` if that job has
        another message or origin, `BusyError` if too many jobs wait, `TooLargeError` if the message alone exceeds
        the limits.
        """
        message = pack_message(request.message)
        with self._lock:
            self._require_open()
            self._sweep()
            if not (request.jid and self._store.find_id(request.jid, request.owner, any_owner=False)):
                self._queue.require_room(request.owner, len(message.data), self._limits)
            job_id, is_new = self._store.add(request, message, self._clock())
            if is_new:
                self._queue.add(QueuedJob(job_id, request.owner, len(message.data), message.size))
                self._start_queued()
            return job_id

    def find(self, jid: str, owner: str, *, any_owner: bool = False) -> str:
        """Return the id of *owner*'s job of that jid. With *any_owner*, fall back to the latest of another owner."""
        self._require_open()
        job_id = self._store.find_id(jid, owner, any_owner=any_owner) if jid.isprintable() else None
        if job_id is None:
            raise UnknownJobError(f"there is no job with the jid {jid[:80]!r}", jid=jid[:80])
        return job_id

    def status(self, job_id: str, wait: float = 0.0) -> Job:
        """Return the job with its reply. Wait up to *wait* seconds for its end."""
        self._notifier.wait_for(
            job_id, lambda: self._is_closed or not (job_id in self._queue or job_id in self._running), wait
        )
        return self._read(job_id)

    def list(self, limit: int, owner: str | None = None, prefix: str = "") -> list[Job]:
        """Return up to *limit* jobs without their replies, the latest first.

        Return those of *owner*, or of all owners if it is None, and only those whose permissions are for keys that
        begin with *prefix*.
        """
        self._require_open()
        unsaved = dict(self._finished.unsaved)
        jobs = self._store.latest(limit, owner, prefix)
        changed = unsaved.keys() | self._running.keys()
        return [self._current(job, unsaved) if job.id in changed else job for job in jobs]

    def counts(self) -> dict[str, int]:
        """Return the number of jobs in each state."""
        self._require_open()
        counts = self._store.counts()
        # afterwards: otherwise, a state that is saved in between would count twice
        for job in list(self._finished.unsaved.values()):
            counts[RUNNING] -= 1
            counts[job.state] += 1
        return counts

    def cancel(self, job_id: str) -> Job:
        """Cancel a job, and return it. A running job ends soon, and no later process resumes it.

        A finished job does not change.
        """
        with self._lock:
            self._require_open()
            if job_id in self._queue:
                self._store.finish(job_id, CANCELLED, self._clock(), {})
                self._queue.remove(job_id)
                self._notifier.notify(job_id)
            elif running := self._running.get(job_id):
                running.is_cancelled = True
                running.cancellation.cancel("the job was cancelled")
                self._store.note_cancelled(job_id)
        return self._read(job_id)

    def events(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Yield the members of a ``jobStatus`` reply: now, after each change, and every `HEARTBEAT` seconds.

        The progress changes about once a second. The last event has the final state and the reply. `close` ends the
        iterator earlier. Raise `UnknownJobError` at once, not with the first event.
        """
        self.status(job_id)
        return self._events(job_id)

    def close(self, grace: float) -> None:
        """Accept no more jobs, stop the running ones, and close the file. Waiting threads get `StoppedError`.

        Stopped jobs are queued for the next process, and so are jobs that do not end within *grace* seconds.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            for running in self._running.values():
                running.cancellation.cancel("the server ends")
        self._notifier.notify_all()
        with self._changed:
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._running, grace)
        with self._lock:
            for running in self._running.values():
                self._finished.record(running, CANCELLED if running.is_cancelled else QUEUED)
            self._running.clear()
            self._finished.save()
            self._store.close()

    def _events(self, job_id: str) -> Iterator[dict[str, Any]]:
        version = None
        while True:
            has_changed = functools.partial(self._has_changed, job_id, version)
            self._notifier.wait_for(job_id, has_changed, HEARTBEAT)
            try:
                version, job = self._version(job_id), self._read(job_id)
            except StoppedError:
                return
            yield job.as_body()
            if job.is_finished:
                return

    def _has_changed(self, job_id: str, version: object) -> bool:
        return self._is_closed or self._version(job_id) != version

    def _version(self, job_id: str) -> object:
        """Return a value that differs before and after a change of the job."""
        running = self._running.get(job_id)
        return running.changes if running else QUEUED if job_id in self._queue else DONE

    def _read(self, job_id: str) -> Job:
        self._require_open()
        if (running := self._running.get(job_id)) and running.job:
            return replace(running.job, progress=running.progress)
        # in this order: a job is in the file before it leaves `_running`
        job = self._finished.unsaved.get(job_id)
        job = job or (self._store.read(job_id) if job_id.isprintable() else None)
        if job is None:
            raise UnknownJobError(f"there is no job {job_id[:80]!r}", job=job_id[:80])
        return self._with_progress(job)

    def _require_open(self) -> None:
        if self._is_closed:
            raise StoppedError("the server ends: its jobs go on when it is there again")

    def _current(self, job: Job, unsaved: Mapping[str, Job]) -> Job:
        return self._with_progress(replace(unsaved[job.id], reply=None) if job.id in unsaved else job)

    def _with_progress(self, job: Job) -> Job:
        running = self._running.get(job.id)
        return replace(job, progress=running.progress) if running and not job.is_finished else job

    def _start_queued(self) -> None:
        limits = self._limits
        while self._is_started and not self._is_closed:
            queued = self._queue.next(
                [running.queued for running in self._running.values()],
                limits.max_running,
                limits.max_running_per_owner or limits.max_running,
            )
            if queued is None:
                return
            running = RunningJob(queued, self._publish)
            name = f"job {running.job_id}"
            thread = threading.Thread(target=self._run_job, args=(running,), name=name, daemon=True)
            try:
                thread.start()  # it waits for `_lock` first
            except RuntimeError as e:  # the system has no more threads now
                log.error("job %s stays in the queue: %s", running.job_id, e)
                return
            self._running[running.job_id] = running  # first: a reader finds the job in one of the two
            self._queue.take(queued)

    def _run_job(self, running: RunningJob) -> None:
        try:
            running.job, request = self._begin(running)
            reply = running.run(self._runner, request)
            del request  # it may be long
            packed = pack_reply(reply)
        except Exception as e:  # noqa: BLE001 - it is logged
            reply = Reply.from_error(e if isinstance(e, PfstorageError) else unexpected_error(e, "a job"))
            packed = pack_reply(reply)
        with self._lock:
            if self._running.get(running.job_id) is not running:
                return  # `close` has queued the job again
            state = running.final_state(reply, is_closed=self._is_closed)
            log.log(*running.log_line(state, reply, is_persistent=self.is_persistent))
            self._finished.record(running, state, packed, str(reply.body.get("msg", "")))
            del self._running[running.job_id]
            self._sweep()
            self._start_queued()
            self._notifier.notify(running.job_id)
            notify_all(self._changed)

    def _begin(self, running: RunningJob) -> tuple[Job, JobRequest]:
        """Write that a job runs. If the file is not writable, try again until it is. Raise `StoppedError`."""
        while True:
            with self._lock:
                try:
                    job, request = self._store.begin(running.job_id, self._clock())
                    log.info("job %s begins: %s%s", running.job_id, job.action, running.owner_suffix)
                    running.changes += 1
                    self._notifier.notify(running.job_id)
                    return job, request
                except LocalFileError as e:
                    log.error("job %s can't begin yet: %s", running.job_id, e)
            with self._changed:
                if self._changed.wait_for(lambda: self._is_closed, FIRST_RETRY_PAUSE):
                    raise StoppedError("the server ends")

    def _publish(self, running: RunningJob) -> None:
        """Notify the threads that follow a job of its progress, and write the progress to the file."""
        with self._lock:
            if self._running.get(running.job_id) is not running:
                return
            running.changes += 1
            self._notifier.notify(running.job_id)
            try:
                self._store.note_progress(running.job_id, running.progress)
            except PfstorageError as e:
                log.warning("the progress of job %s can't be saved: %s", running.job_id, e)

    def _sweep_periodically(self) -> None:
        """Sweep until `close`, also without new jobs: old jobs may name patients, and must not stay."""
        while not self._is_closed:
            with self._lock:
                self._sweep()
            is_urgent = self._finished.unsaved or self._queue
            pause = FIRST_RETRY_PAUSE if is_urgent else max(1.0, self._finished.interval)
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed, pause)

    def _sweep(self) -> None:
        """Save unsaved states, start queued jobs, and remove old jobs."""
        if not self._is_closed:
            self._finished.save()
            self._start_queued()
            self._finished.remove_old()
