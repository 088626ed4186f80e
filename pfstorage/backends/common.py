"""What several backends need: hashes, times, types, and the rows of a listing."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from pfstorage.backends.contract import ByteRange, ObjectInfo
from pfstorage.errors import ExistsError, IntegrityError, RejectedError, StorageError

_FIRST_MOMENT, _LAST_MOMENT = -62_135_596_800, 253_402_300_799
"""Seconds since the epoch: the years 1 to 9999 in ISO 8601."""
_MOST_SECONDS = 2**63 - 1  # of a time_t


def new_md5() -> hashlib._Hash:
    """Return an MD5 that also works where FIPS forbids it for security."""
    return hashlib.md5(usedforsecurity=False)


EMPTY_MD5 = new_md5().hexdigest()


def segments_etag_of(md5s: Iterable[str]) -> str:
    """Return the etag of a large object, which is made of those of its segments.

    >>> md5_of_md5s(["d41d8cd98f00b204e9800998ecf8427e"])
    '74be16979710d4c4e7c6647856088456'
    """
    digest = new_md5()
    digest.update("".join(md5s).encode())
    return digest.hexdigest()


def object_changed_error(key: str) -> RejectedError:
    """Return the error for a part of an object that is not the one that was listed any more."""
    return RejectedError(f"{key!r} is another object by now: try again", key=key, status=412)


def is_precondition_failed(error: StorageError) -> bool:
    """Tell whether a condition of a request about an object, such as If-Match, did not hold.

    So it is of `object_changed_error`. A login or a container may be answered 412, too: that says nothing of the
    object.
    """
    return error.facts.get("status") == 412 and bool(error.facts.get("key"))


def lacks_segments(error: StorageError) -> bool:
    """Tell whether the store says that segments of a large object are gone: its manifest may be another by now.

    Swift's middleware slo answers 409 to a GET whose first segment is missing.
    """
    return error.facts.get("status") == 409 and bool(error.facts.get("key"))


def range_error(key: str, size: int) -> RejectedError:
    """Return the error for a part of an object of *size* bytes that begins after its end."""
    return RejectedError(f"{key!r} has {size} bytes: there are none in this range", key=key, status=416)


def resolve_range(byte_range: ByteRange | None, info: ObjectInfo) -> tuple[int, int]:
    """Return which byte of the object *info*, whose size is known, comes first for *byte_range*, and how many come.

    Raise `RejectedError` if the object is another than that of *byte_range*, or has no such part.
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


def is_range_error(error: StorageError) -> bool:
    """Tell whether the object has no such part; so it is of `range_error`."""
    return error.facts.get("status") == 416


def damaged_segment_error(key: str) -> IntegrityError:
    """Return the error for a large object of which a segment came damaged."""
    return IntegrityError(f"{key!r}: a segment does not have the store's MD5; pull it again", key=key)


def already_exists_error(key: str) -> ExistsError:
    """Return the error for an object that was not to be replaced."""
    return ExistsError(f"there is an object {key!r} already, and it was not to be replaced", key=key)


def parse_http_date(text: str) -> datetime | None:
    """Return the moment that *text*, a date of HTTP (RFC 9110, section 5.6.7), tells, None if it is no such date."""
    try:
        found = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def iso_time(seconds: float) -> str:
    """
    >>> iso_time(0.5)
    '1970-01-01T00:00:00.500000'
    """
    return (
        datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=None).isoformat(timespec="microseconds")
    )


def iso_mtime(status: os.stat_result) -> str:
    """Return when a file was last written, or the first or the last moment that can be written so.

    A clock that was never set, or a program, may give a file any time.
    """
    return iso_time(min(max(status.st_mtime_ns / 1e9, _FIRST_MOMENT), _LAST_MOMENT))


def format_mtime(nanoseconds: int) -> str:
    """Write a time since the epoch as seconds, as python-swiftclient and rclone do.

    >>> text_of_mtime(1_700_000_000_123_456_789), text_of_mtime(-1)
    ('1700000000.123456789', '-0.000000001')
    """
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    return f"{'-' if nanoseconds < 0 else ''}{seconds}.{rest:09}"


def parse_mtime(text: str) -> int | None:
    """Read what `format_mtime` wrote, or whoever else; None if it is no time that a system can tell.

    >>> mtime_of_text("1700000000.123456789"), mtime_of_text("12"), mtime_of_text("-0.5"), mtime_of_text("x")
    (1700000000123456789, 12000000000, -500000000, None)
    """
    found = re.fullmatch(r"(-?)(\d{1,19})(?:\.(\d{1,30}))?", text, re.ASCII)
    if not found or int(found[2]) > _MOST_SECONDS:
        return None
    sign, seconds, fraction = found.groups()
    nanoseconds = int(seconds) * 1_000_000_000 + int((fraction or "0")[:9].ljust(9, "0"))
    return -nanoseconds if sign else nanoseconds


def select(
    rows: Iterable[ObjectInfo],
    prefix: str,
    start_after: str,
    stop_before: str,
    limit: int | None,
    delimiter: str,
) -> Iterator[ObjectInfo]:
    """Do what `Storage.list` asks, on all *rows* of a store in ascending order."""
    matching = (row for row in rows if row.key.startswith(prefix))
    rolled = _rolled_up(matching, prefix, delimiter) if delimiter else matching
    for count, row in enumerate(row for row in rolled if row.key > start_after):
        if count == limit or (stop_before and row.key >= stop_before):
            return
        yield row


def _rolled_up(rows: Iterable[ObjectInfo], prefix: str, delimiter: str) -> Iterator[ObjectInfo]:
    last = None
    for row in rows:
        head, found, _ = row.key[len(prefix) :].partition(delimiter)
        if not found:
            yield row
        elif prefix + head != last:
            last = prefix + head
            yield ObjectInfo(last + delimiter, is_subdir=True)
