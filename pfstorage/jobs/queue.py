"""The jobs that wait: each owner's in the order of their arrival, and the owners in turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

LARGE = 64 * 1024
"""Characters of a message beyond which an owner has one such job at work: it takes several times that in memory."""


@dataclass(frozen=True)
class QueuedJob:
    """A job that waits or is at work: its message has *size* bytes in the file, and *length* characters."""

    job_id: str
    owner: str
    size: int
    length: int

    @property
    def is_large(self) -> bool:
        return self.length > LARGE


class Queue:
    """Jobs that wait, by their ids. One thread at a time may call a method."""

    def __init__(self) -> None:
        self._waiting: dict[str, QueuedJob] = {}
        self._of_owner: dict[str, dict[str, QueuedJob]] = {}
        self._bytes: Counter[str] = Counter()
        self._turns: dict[str, int] = {}  # when each owner was last given a place
        self._turn = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._waiting

    @property
    def all_bytes(self) -> int:
        return self._bytes.total()

    def count_of(self, owner: str) -> int:
        return len(self._of_owner.get(owner, ()))

    def bytes_of(self, owner: str) -> int:
        return self._bytes[owner]

    def add(self, place: QueuedJob) -> None:
        self._waiting[place.job_id] = place
        self._of_owner.setdefault(place.owner, {})[place.job_id] = place
        self._bytes[place.owner] += place.size

    def remove(self, job_id: str) -> None:
        place = self._waiting.pop(job_id)
        del self._of_owner[place.owner][job_id]
        self._bytes[place.owner] -= place.size
        if not self._of_owner[place.owner]:
            del self._of_owner[place.owner], self._bytes[place.owner]

    def next(self, at_work: Collection[QueuedJob], most: int, most_of_one: int) -> QueuedJob | None:
        """Return the job to begin, None if none may: of the owner with the fewest *at_work*, and in turns.

        *most* may be at work, *most_of_one* of one owner. Beyond *most*, there are *most* - 1 further places, only for
        owners who have no job at work, so that no owner takes all places.
        """
        busy, large = Counter[str](), set[str]()
        for place in at_work:
            busy[place.owner] += 1
            if place.is_large:
                large.add(place.owner)
        is_full = len(at_work) >= most
        owners = [owner for owner in self._of_owner if busy[owner] < (1 if is_full else most_of_one)]
        if not owners or len(at_work) >= 2 * most - 1:
            return None
        first = (self._first_of(owner, without_large=owner in large) for owner in owners)
        return min(
            (place for place in first if place),
            key=lambda place: (busy[place.owner], self._turns.get(place.owner, 0)),
            default=None,
        )

    def _first_of(self, owner: str, *, without_large: bool) -> QueuedJob | None:
        places = self._of_owner[owner].values()
        return next((place for place in places if not (place.is_large and without_large)), None)

    def take(self, place: QueuedJob) -> None:
        """Remove a job that begins: its owner is the last to have a turn."""
        self._turn += 1
        self._turns[place.owner] = self._turn
        self.remove(place.job_id)
