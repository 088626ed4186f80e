"""Finished jobs: write their final state to the file, and remove old jobs from it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from pfstorage.errors import LocalFileError, PfstorageError
from pfstorage.jobs.model import DONE, QUEUED, Job, JobLimits
from pfstorage.jobs.running import RunningJob
from pfstorage.jobs.store import JobStore
from pfstorage.wire.packed import Packed

log = logging.getLogger(__name__)

SWEEP_INTERVAL = 60.0


class FinishedJobs:
    """The recorder of the final states of jobs in *store*. It also removes old jobs from it.

    One thread at a time may call a method. Any thread may read *unsaved*.
    """

    def __init__(self, store: JobStore, limits: JobLimits, clock: Callable[[], float]) -> None:
        self.unsaved: dict[str, Job] = {}  # finished jobs whose final state is not in the file yet
        self._store = store
        self._limits = limits
        self._clock = clock
        self._last_removal = float("-inf")
        self._bytes_since_removal = 0
        self._is_log_due = False

    @property
    def interval(self) -> float:
        """Seconds between two searches for old jobs."""
        return min(SWEEP_INTERVAL, self._limits.ttl)

    def record(self, running: RunningJob, state: str, reply: Packed | None = None, msg: str = "") -> None:
        """Write the final state of a job, or queue it again. If the write fails, keep the state in memory.

        `save` tries the write again. If the process dies before that, the job runs again.
        """
        now, reason = self._clock(), "" if state == DONE else msg
        try:
            if state == QUEUED:
                self._store.requeue(running.job_id)
            else:
                self._store.finish(running.job_id, state, now, running.progress, reply, reason)
                self._bytes_since_removal += len(reply.data) if reply else 0
        except PfstorageError as e:
            log.error("job %s is %s, but its state can't be saved: %s", running.job_id, state, e)
            if running.job and reply:
                finished = replace(running.job, state=state, finished=now, progress=running.progress)
                self.unsaved[running.job_id] = replace(finished, reply=reply, reason=reason)

    def save(self) -> None:
        """Write the final states that an earlier write did not save."""
        try:
            for job in list(self.unsaved.values()):
                now = job.finished or self._clock()
                self._store.finish(job.id, job.state, now, job.progress, job.reply, job.reason)
                del self.unsaved[job.id]
                log.info("the final state of job %s is saved now", job.id)
        except LocalFileError as e:
            log.debug("final states of jobs can't be saved yet: %s", e)

    def remove_old(self) -> None:
        """Remove jobs that are older or more than `JobLimits` allows.

        Search for them after `interval` seconds, or earlier if the new replies have many bytes.
        """
        now, limits = self._clock(), self._limits
        is_due = now - self._last_removal >= self.interval
        if not is_due and self._bytes_since_removal < limits.max_bytes_per_owner // 4:
            return
        self._last_removal, self._bytes_since_removal = now, 0
        try:
            if count := self._store.remove_finished(
                now - limits.ttl, limits.max_finished, limits.max_bytes_per_owner, limits.max_bytes
            ):
                log.info("old jobs removed: %d, see --jobTtl", count)
                self._is_log_due = True
            if self._is_log_due:
                self._is_log_due = not self._store.truncate_log()
        except LocalFileError as e:
            log.warning("old jobs can't be removed yet: %s", e)
