"""MD5 sums in the forms that object stores use for etags."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def new_md5() -> hashlib._Hash:
    """Return a new MD5 hash object that also works in FIPS mode, which forbids MD5 for security."""
    return hashlib.md5(usedforsecurity=False)


# The MD5 of zero bytes. In listings, Ceph gives it to large objects, with the size of their manifest.
EMPTY_MD5 = new_md5().hexdigest()


def segments_etag_of(md5s: Iterable[str]) -> str:
    """Return the etag of a large object: the MD5 of the concatenated hexadecimal *md5s* of its segments.

    >>> segments_etag_of(["d41d8cd98f00b204e9800998ecf8427e"])
    '74be16979710d4c4e7c6647856088456'
    """
    digest = new_md5()
    digest.update("".join(md5s).encode())
    return digest.hexdigest()
