"""Errors of a store that the code above the backends distinguishes, and errors with a common text.

The classes are not public: a reply names their nearest public base.
"""

from __future__ import annotations

from pfstorage.backends.contract import ByteRange, ObjectInfo
from pfstorage.errors import (
    ExistsError,
    IntegrityError,
    MisconfiguredError,
    RejectedError,
    UnavailableError,
)


class PreconditionFailedError(RejectedError, is_public=False):
    """A precondition on an object, such as If-Match, failed. A 412 about a login or a container is another error."""


class RangeNotSatisfiableError(RejectedError, is_public=False):
    """The requested range starts after the end of the object."""


class SegmentsMissingError(RejectedError, is_public=False):
    """A segment of a large object is missing or has changed. The manifest may have been replaced."""


class ProxyDeniedError(RejectedError, is_public=False):
    """A server in front of the store denied the request."""


class ProxyLoginError(MisconfiguredError, is_public=False):
    """A proxy in front of the store requires its own login."""


class ConnectError(UnavailableError, is_public=False):
    """No connection to the store could be opened."""


class SilentStoreError(UnavailableError, is_public=False):
    """The store accepted the connection, but sends nothing, or too little."""


class OverloadedError(UnavailableError, is_public=False):
    """The store asks for fewer requests."""


class ProxyAnswerError(UnavailableError, is_public=False):
    """A server in front of the store answered in its place."""

    max_retries = 2  # the answer may be permanent, such as that of a wrong address


def already_exists_error(key: str) -> ExistsError:
    """Return the error for an upload that may not replace the existing object *key*."""
    return ExistsError(f"there is an object {key!r} already, and it was not to be replaced", key=key)


def object_changed_error(key: str) -> RejectedError:
    """Return the error for an object that was replaced after it was listed or while it was read."""
    return PreconditionFailedError(f"{key!r} is another object by now: try again", key=key, status=412)


def range_error(key: str, size: int) -> RejectedError:
    """Return the error for a range that starts after the end of an object of *size* bytes."""
    text = f"{key!r} has {size} bytes: there are none in this range"
    return RangeNotSatisfiableError(text, key=key, status=416)


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
