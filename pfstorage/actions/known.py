"""Objects that the store has already, looked up by listings instead of one request for each file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.capabilities import list_partially
from pfstorage.errors import ContainerNotFoundError, PermissionDeniedError
from pfstorage.keys.mapping import FIRST_CHARACTER, common_prefix, start_just_before
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer import Failure, Transfer, TransferContext

# files for each listing: as many as a page of a listing has
FILES_PER_LISTING = 10_000
# rows that a listing reads at most, and further rows for each file
LOOK_AHEAD = 10_000
LOOK_AHEAD_PER_FILE = 10


def with_known(
    items: Iterator[Transfer | Failure], transfer_context: TransferContext
) -> Iterator[Transfer | Failure]:
    """Yield *items*. Add to each transfer the object that the store lists for its key."""
    storage = list_partially(
        transfer_context.storage, lambda *_: None
    )  # a file without a listed object is pushed
    while batch := list(itertools.islice(items, FILES_PER_LISTING)):
        keys = [item.key for item in batch if isinstance(item, Transfer)]
        known = known_objects(storage, keys, transfer_context.cancellation)
        for item in batch:
            if isinstance(item, Transfer) and item.key in known:
                yield replace(item, known=known[item.key])
            else:
                yield item


def known_objects(
    storage: Storage, keys: list[str], cancellation: CancellationToken
) -> dict[str, ObjectInfo]:
    """Return the objects of *keys* that a listing from the first to the last key shows.

    The listing ends early if there are many other objects between the keys.
    """
    if not keys:
        return {}
    wanted, first, last = set(keys), min(keys), max(keys)
    try:
        rows = storage.list(
            common_prefix(first, last),
            start_after=start_just_before(first),
            stop_before=last + FIRST_CHARACTER,
            limit=LOOK_AHEAD + LOOK_AHEAD_PER_FILE * len(keys),
        )
        return {row.key: row for row in cancellation.checked(rows) if row.key in wanted}
    except (ContainerNotFoundError, PermissionDeniedError):
        return {}  # the first put makes the container, and a token that may write may be unable to list
