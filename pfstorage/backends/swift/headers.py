"""What the headers of a Swift tell of an object. Any of them may be missing: what lies between may drop it."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from pfstorage.backends.contract import ObjectInfo
from pfstorage.backends.times import iso_time, parse_http_date, parse_mtime
from pfstorage.errors import RejectedError

MTIME = "x-object-meta-mtime"
"""Where python-swiftclient and rclone keep the time of the file, too: in seconds since the epoch."""

LARGE = {"x-static-large-object", "x-object-manifest"}
"""Headers of objects that are made of segments."""


def info_of(key: str, headers: Mapping[str, str]) -> ObjectInfo:
    """Return what the *headers* of a HEAD, or of a GET of all or a part, tell of the whole object."""
    try:
        if "x-timestamp" in headers:
            modified = iso_time(float(headers["x-timestamp"]))
        else:
            modified = iso_of_http_date(headers.get("last-modified", ""))
        size = _size_in(headers)
    except (ValueError, OverflowError, OSError):
        text = f"what the store answers of {key!r} is no answer of a Swift: see its proxy"
        raise RejectedError(text, key=key) from None
    etag, kind = etag_in(headers), headers.get("content-type", "")
    segments = etag if LARGE & headers.keys() else ""
    mtime = parse_mtime(headers.get(MTIME, ""))
    encoding = headers.get("content-encoding", "")
    return ObjectInfo(
        key, size, etag, modified, kind, segments_etag=segments, mtime_ns=mtime, content_encoding=encoding
    )


def _size_in(headers: Mapping[str, str]) -> int | None:
    """Return the bytes of the whole object, None if they are not told. Raise `ValueError`."""
    if "content-range" in headers:
        total = headers["content-range"].rpartition("/")[2]
        return None if total == "*" else _count(total)
    return _count(headers["content-length"]) if "content-length" in headers else None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError
    return int(text)


def etag_in(headers: Mapping[str, str]) -> str:
    """Return the ETag without its quotes, "" if there is none."""
    return headers.get("etag", "").strip('"')


def is_md5_of_content(headers: Mapping[str, str]) -> bool:
    """Tell whether the ETag is the MD5 of the bytes: it isn't for large objects made of segments."""
    return not LARGE & headers.keys() and re.fullmatch("[0-9a-f]{32}", etag_in(headers)) is not None


@functools.lru_cache(maxsize=64)  # those of a second's answers are the same
def iso_of_http_date(text: str) -> str:
    """Return a date of HTTP as `ObjectInfo.last_modified` has it, "" for what is none."""
    moment = parse_http_date(text)
    return iso_time(moment.timestamp()) if moment else ""
