"""What several backends need: hashes, times, types, and the rows of a listing."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone

from pfstorage.backends.base import ObjectInfo


def new_md5() -> hashlib._Hash:
    """Return an MD5 that also works where FIPS forbids it for security."""
    return hashlib.md5(usedforsecurity=False)


def iso_time(seconds: float) -> str:
    """
    >>> iso_time(0.5)
    '1970-01-01T00:00:00.500000'
    """
    return (
        datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=None).isoformat(timespec="microseconds")
    )


def guess_content_type(key: str) -> str:
    """Guess from the suffix of *key*, with DICOM's registered type (RFC 3240) for ``.dcm``."""
    if key.lower().endswith(".dcm"):
        return "application/dicom"
    return mimetypes.guess_type(key)[0] or "application/octet-stream"


def select(
    rows: Iterable[ObjectInfo], prefix: str, marker: str, limit: int | None, delimiter: str
) -> Iterator[ObjectInfo]:
    """Do what `Storage.list` asks, on all *rows* of a store in ascending order."""
    matching = (row for row in rows if row.key.startswith(prefix))
    rolled = _rolled_up(matching, prefix, delimiter) if delimiter else matching
    for count, row in enumerate(row for row in rolled if row.key > marker):
        if count == limit:
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
