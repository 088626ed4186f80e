"""The jobs that are over: kept in the file, or in memory until it can take them, and forgotten in time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from pfstorage.errors import LocalFileError, PfstorageError
from pfstorage.jobs import limits as bounds
from pfstorage.jobs.limits import Limits
from pfstorage.jobs.model import DONE, QUEUED, Job
from pfstorage.jobs.run import Run
from pfstorage.jobs.store import JobStore
from pfstorage.wire.packed import Packed

log = logging.getLogger(__name__)

SWEPT_EVERY = 60.0


class Ends:
    """Keeps in *store* what jobs have come to. One thread at a time may call a method; any may look at *unsaved*."""

    def __init__(self, store: JobStore, limits: Limits, clock: Callable[[], float]) -> None:
        self.unsaved: dict[str, Job] = {}  # they are over, and the file did not take that
        self._store = store
        self._limits = limits
        self._clock = clock
        self._swept_at = float("-inf")
        self._unswept_bytes = 0
        self._is_log_due = False

    @property
    def pause(self) -> float:
        """Seconds between two looks for jobs that are old."""
        return min(SWEPT_EVERY, self._limits.ttl)

    def keep(self, run: Run, state: str, reply: Packed | None = None, msg: str = "") -> None:
        """Write the final state of a job. If the file takes nothing, keep it in memory and try again later.

        If the process dies before that, the job runs again.
        """
        now, reason = self._clock(), "" if state == DONE else msg
        try:
            if state == QUEUED:
                self._store.park(run.job_id)
            else:
                self._store.finish(run.job_id, state, now, run.progress, reply, reason)
                self._unswept_bytes += len(reply.data) if reply else 0
        except PfstorageError as e:
            log.error("job %s is %s, and that can't be kept: %s", run.job_id, state, e)
            if run.job and reply:
                over = replace(run.job, state=state, finished=now, progress=run.progress)
                self.unsaved[run.job_id] = replace(over, reply=reply, reason=reason)

    def save(self) -> None:
        """Have the file take the ends that it could not take before, if it can now."""
        try:
            for job in list(self.unsaved.values()):
                now = job.finished or self._clock()
                self._store.finish(job.id, job.state, now, job.progress, job.reply, job.reason)
                del self.unsaved[job.id]
                log.info("the end of job %s is kept now", job.id)
        except LocalFileError as e:
            log.debug("ends of jobs can't be kept yet: %s", e)

    def forget(self) -> None:
        """Remove jobs that are old or beyond the limits, once a while has passed or many bytes were added."""
        now, limits = self._clock(), self._limits
        is_due = now - self._swept_at >= self.pause
        if not is_due and self._unswept_bytes < limits.most_bytes_of_one // 4:
            return
        self._swept_at, self._unswept_bytes = now, 0
        try:
            if count := self._store.remove_finished(
                now - limits.ttl, bounds.MOST_KEPT, limits.most_bytes_of_one, limits.most_bytes
            ):
                log.info("jobs that are over and forgotten: %d, see --jobTtl", count)
                self._is_log_due = True
            if self._is_log_due:
                self._is_log_due = not self._store.empty_log()
        except LocalFileError as e:
            log.warning("jobs that were over long ago can't be forgotten yet: %s", e)
