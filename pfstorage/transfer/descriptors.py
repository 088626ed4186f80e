"""How many files may be moved at once without running out of descriptors."""

from __future__ import annotations

import os
import resource

PER_WORKER = 4
"""Descriptors of a file that is moved: its own, its directory's, its connection's, and one of the way to it."""
KEPT = 64
"""Descriptors for what no worker has: listings, directories that stay open, what is imported, the log."""


def free_descriptors() -> int:
    """Return how many files this process may open beside those that it has open, and those that it keeps room for."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        used = len(os.listdir("/dev/fd"))
    except OSError:  # there is none in this place: what is kept is to do for them
        used = 0
    return most - used - KEPT if most != resource.RLIM_INFINITY else 2**31


def most_workers(others: int = 0) -> int:
    """Return how many files may be moved at once, one at least, with *others* more descriptors to come."""
    return max(1, (free_descriptors() - others) // PER_WORKER)
