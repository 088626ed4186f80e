"""How many jobs run, wait and are kept, and how many bytes of them; of one owner, and of all."""

from __future__ import annotations

from dataclasses import dataclass

TTL = 7 * 86400.0
MOST_AT_ONCE = 4
MOST_QUEUED = 10_000
MOST_QUEUED_OF_ONE = 1000
MOST_KEPT = 10_000
"""Jobs that are over, and not yet old enough to be removed."""
MOST_BYTES_OF_ONE = 64 * 1024**2
OWNERS = 16
"""All jobs that wait have as many bytes as the most of so many owners have; so have all that are over."""


@dataclass(frozen=True)
class Limits:
    """*most* jobs run at once, *most_of_one* of one owner if that is not 0; see `Queue.next`.

    The messages of an owner's jobs that wait have up to *most_bytes_of_one*, as they are kept, and so have the messages
    and replies of those that are over. They are forgotten *ttl* seconds after their end.
    """

    most: int = MOST_AT_ONCE
    most_of_one: int = 0
    most_bytes_of_one: int = MOST_BYTES_OF_ONE
    ttl: float = TTL

    @property
    def most_bytes(self) -> int:
        return OWNERS * self.most_bytes_of_one
