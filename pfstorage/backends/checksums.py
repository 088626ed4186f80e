"""MD5 sums in the forms that object stores use for etags."""

from __future__ import annotations

import hashlib


def new_md5() -> hashlib._Hash:
    """Return a new MD5 hash object that also works in FIPS mode, which forbids MD5 for security."""
    return hashlib.md5(usedforsecurity=False)


# The MD5 of zero bytes. In listings, Ceph gives it to large objects, with the size of their manifest.
EMPTY_MD5 = new_md5().hexdigest()
