"""The queue of jobs: each owner's jobs in the order of their arrival, and the owners in turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from pfstorage.errors import BusyError, TooLargeError
from pfstorage.jobs.model import JobLimits

# Characters above which a message is large. Each owner runs one such job at a time: it takes several times its
# length in memory.
LARGE_JOB = 64 * 1024


@dataclass(frozen=True)
class QueuedJob:
    """A queued or running job. Its compressed message has *size* bytes, its JSON *length* characters."""

    job_id: str
    owner: str
    size: int
    length: int

    @property
    def is_large(self) -> bool:
        return self.length > LARGE_JOB


class JobQueue:
    """The queued jobs by their ids. One thread at a time may call a method."""

    def __init__(self) -> None:
        self._by_id: dict[str, QueuedJob] = {}
        self._by_owner: dict[str, dict[str, QueuedJob]] = {}
        self._bytes: Counter[str] = Counter()
        self._last_turns: dict[str, int] = {}  # the number of each owner's last turn
        self._turn = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._by_id

    def require_room(self, owner: str, size: int, limits: JobLimits) -> None:
        """Raise `BusyError` or `TooLargeError` if *limits* allow no further message of *size* bytes of *owner*."""
        if size > limits.max_bytes_per_owner:
            raise TooLargeError(f"the message takes {size} bytes, and --maxJobBytes allows fewer")
        count, count_bytes = len(self._by_owner.get(owner, ())), self._bytes[owner]
        if len(self) >= limits.max_queued or count >= limits.max_queued_per_owner:
            raise BusyError(f"{count} of your jobs are waiting: try again later")
        is_over = count_bytes + size > limits.max_bytes_per_owner
        if is_over or self._bytes.total() + size > limits.max_bytes:
            text = f"{count} of your jobs are waiting, with {count_bytes} bytes of messages: try again later"
            raise BusyError(text)

    def add(self, queued: QueuedJob) -> None:
        self._by_id[queued.job_id] = queued
        self._by_owner.setdefault(queued.owner, {})[queued.job_id] = queued
        self._bytes[queued.owner] += queued.size

    def remove(self, job_id: str) -> None:
        queued = self._by_id.pop(job_id)
        del self._by_owner[queued.owner][job_id]
        self._bytes[queued.owner] -= queued.size
        if not self._by_owner[queued.owner]:
            del self._by_owner[queued.owner], self._bytes[queued.owner]

    def next(
        self, running: Collection[QueuedJob], max_running: int, max_running_per_owner: int
    ) -> QueuedJob | None:
        """Return the job to start next, None if none may start. It stays in the queue.

        The owner with the fewest *running* jobs comes first; owners with equally many take turns. *max_running* jobs
        may run, *max_running_per_owner* of each owner. Owners without a running job have *max_running* - 1 further
        places, so that no owner takes all places.
        """
        busy, large = Counter[str](), set[str]()
        for queued in running:
            busy[queued.owner] += 1
            if queued.is_large:
                large.add(queued.owner)
        is_full = len(running) >= max_running
        owners = [
            owner for owner in self._by_owner if busy[owner] < (1 if is_full else max_running_per_owner)
        ]
        if not owners or len(running) >= 2 * max_running - 1:
            return None
        first = (self._first_of(owner, without_large=owner in large) for owner in owners)
        return min(
            (queued for queued in first if queued),
            key=lambda queued: (busy[queued.owner], self._last_turns.get(queued.owner, 0)),
            default=None,
        )

    def _first_of(self, owner: str, *, without_large: bool) -> QueuedJob | None:
        queued_jobs = self._by_owner[owner].values()
        return next((queued for queued in queued_jobs if not (queued.is_large and without_large)), None)

    def take(self, queued: QueuedJob) -> None:
        """Remove a job that starts. Its owner has had a turn."""
        self._turn += 1
        self._last_turns[queued.owner] = self._turn
        self.remove(queued.job_id)
