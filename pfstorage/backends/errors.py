"""Errors that several backends raise, and predicates that recognize them."""

from __future__ import annotations

from pfstorage.backends.contract import ByteRange, ObjectInfo
from pfstorage.errors import ExistsError, IntegrityError, RejectedError, StorageError


def already_exists_error(key: str) -> ExistsError:
    """Return the error for an upload that may not replace the existing object *key*."""
    return ExistsError(f"there is an object {key!r} already, and it was not to be replaced", key=key)


def object_changed_error(key: str) -> RejectedError:
    """Return the error for an object that was replaced after it was listed or while it was read."""
    return RejectedError(f"{key!r} is another object by now: try again", key=key, status=412)


def is_precondition_failed(error: StorageError) -> bool:
    """Return whether a precondition on an object, such as If-Match, failed.

    That is true for `object_changed_error`. It is false for a 412 about a login or a container.
    """
    return error.facts.get("status") == 412 and bool(error.facts.get("key"))


def range_error(key: str, size: int) -> RejectedError:
    """Return the error for a range that starts after the end of an object of *size* bytes."""
    return RejectedError(f"{key!r} has {size} bytes: there are none in this range", key=key, status=416)


def is_range_error(error: StorageError) -> bool:
    """Return whether the requested range starts after the end of the object, as for `range_error`."""
    return error.facts.get("status") == 416


def resolve_range(byte_range: ByteRange | None, info: ObjectInfo) -> tuple[int, int]:
    """Return the offset and the number of bytes to read from the object *info*, whose size is known.

    Raise `RejectedError` if the object does not have the etag of *byte_range*, or has no bytes in this range.
    """
    assert info.size is not None
    if byte_range is None:
        return 0, info.size
    if byte_range.etag not in ("", info.etag):
        raise object_changed_error(info.key)
    start, size = byte_range.bounds(info.size)
    if not size and byte_range.size != 0:
        raise range_error(info.key, info.size)
    return start, size


def damaged_segment_error(key: str) -> IntegrityError:
    """Return the error for a large object with a segment that arrived damaged."""
    return IntegrityError(f"{key!r}: a segment does not have the store's MD5; pull it again", key=key)


def lacks_segments(error: StorageError) -> bool:
    """Return whether the store reports missing segments of a large object. Its manifest may have been replaced.

    Swift's middleware slo answers 409 to a GET if the first segment is missing.
    """
    return error.facts.get("status") == 409 and bool(error.facts.get("key"))
