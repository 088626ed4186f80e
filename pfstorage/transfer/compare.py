"""Compare a local file with an object by size and MD5, without a download."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from pfstorage.backends import ObjectInfo
from pfstorage.backends.capabilities import Part, SupportsMultipart
from pfstorage.backends.checksums import new_md5
from pfstorage.backends.contract import CHUNK, Source
from pfstorage.local import Body
from pfstorage.transfer.context import TransferContext


def md5_of(source: Source) -> str:
    """Return the MD5 of *source*, from its present position to its end, in hexadecimal."""
    digest = new_md5()
    while chunk := source.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def split_into_parts(size: int, part_size: int) -> list[Part]:
    """Divide *size* bytes into parts of *part_size* bytes. The last part may be smaller.

    >>> split_into_parts(5, 4)
    [Part(offset=0, size=4, md5=''), Part(offset=4, size=1, md5='')]
    """
    return [Part(start, min(part_size, size - start)) for start in range(0, size, part_size)]


def has_same_bytes(context: TransferContext, body: Body, known: ObjectInfo) -> bool:
    """Return whether *body* has the bytes of the object *known*, the row of a listing.

    Send a HEAD if the listing has neither a size nor an MD5, and if it shows an empty object but *body* is not empty:
    see `ObjectInfo.seems_empty`. If the object is empty or has no MD5, return False.
    """
    is_unknown = known.size is None and not (known.md5 or known.segments_etag)
    if is_unknown or (known.seems_empty and body.size):
        known = context.storage.head(known.key)
    return has_equal_checksum(context, body, known)


def has_equal_checksum(context: TransferContext, body: Body, known: ObjectInfo) -> bool:
    """Return whether *body* has the size and the MD5 of *known*. If the size of *known* is None, compare the MD5 alone.

    If the object is empty or has no MD5, return False.
    """
    if known.size == 0 or known.size not in (None, body.size):
        return False
    if known.segments_etag:
        return _has_same_parts(context, body, known)
    return bool(known.md5) and md5_of(body.part(0, body.size)) == known.md5


def _has_same_parts(context: TransferContext, body: Body, known: ObjectInfo) -> bool:
    """Return whether *body* has the bytes of a large object.

    Assume first that the parts have the size that an upload would give them now: that needs no request. Ask the store
    for the parts only if the etag differs.
    """
    storage = context.storage
    if not isinstance(storage, SupportsMultipart):
        return False
    likely = split_into_parts(body.size, storage.part_size(body.size, context.options.segment_size))
    if storage.multipart_etag(_md5s(context, body, likely)) == known.segments_etag:
        return True
    parts = storage.list_parts(known)
    if [(part.offset, part.size) for part in parts] == [(part.offset, part.size) for part in likely]:
        return False
    if sum(part.size for part in parts) != body.size:
        return False
    return all(part.md5 for part in parts) and _md5s(context, body, parts) == [part.md5 for part in parts]


def _md5s(context: TransferContext, body: Body, parts: Sequence[Part]) -> list[str]:
    def md5(part: Part) -> str:
        context.cancellation.raise_if_overdue()
        return md5_of(body.part(part.offset, part.size))

    return context.pool.share([functools.partial(md5, part) for part in parts])
