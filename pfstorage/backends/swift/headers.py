"""Read the headers of an object of a Swift. A proxy may have dropped any of them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from pfstorage.backends.contract import ObjectInfo
from pfstorage.backends.times import iso_time, parse_http_date, parse_mtime
from pfstorage.errors import RejectedError

# The modification time of the file in seconds since the epoch. python-swiftclient and rclone use this header, too.
MTIME = "x-object-meta-mtime"
# Headers of objects that consist of segments.
LARGE = {"x-static-large-object", "x-object-manifest"}


def info_of(key: str, headers: Mapping[str, str]) -> ObjectInfo:
    """Return the whole object of the *headers* of a HEAD or a GET, also of a GET for a range.

    Raise `RejectedError` for values that no Swift sends.
    """
    try:
        if "x-timestamp" in headers:
            modified = iso_time(float(headers["x-timestamp"]))
        else:
            modified = iso_of_http_date(headers.get("last-modified", ""))
        size = _size_in(headers)
    except (ValueError, OverflowError, OSError):
        text = f"the headers of {key!r} are not those of a Swift: see the proxy of the store"
        raise RejectedError(text, key=key) from None
    etag, kind = etag_in(headers), headers.get("content-type", "")
    segments = etag if LARGE & headers.keys() else ""
    mtime = parse_mtime(headers.get(MTIME, ""))
    encoding = headers.get("content-encoding", "")
    return ObjectInfo(
        key, size, etag, modified, kind, segments_etag=segments, mtime_ns=mtime, content_encoding=encoding
    )


def _size_in(headers: Mapping[str, str]) -> int | None:
    """Return the size of the whole object, None if no header has it. Raise `ValueError`."""
    if "content-range" in headers:
        total = headers["content-range"].rpartition("/")[2]
        return None if total == "*" else _parse_count(total)
    return _parse_count(headers["content-length"]) if "content-length" in headers else None


def _parse_count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError
    return int(text)


def etag_in(headers: Mapping[str, str]) -> str:
    """Return the ETag without its quotes, or "" without an ETag."""
    return headers.get("etag", "").strip('"')


def is_md5_of_content(headers: Mapping[str, str]) -> bool:
    """Return whether the ETag is the MD5 of the bytes. It is not for large objects."""
    return not LARGE & headers.keys() and re.fullmatch("[0-9a-f]{32}", etag_in(headers)) is not None


@functools.lru_cache(maxsize=64)  # many answers have the date of the same second
def iso_of_http_date(text: str) -> str:
    """Convert a date of HTTP to the form of `ObjectInfo.last_modified`, or to "" if it is not valid."""
    moment = parse_http_date(text)
    return iso_time(moment.timestamp()) if moment else ""
