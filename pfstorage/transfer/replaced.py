"""An object that is replaced while it comes is fetched anew, from its beginning, as it is by then."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.common import is_unmet, lacks_segments
from pfstorage.errors import IntegrityError, StorageError
from pfstorage.transfer.existence import newer

T = TypeVar("T")

MOST_TIMES = 10
"""How often an object is fetched that somebody replaces each time before all of it came."""


def _may_begin_anew() -> bool:
    return True


def fetched_as_it_is(
    storage: Storage,
    key: str,
    known: ObjectInfo | None,
    fetch: Callable[[ObjectInfo | None], T],
    may_begin_anew: Callable[[], bool] = _may_begin_anew,
) -> T:
    """Return what *fetch* returns of the object *key*, which was *known* as what it gets.

    If that fails because the object was replaced meanwhile, *fetch* is called again with what is there by then,
    unless *may_begin_anew* says that the bytes that came can't be taken back. Raise what *fetch* raises
    of an object that is still the same, and `NotFoundError` for one that was removed.
    """
    for times in range(1, MOST_TIMES):
        try:
            return fetch(known)
        except StorageError as e:
            if not _may_be_replaced(e) or not may_begin_anew():
                raise
            now = storage.head(key)
            # an upload of the same bytes has other segments, so those of the one before may be gone
            is_other = known is None or newer(known, now) is not known or (lacks_segments(e) and times == 1)
            if not is_other:
                raise
            known = now
    return fetch(known)


def _may_be_replaced(error: StorageError) -> bool:
    return isinstance(error, IntegrityError) or is_unmet(error) or lacks_segments(error)
