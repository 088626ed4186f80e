"""A running job: run its message, and run it again while its store does not answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from pfstorage.errors import StoppedError, UnavailableError
from pfstorage.jobs.model import CANCELLED, DONE, FAILED, MAX_REASON, QUEUED, Job, JobRequest, progress_row
from pfstorage.jobs.queue import QueuedJob
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer import Progress
from pfstorage.wire.reply import Reply

log = logging.getLogger(__name__)

# Runs the message of a request and returns its reply. It raises no error. It stops soon after the token is
# requested, and calls the last argument with its progress.
JobRunner = Callable[[JobRequest, CancellationToken, Callable[[Progress], None]], Reply]

# Seconds between two updates of the progress.
PROGRESS_INTERVAL = 1.0
# Seconds for which a job waits for a store that does not answer. Each progress restarts the count.
STORE_TIMEOUT = 3600.0
# Seconds for which parts of files count as progress. A store that sends a little of a file each time would
# otherwise keep a job running for ever.
PARTIAL_PROGRESS_TIMEOUT = 86400.0
# Seconds that unfinished files may still take after a cancellation. The job ends within twice this time.
CANCEL_GRACE = 1.0
FIRST_RETRY_PAUSE = 2.0
LONGEST_PAUSE = 30.0


class RunningJob:
    """The state of the job *queued* while it runs. *on_progress* is called after each change of *progress*.

    Any thread may read the attributes. One thread calls `run`.
    """

    def __init__(self, queued: QueuedJob, on_progress: Callable[[RunningJob], None]) -> None:
        self.queued = queued
        self.job_id = queued.job_id
        self.job: Job | None = None
        self.cancellation = CancellationToken(CANCEL_GRACE)
        self.is_cancelled = False
        self.progress: Mapping[str, Any] = {}
        self.changes = 0
        self._on_progress = on_progress
        self._reported_at = float("-inf")
        self._is_transfer_over = self._has_progress = self._has_whole_file = False

    def run(self, runner: JobRunner, request: JobRequest) -> Reply:
        """Run *request* and return its reply. Run it again while the store does not answer.

        A further run skips the files that an earlier one has transferred. So a request with ``"overwrite": "always"``
        runs once: it would transfer all files again each time.
        """
        whole_file_at = time.monotonic()
        pause, deadline = FIRST_RETRY_PAUSE, whole_file_at + STORE_TIMEOUT
        while True:
            self._is_transfer_over = self._has_progress = self._has_whole_file = False
            reply = runner(request, self.cancellation, self._note_progress)
            now, has_bytes = time.monotonic(), bool(reply.body.get("bytes"))
            if self._has_whole_file or has_bytes:
                whole_file_at = now
            if self._has_progress or has_bytes:
                pause = FIRST_RETRY_PAUSE
                deadline = min(now + STORE_TIMEOUT, whole_file_at + PARTIAL_PROGRESS_TIMEOUT)
            starts_over = request.message["meta"].get("overwrite") == "always"
            if not _is_store_unavailable(reply) or starts_over or time.monotonic() > deadline:
                return reply
            log.warning("job %s waits for its store", self.job_id)  # without the reason: it may name a file
            self.progress = {**self.progress, "waiting": reply.body["msg"][:MAX_REASON]}
            self._on_progress(self)
            try:
                self.cancellation.sleep(pause)
            except StoppedError:
                return reply
            pause = min(2 * pause, LONGEST_PAUSE)

    def _note_progress(self, progress: Progress) -> None:
        """Store the progress of the transfer. Ignore that of an audit, which follows the last of the transfer."""
        if self._is_transfer_over:
            return
        self._is_transfer_over = progress.is_last
        self._has_whole_file = progress.done > progress.skipped
        self._has_progress = progress.size > 0 or self._has_whole_file
        if "waiting" in self.progress and not self._has_progress and progress.done < self.progress["files"]:
            return  # the store still does not answer: keep the numbers of an earlier run
        self.progress = progress_row(progress)
        now = time.monotonic()
        if progress.is_last or now - self._reported_at >= PROGRESS_INTERVAL:
            self._reported_at = now
            self._on_progress(self)

    def final_state(self, reply: Reply, *, is_closed: bool) -> str:
        """Return the state of the job after *reply*: queued again if it failed because the server *is_closed*."""
        if reply.body.get("status"):
            return DONE
        if self.is_cancelled:
            return CANCELLED
        return QUEUED if is_closed else FAILED

    @property
    def owner_suffix(self) -> str:
        return f", for {self.queued.owner}" if self.queued.owner else ""

    def log_line(self, state: str, reply: Reply, *, is_persistent: bool) -> tuple[int, str]:
        """Return the level and the text of the log line about the end of the job.

        The line names the type of an error, not its text, which may name files. *is_persistent* is false if
        a queued job ends with the process.
        """
        files, size = self.progress.get("files", 0), self.progress.get("bytes", 0)
        reason = f", {type(reply.error).__name__}" if reply.error else ""
        is_lost = state == QUEUED and not is_persistent
        word = "lost, since there is no --stateDir" if is_lost else state
        level = logging.WARNING if is_lost or state == FAILED else logging.INFO
        return level, f"job {self.job_id} is {word}: {files} files, {size} bytes{reason}{self.owner_suffix}"


def _is_store_unavailable(reply: Reply) -> bool:
    error = reply.error or reply.partial_error
    return not reply.body.get("status") and isinstance(error, UnavailableError)
