"""Make and parse the names of segments and of their container, within the length limits of the store."""

from __future__ import annotations

import hashlib
import re

SUFFIX = "_segments"
# Bytes of the name of a segment without the key: time, size, segment size, upload, number.
ROOM = 112

_DIGEST = re.compile(r"~[0-9a-f]{32}\Z")
_OF_AN_UPLOAD = re.compile(r"(?:[0-9a-f]{32}/)?(\d{8})", re.ASCII)
_SHAPES = [  # the second has no upload: python-swiftclient and earlier releases use it
    re.compile(r"(.+)/-?[\d.]+/\d+/\d+/" + end, re.ASCII | re.DOTALL)
    for end in (r"[0-9a-f]{32}/\d{8}", r"\d{8}")
]


def segment_container(container: str, longest: int) -> str:
    """Return the container for segments of objects in *container*. A name has at most *longest* bytes.

    >>> segment_container("users", 256)
    'users_segments'
    """
    return _shortened(container, longest - len(SUFFIX)) + SUFFIX


def home_of(key: str, longest: int) -> str:
    """Return the common prefix of the names of all segments of *key*. A name has at most *longest* bytes."""
    return _shortened(key, longest - ROOM)


def number_of(rest: str) -> int | None:
    """Return the number of a segment. *rest* is its name after the prefix that all uploads of one file share.

    >>> number_of("00000012"), number_of("0123456789abcdef0123456789abcdef/00000003"), number_of("a/00000001")
    (12, 3, None)
    """
    found = _OF_AN_UPLOAD.fullmatch(rest)
    return int(found[1]) if found else None


def upload_of(name: str) -> str:
    """Return the prefix that the names of all segments of one upload share."""
    return name.rpartition("/")[0]


def key_of(name: str) -> str | None:
    """Return the key of the object that the segment *name* belongs to, None if it is no name of a segment.

    The name contains only the beginning of a long key. Then that is returned.

    >>> key_of("chris/a/1.5/9/4/00000001"), key_of("chris/a")
    ('chris/a', None)
    """
    found = next(filter(None, (shape.fullmatch(name) for shape in _SHAPES)), None)
    return _DIGEST.sub("", found[1]) if found else None


def _shortened(name: str, most: int) -> str:
    """Return *name* if it has at most *most* bytes, else its beginning and a hash of the whole."""
    encoded = name.encode()
    if len(encoded) <= most:
        return name
    digest = f"~{hashlib.sha256(encoded).hexdigest()[:32]}"
    return encoded[: most - len(digest)].decode(errors="ignore") + digest
