"""Bytes from outside that are text: the one place that tells in which encoding they are."""

from __future__ import annotations

import json

MARK = "\ufeff"
"""The byte order mark: Windows tools begin a file with it, and no text means it."""


def decoded(data: bytes) -> str:
    """Return the text of *data*, without the mark: UTF-8, or the UTF-16 and UTF-32 that tools of Windows write.

    What comes over HTTP, and the file of tokens, is UTF-8 alone: what looks like something else
    may be an attack. Raise `UnicodeDecodeError`.

    >>> [decoded("{}".encode(each)) for each in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le")]
    ['{}', '{}', '{}', '{}']
    """
    return without_mark(data.decode(json.detect_encoding(data)))


def without_mark(text: str) -> str:
    return text.removeprefix(MARK)
