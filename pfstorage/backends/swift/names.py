"""What the segments of a large object are called, and their container: also where that would be too long."""

from __future__ import annotations

import hashlib
import re

SUFFIX = "_segments"
ROOM = 112
"""Bytes of the name of a segment beside the key: the time, the size, that of a segment, the try, the number."""

_DIGEST = re.compile(r"~[0-9a-f]{32}\Z")
_OF_A_TRY = re.compile(r"(?:[0-9a-f]{32}/)?(\d{8})", re.ASCII)
_SHAPES = [  # the second is that of python-swiftclient, and of earlier releases
    re.compile(r"(.+)/-?[\d.]+/\d+/\d+/" + end, re.ASCII | re.DOTALL)
    for end in (r"[0-9a-f]{32}/\d{8}", r"\d{8}")
]


def segment_container(container: str, longest: int) -> str:
    """Return the container for the segments of the objects in *container*; a name has *longest* bytes at most.

    >>> segment_container("users", 256)
    'users_segments'
    """
    return _shortened(container, longest - len(SUFFIX)) + SUFFIX


def home_of(key: str, longest: int) -> str:
    """Return what the names of the segments of *key* begin with, where a name has *longest* bytes at most."""
    return _shortened(key, longest - ROOM)


def number_of(rest: str) -> int | None:
    """Return the number of a segment, whose name goes on with *rest* after what all tries with a file share.

    >>> number_of("00000012"), number_of("0123456789abcdef0123456789abcdef/00000003"), number_of("a/00000001")
    (12, 3, None)
    """
    found = _OF_A_TRY.fullmatch(rest)
    return int(found[1]) if found else None


def try_of(name: str) -> str:
    """Return what the names of the segments of one try have in common."""
    return name.rpartition("/")[0]


def key_of(name: str) -> str | None:
    """Return the key that the segment *name* was stored for, None if it is not named as one is.

    Of a key that was too long, it is the beginning: no more of it is in the name.

    >>> key_of("chris/a/1.5/9/4/00000001"), key_of("chris/a")
    ('chris/a', None)
    """
    found = next(filter(None, (shape.fullmatch(name) for shape in _SHAPES)), None)
    return _DIGEST.sub("", found[1]) if found else None


def _shortened(name: str, most: int) -> str:
    """Return *name*, or as much of it as *most* bytes hold beside a hash of the whole."""
    encoded = name.encode()
    if len(encoded) <= most:
        return name
    digest = f"~{hashlib.sha256(encoded).hexdigest()[:32]}"
    return encoded[: most - len(digest)].decode(errors="ignore") + digest
