"""Whether a local file has the bytes of an object, as far as a listing can show: no object is asked for."""

from __future__ import annotations

from pfstorage.backends import ObjectInfo
from pfstorage.local import Body
from pfstorage.transfer import multipart as large
from pfstorage.transfer.context import TransferContext


def has_same_bytes(context: TransferContext, body: Body, known: ObjectInfo) -> bool:
    """Tell whether *body* has the bytes of *known*. What is listed as empty is not known to be the same.

    For large objects that are made of whatever begins with a prefix (DLO), and
    links, are listed so; only where *body* is not empty the store is asked what it is. It is asked, too, where the
    listing tells neither size nor MD5. Where nobody tells the size, the MD5 decides alone.
    """
    is_unknown = known.size is None and not (known.md5 or known.segments_etag)
    if is_unknown or (known.seems_empty and body.size):
        known = context.storage.head(known.key)
    return has_equal_bytes(context, body, known)


def has_equal_bytes(context: TransferContext, body: Body, known: ObjectInfo) -> bool:
    """Tell whether *body* has the bytes of *known*, and some at all."""
    if known.size == 0 or known.size not in (None, body.size):
        return False
    if known.segments_etag:
        return large.is_same(context, body, known)
    return bool(known.md5) and large.md5_of(body.part(0, body.size)) == known.md5
