"""The interface that each backend implements.

`Storage` is what every backend offers. `pfstorage.backends.capabilities` has the optional abilities.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from pfstorage.backends.checksums import EMPTY_MD5
from pfstorage.keys.mapping import is_directory_marker
from pfstorage.settings.model import Settings

# Bytes to read or write at a time. No object is ever in memory as a whole.
CHUNK = 256 * 1024

# Content types that mark an empty object as a directory: ``swift upload``, Cyberduck, rclone and others set them.
DIRECTORY_TYPES = frozenset({"application/directory", "text/directory", "httpd/unix-directory"})


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """The metadata of one object, or one row of a listing.

    - *key*: the name of the object, or of a group of objects if *is_subdir* is true (see `Storage.list`).
    - *size*: the number of bytes; None if the store does not report it.
    - *etag*: an opaque version. Two objects of one store with the same etag have the same bytes, unless *size*
      is 0: then the etag proves nothing.
    - *last_modified*: UTC in ISO 8601 without a zone, as Swift writes it.
    - *content_type*: the MIME type.
    - *segments_etag*: for a large object that is stored in segments, the MD5 of their MD5s. *etag* is then the
      etag of the manifest.
    - *mtime_ns*: the modification time of the original file, in nanoseconds since the epoch. Listings don't have it.
    - *content_encoding*: the encoding in which the bytes are stored and sent. Listings don't have it.

    A text is "" and *mtime_ns* is None if the store does not report it.
    """

    key: str
    size: int | None = None
    etag: str = ""
    last_modified: str = ""
    content_type: str = "application/octet-stream"
    is_subdir: bool = False
    segments_etag: str = ""
    mtime_ns: int | None = None
    content_encoding: str = ""

    @property
    def md5(self) -> str:
        """The hexadecimal MD5 of the bytes; "" if it is unknown."""
        may_be_md5 = self.size != 0 and not self.segments_etag and self.etag != EMPTY_MD5
        return self.etag if may_be_md5 and re.fullmatch("[0-9a-f]{32}", self.etag) else ""

    @property
    def seems_empty(self) -> bool:
        """Whether the size is 0 or the MD5 is the MD5 of zero bytes.

        A listing may show an object with content in this way: Swift does so for dynamic large objects and symlinks.
        """
        return self.size == 0 or (self.etag == EMPTY_MD5 and not self.segments_etag)

    @property
    def is_directory(self) -> bool:
        """Whether the object marks a directory: its key ends in a slash, or it is empty and has such a type.

        A listing may show a large object (DLO) as empty. Call `Storage.head` before you treat it as a directory.

        >>> ObjectInfo("d", 0, content_type="Application/Directory; charset=UTF-8").is_directory
        True
        >>> ObjectInfo("d", 1, content_type="application/directory").is_directory
        False
        """
        if is_directory_marker(self.key):
            return True
        return self.size == 0 and self.content_type.partition(";")[0].strip().lower() in DIRECTORY_TYPES

    def as_row(self) -> dict[str, str | int | None]:
        """Return the row of a reply, with Swift's field names. Unknown values are None."""
        if self.is_subdir:
            return {"subdir": self.key}
        return {
            "name": self.key,
            "bytes": self.size,
            "hash": self.etag or None,
            "last_modified": self.last_modified or None,
            "content_type": self.content_type or None,
        }


@dataclass(frozen=True, slots=True)
class ByteRange:
    """*size* bytes of an object, starting at *offset*; without *size*, all bytes to the end.

    A negative *offset* counts from the end of the object. If *etag* is set, the object must still have it. *md5* is
    the expected hexadecimal MD5 of the bytes in the range, "" if it is unknown.
    """

    offset: int
    size: int | None = None
    etag: str = ""
    md5: str = ""

    def bounds(self, total: int) -> tuple[int, int]:
        """Return the offset and the number of bytes of this range in an object of *total* bytes.

        >>> ByteRange(3, 4).bounds(5), ByteRange(-2).bounds(5), ByteRange(9).bounds(5)
        ((3, 2), (3, 2), (5, 0))
        """
        start = max(0, total + self.offset) if self.offset < 0 else min(self.offset, total)
        return start, total - start if self.size is None else min(self.size, total - start)


