"""Upload and download large files in parts, several at once, and verify them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import replace

from pfstorage.backends import ObjectInfo
from pfstorage.backends.capabilities import Part, SupportsMultipart, rewind_window
from pfstorage.backends.checksums import new_md5
from pfstorage.backends.contract import CHUNK, Attributes, ByteRange, Source
from pfstorage.backends.errors import SilentStoreError, damaged_segment_error
from pfstorage.errors import IntegrityError, NotFoundError, PfstorageError, StoppedError, UnavailableError
from pfstorage.local import Body, NewFile
from pfstorage.transfer.compare import md5_of, split_into_parts
from pfstorage.transfer.context import TransferContext


def upload_parts(
    context: TransferContext,
    key: str,
    body: Body,
    part_size: int,
    attributes: Attributes,
    known: ObjectInfo | None,
) -> tuple[ObjectInfo, int]:
    """Store *body* as *key* in parts of *part_size* bytes, several at once. *known* is the replaced object.

    Return the new object and the number of bytes sent. Parts of an earlier, unfinished upload are not sent again. If
    this upload is stopped, or the store does not answer, its parts stay in the store for the next try. After any other
    error, they are removed.
    """
    assert isinstance(context.storage, SupportsMultipart)
    upload = context.storage.start_multipart_upload(key, body.size, part_size, attributes, known)
    stored = upload.stored()
    stored_offsets = {part.offset for part in stored}

    def put(part: Part) -> tuple[Part, int]:
        context.cancellation.raise_if_overdue()
        source = body.part(part.offset, part.size)
        if part.offset in stored_offsets:
            candidate = replace(part, md5=md5_of(source))
            if candidate in stored and upload.reuse(candidate):
                return candidate, 0
            source.seek(0)
        return upload.put(context.source(source), part.offset, part.size), part.size

    try:
        parts = split_into_parts(body.size, part_size)
        results = context.pool.share([functools.partial(put, part) for part in parts])
        info = upload.finish([part for part, _ in results], if_absent=context.options.if_absent)
    except (StoppedError, UnavailableError):
        raise
    except PfstorageError:
        upload.discard()
        raise
    return info, sum(size for _, size in results)


class _PartSource:
    """The next *size* bytes of *source*. It can rewind as far as *source* can."""

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


def upload_stream(
    context: TransferContext,
    key: str,
    body: Source,
    size: int,
    part_size: int,
    attributes: Attributes,
    known: ObjectInfo | None,
) -> tuple[ObjectInfo, int]:
    """Store *size* bytes of *body* as `upload_parts` does, but read *body* once and in order, one part after another.

    No later upload can use the parts. So they are removed after any error, unless the store does not answer. Then
    objSweep finds them.
    """
    assert isinstance(context.storage, SupportsMultipart)
    upload = context.storage.start_multipart_upload(key, size, part_size, attributes, known)
    source = context.source(body)
    try:
        parts = [
            upload.put(_PartSource(source, part.size), part.offset, part.size)
            for part in split_into_parts(size, part_size)
        ]
        return upload.finish(parts, if_absent=context.options.if_absent), size
    except BaseException as e:
        if not isinstance(e, SilentStoreError):  # each removal would wait for a timeout
            upload.discard()
        raise


def download_ranges(context: TransferContext, known: ObjectInfo, file: NewFile) -> ObjectInfo:
    """Download the object *known*, which has a size, into *file*: several ranges at once. Return the object.

    Raise `IntegrityError` if the bytes don't have its MD5, or those of its segments. Raise `NotFoundError` or
    `RejectedError` if the object was removed or replaced.
    """
    assert known.size is not None
    parts: Sequence[Part] = split_into_parts(known.size, context.options.range_size)
    if known.segments_etag and isinstance(context.storage, SupportsMultipart):
        parts = context.storage.list_parts(known)
    md5 = _OrderedMd5(file) if known.md5 else None
    file.preallocate(known.size)
    etag = known.segments_etag or known.etag

    def get(part: Part) -> ObjectInfo:
        sink = _OffsetSink(file, part.offset)
        byte_range = ByteRange(part.offset, part.size, etag, part.md5)
        info = context.storage.get(known.key, context.sink(sink), byte_range)
        if md5:
            md5.add(part.offset, part.size)
        return info

    infos = context.pool.share([functools.partial(get, part) for part in parts])
    _check_unverified_parts(context, known, file, parts)
    if md5 and md5.hexdigest() != known.md5:
        text = f"{known.key!r}: the downloaded bytes don't have the store's MD5; pull it again"
        raise IntegrityError(text, key=known.key)
    return infos[0]


def verify_md5(known: ObjectInfo, file: NewFile) -> None:
    """Raise `IntegrityError` unless *file* has the MD5 of *known*."""
    if _md5_in(file, 0, file.size) != known.md5:
        text = f"{known.key!r}: the downloaded bytes don't have the MD5 of the listing; pull it again"
        raise IntegrityError(text, key=known.key)


def verify_parts(context: TransferContext, info: ObjectInfo, file: NewFile) -> None:
    """Raise `IntegrityError` unless *file* has the MD5s of the parts of *info*."""
    if not isinstance(context.storage, SupportsMultipart):
        return
    try:
        parts = context.storage.list_parts(info)
    except (
        NotFoundError
    ) as e:  # replaced after the download: an IntegrityError makes the caller download it again
        raise IntegrityError(str(e), key=info.key) from e
    if sum(part.size for part in parts) != file.size:
        raise damaged_segment_error(info.key)
    for part in parts:
        if part.md5 and _md5_in(file, part.offset, part.size) != part.md5:
            raise damaged_segment_error(info.key)
    _check_unverified_parts(context, info, file, parts)


def _check_unverified_parts(
    context: TransferContext, known: ObjectInfo, file: NewFile, parts: Sequence[Part]
) -> None:
    """Verify *file* in another way if a part has no MD5.

    Compute the etag of *known* from parts of the size that an upload would choose now. If it differs, compare size and
    etag with a HEAD, raise `IntegrityError` if they differ, and warn that the bytes were not verified.
    """
    if not known.segments_etag or all(part.md5 for part in parts):
        return
    storage = context.storage
    assert isinstance(storage, SupportsMultipart)
    likely = split_into_parts(file.size, storage.part_size(file.size, context.options.segment_size))
    md5s = (_md5_in(file, part.offset, part.size) for part in likely)
    if storage.multipart_etag(md5s) != known.segments_etag:
        now = storage.head(known.key)
        if (now.size, now.segments_etag) != (file.size, known.segments_etag):
            text = f"{known.key!r}: the download is incomplete, or the object was replaced; pull it again"
            raise IntegrityError(text, key=known.key)
        context.warn_once(
            "large objects were not verified by an MD5 for all their bytes, since the store does not report one",
            repr(known.key),
        )


def _md5_in(file: NewFile, offset: int, size: int) -> str:
    md5 = _OrderedMd5(file, offset)
    md5.add(offset, size)
    return md5.hexdigest()


class _OffsetSink:
    """A sink that writes to *file* from *offset* on."""

    def __init__(self, file: NewFile, offset: int) -> None:
        self._file = file
        self._offset = offset

    def write(self, data: bytes | memoryview) -> int:
        self._file.write_at(data, self._offset)
        self._offset += len(data)
        return len(data)


class _OrderedMd5:
    """The MD5 of *file*, computed while its parts arrive in any order. Any thread may call `add`."""

    def __init__(self, file: NewFile, start: int = 0) -> None:
        self._file = file
        self._digest = new_md5()
        self._next = start
        self._pending: dict[int, int] = {}
        self._is_hashing = False
        self._lock = threading.Lock()

    def add(self, offset: int, size: int) -> None:
        """Note that the file has *size* bytes at *offset*. Hash them if all bytes before them are hashed."""
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
                raise IntegrityError("a file was truncated during its download; pull it again")
            self._digest.update(chunk)
            self._next += len(chunk)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
