"""A job at work: its message is performed, again for as long as its store does not answer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from pfstorage.errors import StoppedError, UnavailableError
from pfstorage.jobs.model import CANCELLED, DONE, FAILED, MOST_REASON, QUEUED, Job, Order, row_of
from pfstorage.jobs.queue import QueuedJob
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer import Progress
from pfstorage.wire.reply import Reply

log = logging.getLogger(__name__)

Perform = Callable[[Order, CancellationToken, Callable[[Progress], None]], Reply]
"""Answers the message of an order; it heeds the stop, and tells its progress. It does not raise."""

NOTED_EVERY = 1.0
"""Seconds between two notes of how far a job is."""
STORE_PATIENCE = 3600.0
"""Seconds for which a job waits for a store that does not answer; they begin anew whenever it gets further."""
PARTS_PATIENCE = 86400.0
"""Seconds for which parts of files count as getting further: a store that drips would have a job begin without end."""
STOP_PATIENCE = 1.0
"""Seconds that files under way may still take once their job is to stop. The job ends within twice this time."""
FIRST_PAUSE = 2.0
LONGEST_PAUSE = 30.0


class Run:
    """The job of *place* at work. *tell* is called with it where there is something new to tell of it."""

    def __init__(self, place: QueuedJob, tell: Callable[[Run], None]) -> None:
        self.place = place
        self.job_id = place.job_id
        self.job: Job | None = None
        self.cancellation = CancellationToken(STOP_PATIENCE)
        self.is_cancelled = False
        self.progress: Mapping[str, Any] = {}
        self.changes = 0
        self._tell = tell
        self._told_at = float("-inf")
        self._is_moved = self._got_further = self._has_whole = False

    def perform(self, perform: Perform, order: Order) -> Reply:
        """Perform *order*; again, for as long as its store does not answer: it goes on from where it was."""
        whole_at = time.monotonic()
        pause, given_up_at = FIRST_PAUSE, whole_at + STORE_PATIENCE
        while True:
            self._is_moved = self._got_further = self._has_whole = False
            reply = perform(order, self.cancellation, self._note)
            now, has_bytes = time.monotonic(), bool(reply.body.get("bytes"))
            if self._has_whole or has_bytes:
                whole_at = now
            if self._got_further or has_bytes:
                pause, given_up_at = FIRST_PAUSE, min(now + STORE_PATIENCE, whole_at + PARTS_PATIENCE)
            is_endless = order.message["meta"].get("overwrite") == "always"  # it would begin anew each time
            if not _lacks_store(reply) or is_endless or time.monotonic() > given_up_at:
                return reply
            log.warning("job %s waits for its store", self.job_id)  # the reason may name a file
            self.progress = {**self.progress, "waiting": reply.body["msg"][:MOST_REASON]}
            self._tell(self)
            try:
                self.cancellation.sleep(pause)
            except StoppedError:
                return reply
            pause = min(2 * pause, LONGEST_PAUSE)

    def _note(self, progress: Progress) -> None:
        """Take the progress of the job; an audit has its own, which comes after the last of the moving."""
        if self._is_moved:
            return
        self._is_moved = progress.is_last
        self._has_whole = progress.done > progress.skipped
        self._got_further = progress.size > 0 or self._has_whole
        if "waiting" in self.progress and not self._got_further and progress.done < self.progress["files"]:
            return  # it waits on: what an earlier try has done is not undone
        self.progress = row_of(progress)
        now = time.monotonic()
        if progress.is_last or now - self._told_at >= NOTED_EVERY:
            self._told_at = now
            self._tell(self)

    def final_state(self, reply: Reply, *, is_closed: bool) -> str:
        """Return what the job has come to; one that came to nothing since the process ends is to be done again."""
        if reply.body.get("status"):
            return DONE
        if self.is_cancelled:
            return CANCELLED
        return QUEUED if is_closed else FAILED

    @property
    def for_whom(self) -> str:
        return f", for {self.place.owner}" if self.place.owner else ""

    def in_words(self, state: str, reply: Reply, *, survives: bool) -> tuple[int, str]:
        """Return how much the end of the job matters to the log, and what it tells of it; *survives* the file of jobs?

        What the error says may name files: that is left out.
        """
        files, size = self.progress.get("files", 0), self.progress.get("bytes", 0)
        reason = f", {type(reply.error).__name__}" if reply.error else ""
        is_lost = state == QUEUED and not survives
        word = "lost, since there is no --stateDir" if is_lost else state
        level = logging.WARNING if is_lost or state == FAILED else logging.INFO
        return level, f"job {self.job_id} is {word}: {files} files, {size} bytes{reason}{self.for_whom}"


def _lacks_store(reply: Reply) -> bool:
    """Tell whether *reply* is what it is since the store did not answer."""
    error = reply.body.get("error") or {}
    return not reply.body.get("status") and error.get("type") == UnavailableError.__name__
