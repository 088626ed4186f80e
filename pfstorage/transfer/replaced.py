"""Downloads of an object that somebody replaces meanwhile: they start again, with the new object."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.errors import PreconditionFailedError, SegmentsMissingError
from pfstorage.errors import IntegrityError, StorageError
from pfstorage.transfer.existence import reconcile

T = TypeVar("T")

MAX_REPLACEMENTS = 10
"""The downloads of an object that somebody replaces during each of them."""


def _may_begin_anew() -> bool:
    return True


def download_current(
    storage: Storage,
    key: str,
    known: ObjectInfo | None,
    fetch: Callable[[ObjectInfo | None], T],
    can_restart: Callable[[], bool] = _may_begin_anew,
) -> T:
    """Call *fetch* with the row *known* of the object *key*, and return its result.

    If *fetch* fails because somebody replaced the object meanwhile, call it again with the row of the new object,
    up to `MAX_REPLACEMENTS` in all, unless *can_restart* says that bytes have left already. Raise the error of
    *fetch* if the object is still the same, and `NotFoundError` if somebody removed it.
    """
    for times in range(1, MAX_REPLACEMENTS):
        try:
            return fetch(known)
        except StorageError as e:
            if not _may_be_replaced(e) or not can_restart():
                raise
            now = storage.head(key)
            # an upload of the same bytes has other segments, so those of the one before may be gone
            is_other = (
                known is None
                or reconcile(known, now) is not known
                or (isinstance(e, SegmentsMissingError) and times == 1)
            )
            if not is_other:
                raise
            known = now
    return fetch(known)


def _may_be_replaced(error: StorageError) -> bool:
    return isinstance(error, (IntegrityError, PreconditionFailedError, SegmentsMissingError))
