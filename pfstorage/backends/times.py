"""Times in the text forms of listings, HTTP headers and object metadata."""

from __future__ import annotations

import os
import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

# Seconds since the epoch: the years 1 to 9999, the range of ISO 8601.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_MAX_TIME_T = 2**63 - 1


def parse_http_date(text: str) -> datetime | None:
    """Parse an HTTP date (RFC 9110, section 5.6.7); return None if *text* is not one."""
    try:
        found = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def iso_time(seconds: float) -> str:
    """Format *seconds* since the epoch as UTC in ISO 8601, without a zone.

    >>> iso_time(0.5)
    '1970-01-01T00:00:00.500000'
    """
    moment = datetime.fromtimestamp(seconds, timezone.utc).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds")


def iso_mtime(status: os.stat_result) -> str:
    """Return the modification time of a file in the form of `iso_time`.

    A program, or a clock that was never set, can give a file any time. Times outside the years 1 to 9999 become
    the nearest time inside.
    """
    return iso_time(min(max(status.st_mtime_ns / 1e9, _FIRST_SECOND), _LAST_SECOND))


def format_mtime(nanoseconds: int) -> str:
    """Format *nanoseconds* since the epoch as seconds, as python-swiftclient and rclone do.

    >>> format_mtime(1_700_000_000_123_456_789), format_mtime(-1)
    ('1700000000.123456789', '-0.000000001')
    """
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    return f"{'-' if nanoseconds < 0 else ''}{seconds}.{rest:09}"


def parse_mtime(text: str) -> int | None:
    """Parse seconds since the epoch, as `format_mtime` writes them; return nanoseconds.

    Return None for other text, and for a time outside the range of a 64-bit time_t.

    >>> parse_mtime("1700000000.123456789"), parse_mtime("12"), parse_mtime("-0.5"), parse_mtime("x")
    (1700000000123456789, 12000000000, -500000000, None)
    """
    found = re.fullmatch(r"(-?)(\d{1,19})(?:\.(\d{1,30}))?", text, re.ASCII)
    if not found or int(found[2]) > _MAX_TIME_T:
        return None
    sign, seconds, fraction = found.groups()
    nanoseconds = int(seconds) * 1_000_000_000 + int((fraction or "0")[:9].ljust(9, "0"))
    return -nanoseconds if sign else nanoseconds