@dataclass(frozen=True, slots=True)
class Attributes:
    """Metadata to store with an object. Without *content_type*, the key determines the type.

    *mtime_ns* is the modification time of the original file, in nanoseconds since the epoch. It may need more than
    64 bits.
    """

    content_type: str = ""
    mtime_ns: int | None = None


NO_ATTRIBUTES = Attributes()


class Sink(Protocol):
    """The receiver of the bytes of `Storage.get`.

    A sink may have a method ``begin(info)``. `Storage.get` calls it with the `ObjectInfo` before the first byte,
    and again if the download starts over before any byte arrived. An exception of ``begin`` ends the download and
    passes through.
    """

    def write(self, data: bytes | memoryview, /) -> int | None: ...


class Source(Protocol):
    """The body of `Storage.put`: seekable, because a failed request is sent again.

    A source may have an attribute ``window``: the number of bytes that it can seek back over. Only storages with
    `SupportsStreams` accept such a source.
    """

    def read(self, size: int = -1, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def tell(self) -> int: ...


class Storage(Protocol):
    """One container (bucket) of one object store.

    Several threads may call the methods at once. Methods raise only subclasses of `StorageError`, never the errors
    of an SDK. Two kinds of exceptions pass through unchanged: those of a sink, and a `PfstorageError` of a body.
    Any method but `close` may raise `UnavailableError`, `UnauthenticatedError` or `PermissionDeniedError`.
    A storage is a context manager that closes itself.
    """

    @property
    def settings(self) -> Settings:
        """The settings that this storage was opened with."""
        ...

    def list(
        self,
        prefix: str = "",
        *,
        start_after: str = "",
        stop_before: str = "",
        limit: int | None = None,
        delimiter: str = "",
    ) -> Iterator[ObjectInfo]:
        """Yield the objects whose keys start with *prefix*, in ascending order of the UTF-8 bytes of the keys.

        *prefix* is a plain string: ``a/b`` matches ``a/bc``. Keys are greater than *start_after* and, if it is set,
        less than *stop_before*. At most *limit* rows are returned. With *delimiter*, all keys that contain it after
        the prefix are grouped: a row with `ObjectInfo.is_subdir` has the common beginning of their keys, up to and
        including the delimiter. If nothing matches, the iterator is empty.

        Pages are requested when they are needed, one page ahead. One thread at a time may use the iterator. Raise
        `ContainerNotFoundError`, with the first row, if the container does not exist.
        """
        ...

    def head(self, key: str) -> ObjectInfo:
        """Return the metadata of *key*. Raise `NotFoundError` if there is no such object."""
        ...

    def get(self, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
        """Write the bytes of *key*, or of one range of them, into *sink*; return the metadata of the object.

        Bytes are written in order, and each byte once. The metadata come from the same request as the bytes. A
        dropped download continues at the byte that it had reached. The size and the MD5, if the store or
        *byte_range* has one, are verified. The returned size is None if nothing proves that all bytes arrived.

        Raise `NotFoundError`, `IntegrityError` if the bytes are wrong, or `RejectedError`: with the status 416 if
        the object has no bytes in *byte_range*, and 412 if the object was replaced. After an error, discard the
        bytes in *sink*.
        """
        ...

    def put(
        self,
        key: str,
        body: Source,
        size: int,
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        """Store *size* bytes of *body*, from its present position, as *key*; return the metadata of the new object.

        This is atomic: readers see the old object or the whole new one. With *if_absent*, an existing object stays,
        and the method raises `ExistsError`. If the settings say so, a missing container is created.

        Raise `LocalFileError` if *body* does not have *size* bytes, `InvalidKeyError`, `NoSpaceError`, or
        `IntegrityError` if the store received other bytes.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove *key*. Raise `NotFoundError` if there is no such object."""
        ...

    def copy(self, source: str, target: str) -> ObjectInfo:
        """Copy *source* to *target* inside the store, with its content type and mtime, and replace *target* atomically.

        Return the metadata of the new object. Raise `NotFoundError` if *source* does not exist.
        """
        ...

    def close(self) -> None:
        """Release all resources. Requests in progress end normally; later requests are errors."""
        ...

    def __enter__(self) -> Storage: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
