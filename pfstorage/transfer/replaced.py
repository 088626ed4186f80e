"""Download an object again if somebody replaces it during the download."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.errors import PreconditionFailedError, SegmentsMissingError
from pfstorage.errors import IntegrityError, StorageError
from pfstorage.transfer.existence import reconcile

T = TypeVar("T")

# The downloads of an object that somebody replaces during each of them.
MAX_DOWNLOADS = 10


def download_current(
    storage: Storage,
    key: str,
    known: ObjectInfo | None,
    fetch: Callable[[ObjectInfo | None], T],
    can_restart: Callable[[], bool] = lambda: True,
) -> T:
    """Call *fetch* with *known*, the row of the object *key*, and return its result.

    If *fetch* fails because somebody has replaced the object, call it again with the row of the new object, up to
    `MAX_DOWNLOADS` times in all. Raise the error of *fetch* if the object is still the same, or if *can_restart*
    returns False because bytes were sent already. Raise `NotFoundError` if somebody has removed the object.
    """
    for times in range(1, MAX_DOWNLOADS):
        try:
            return fetch(known)
        except StorageError as e:
            if not _may_be_replaced(e) or not can_restart():
                raise
            now = storage.head(key)
            # an upload of the same bytes replaces the segments, too, and the old ones may be missing
            has_new_segments = isinstance(e, SegmentsMissingError) and times == 1
            if not (known is None or reconcile(known, now) is not known or has_new_segments):
                raise
            known = now
    return fetch(known)


def _may_be_replaced(error: StorageError) -> bool:
    return isinstance(error, (IntegrityError, PreconditionFailedError, SegmentsMissingError))
