"""What is too large for one request: pieces of it go side by side."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import replace

from pfstorage.backends import ObjectInfo
from pfstorage.backends.capabilities import Part, SupportsMultipart, rewind_window
from pfstorage.backends.checksums import new_md5, segments_etag_of
from pfstorage.backends.contract import CHUNK, Attributes, ByteRange, Source
from pfstorage.backends.errors import SilentStoreError, damaged_segment_error
from pfstorage.errors import IntegrityError, NotFoundError, PfstorageError, StoppedError, UnavailableError
from pfstorage.local import Body, NewFile
from pfstorage.transfer.context import TransferContext


def md5_of(source: Source) -> str:
    """Return the MD5 of what is left of *source*, in hexadecimal."""
    digest = new_md5()
    while chunk := source.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def split(size: int, part_size: int) -> list[Part]:
    """Return the pieces of *size* bytes.

    >>> split(5, 2)
    [Part(offset=0, size=2, md5=''), Part(offset=2, size=2, md5=''), Part(offset=4, size=1, md5='')]
    """
    return [Part(start, min(part_size, size - start)) for start in range(0, size, part_size)]


def is_same(context: TransferContext, body: Body, known: ObjectInfo) -> bool:
    """Tell whether *body*, of the size of *known* if that is known, has the bytes of that object of segments.

    Its segments most likely have the size that they would be given now; only if they
    don't is the store asked what they are.
    """
    storage = context.storage
    if not isinstance(storage, SupportsMultipart):
        return False
    likely = split(body.size, storage.part_size(body.size, context.options.segment_size))
    if segments_etag_of(_md5s(context, body, likely)) == known.segments_etag:
        return True
    pieces = storage.list_parts(known)
    if [(piece.offset, piece.size) for piece in pieces] == [(piece.offset, piece.size) for piece in likely]:
        return False
    if sum(piece.size for piece in pieces) != body.size:
        return False
    return all(piece.md5 for piece in pieces) and _md5s(context, body, pieces) == [p.md5 for p in pieces]


def _md5s(context: TransferContext, body: Body, pieces: Sequence[Part]) -> list[str]:
    def md5(piece: Part) -> str:
        context.cancellation.raise_if_overdue()
        return md5_of(body.part(piece.offset, piece.size))

    return context.pool.share([functools.partial(md5, piece) for piece in pieces])


def push(
    context: TransferContext,
    key: str,
    body: Body,
    part_size: int,
    attributes: Attributes,
    known: ObjectInfo | None,
) -> tuple[ObjectInfo, int]:
    """Store *body* in segments of *part_size* bytes, in place of *known*; return it, and the bytes that were sent.

    Segments that an earlier try left are used. Those of this one are left for a later one if
    it is stopped, or if the store does not answer: that may pass.
    """
    assert isinstance(context.storage, SupportsMultipart)
    upload = context.storage.start_multipart_upload(key, body.size, part_size, attributes, known)
    stored = upload.stored()
    known_offsets = {piece.offset for piece in stored}

    def put(piece: Part) -> tuple[Part, int]:
        context.cancellation.raise_if_overdue()
        part = body.part(piece.offset, piece.size)
        if piece.offset in known_offsets:
            there = replace(piece, md5=md5_of(part))
            if there in stored and upload.reuse(there):
                return there, 0
            part.seek(0)
        return upload.put(context.source(part), piece.offset, piece.size), piece.size

    try:
        put_now = context.pool.share([functools.partial(put, piece) for piece in split(body.size, part_size)])
        info = upload.finish([piece for piece, _ in put_now], if_absent=context.options.if_absent)
    except (StoppedError, UnavailableError):
        raise
    except PfstorageError:
        upload.discard()
        raise
    return info, sum(size for _, size in put_now)


class _PartSource:
    """The next *size* bytes of *source*, as a source of their own. It goes back as far as that does."""

    def __init__(self, source: Source, size: int) -> None:
        self.window = rewind_window(source)
        self._source = source
        self._start = source.tell()
        self._size = size

    def read(self, size: int = -1) -> bytes:
        left = self._size - self.tell()
        return self._source.read(left if size < 0 else min(size, left)) if left else b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._source.seek(self._start + offset, whence) - self._start

    def tell(self) -> int:
        return self._source.tell() - self._start


def push_in_order(
    context: TransferContext,
    key: str,
    body: Source,
    size: int,
    part_size: int,
    attributes: Attributes,
    known: ObjectInfo | None,
) -> tuple[ObjectInfo, int]:
    """Do as `push` does with *size* bytes of a *body* that is read once, from its beginning to its end.

    Its segments go one after the other, and nobody can use them for a later try: if it fails, it removes them,
    unless the store is silent; then they are for `swift_sweep`.
    """
    assert isinstance(context.storage, SupportsMultipart)
    upload = context.storage.start_multipart_upload(key, size, part_size, attributes, known)
    source = context.source(body)
    try:
        pieces = [
            upload.put(_PartSource(source, piece.size), piece.offset, piece.size)
            for piece in split(size, part_size)
        ]
        return upload.finish(pieces, if_absent=context.options.if_absent), size
    except BaseException as e:
        # it would be silent for each of them
        if not isinstance(e, SilentStoreError):
            upload.discard()
        raise


def pull(context: TransferContext, known: ObjectInfo, file: NewFile) -> ObjectInfo:
    """Fetch the object *known*, whose size is known, into *file*, ranges of it side by side; return what it is.

    Raise `IntegrityError` if the bytes are not those of its MD5, or of those of its segments.
    """
    assert known.size is not None
    pieces: Sequence[Part] = split(known.size, context.options.range_size)
    if known.segments_etag and isinstance(context.storage, SupportsMultipart):
        pieces = context.storage.list_parts(known)
    ordered = _OrderedMd5(file) if known.md5 else None
    file.preallocate(known.size)
    etag = known.segments_etag or known.etag

    def get(piece: Part) -> ObjectInfo:
        sink = _OffsetSink(file, piece.offset)
        byte_range = ByteRange(piece.offset, piece.size, etag, piece.md5)
        info = context.storage.get(known.key, context.sink(sink), byte_range)
        if ordered:
            ordered.add(piece.offset, piece.size)
        return info

    infos = context.pool.share([functools.partial(get, piece) for piece in pieces])
    _check_without_md5s(context, known, file, pieces)
    if ordered and ordered.hexdigest() != known.md5:
        raise IntegrityError(
            f"{known.key!r}: the bytes that came don't have the store's MD5; pull it again", key=known.key
        )
    return infos[0]


def verify_whole(known: ObjectInfo, file: NewFile) -> None:
    """Raise `IntegrityError` unless *file* has the bytes of *known*, which tells their MD5."""
    if _md5_in(file, 0, file.size) != known.md5:
        raise IntegrityError(
            f"{known.key!r}: the bytes that came don't have the MD5 of the listing; pull it again",
            key=known.key,
        )


def verify(context: TransferContext, info: ObjectInfo, file: NewFile) -> None:
    """Raise `IntegrityError` unless *file* has the bytes of the segments of *info*."""
    if not isinstance(context.storage, SupportsMultipart):
        return
    try:
        pieces = context.storage.list_parts(info)
    except NotFoundError as e:  # it was replaced since: what is under its key now is asked for
        raise IntegrityError(str(e), key=info.key) from e
    if sum(piece.size for piece in pieces) != file.size:
        raise damaged_segment_error(info.key)
    for piece in pieces:
        if piece.md5 and _md5_in(file, piece.offset, piece.size) != piece.md5:
            raise damaged_segment_error(info.key)
    _check_without_md5s(context, info, file, pieces)


def _check_without_md5s(
    context: TransferContext, known: ObjectInfo, file: NewFile, pieces: Sequence[Part]
) -> None:
    """Warn if the store does not tell the MD5 of each of *pieces*, unless *file* has the etag of *known* all the same.

    It has, if the segments are of the size that a push would give them now.
    """
    if not known.segments_etag or all(piece.md5 for piece in pieces):
        return
    assert isinstance(context.storage, SupportsMultipart)
    likely = split(file.size, context.storage.part_size(file.size, context.options.segment_size))
    if segments_etag_of(_md5_in(file, piece.offset, piece.size) for piece in likely) != known.segments_etag:
        now = context.storage.head(known.key)
        if (now.size, now.segments_etag) != (file.size, known.segments_etag):
            raise IntegrityError(f"{known.key!r}: not all of it came, or it is another by now", key=known.key)
        context.warn_once(
            "large objects were not verified by an MD5 for all their bytes, since the store does not tell it",
            repr(known.key),
        )


def _md5_in(file: NewFile, offset: int, size: int) -> str:
    ordered = _OrderedMd5(file, offset)
    ordered.add(offset, size)
    return ordered.hexdigest()


class _OffsetSink:
    """A sink that writes from an offset on."""

    def __init__(self, file: NewFile, offset: int) -> None:
        self._file = file
        self._offset = offset

    def write(self, data: bytes | memoryview) -> int:
        self._file.write_at(data, self._offset)
        self._offset += len(data)
        return len(data)


class _OrderedMd5:
    """The MD5 of a file whose pieces come in any order: whoever brings the next one hashes it."""

    def __init__(self, file: NewFile, start: int = 0) -> None:
        self._file = file
        self._digest = new_md5()
        self._next = start
        self._pending: dict[int, int] = {}
        self._is_hashing = False
        self._lock = threading.Lock()

    def add(self, offset: int, size: int) -> None:
        """Take into account that *size* bytes from *offset* on are in the file."""
        with self._lock:
            self._pending[offset] = size
            if self._is_hashing:
                return
            self._is_hashing = True
        while True:
            with self._lock:
                length = self._pending.pop(self._next, None)
                if length is None:
                    self._is_hashing = False
                    return
            self._hash(length)

    def _hash(self, size: int) -> None:
        end = self._next + size
        while self._next < end:
            chunk = self._file.read_at(min(CHUNK, end - self._next), self._next)
            if not chunk:
                raise IntegrityError("a file became shorter while it was written")
            self._digest.update(chunk)
            self._next += len(chunk)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
