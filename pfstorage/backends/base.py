"""The contract of a backend: what it offers, and nothing of how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from pfstorage.config import Settings

CHUNK = 256 * 1024
"""Bytes moved at a time. An object is never whole in memory."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One row of a listing, or what a store says of one object.

    *size* is in bytes. *etag* is opaque: two objects with the same etag in one
    store hold the same bytes. One that has the form of an MD5 is the MD5 of the
    bytes, or of a manifest of segments; where *size* is 0 it says nothing.
    *last_modified* is UTC in ISO 8601 without a zone, as Swift writes it.
    """

    key: str
    size: int = 0
    etag: str = ""
    last_modified: str = ""
    content_type: str = "application/octet-stream"
    is_subdir: bool = False

    def as_row(self) -> dict[str, str | int]:
        """Return the row as the wire names it, in Swift's words."""
        if self.is_subdir:
            return {"subdir": self.key}
        return {
            "name": self.key,
            "bytes": self.size,
            "hash": self.etag,
            "last_modified": self.last_modified,
            "content_type": self.content_type,
        }


class Sink(Protocol):
    """Where `Storage.get` writes to."""

    def write(self, data: bytes, /) -> int | None: ...


class Source(Protocol):
    """What `Storage.put` reads from. It is seekable, since what fails is sent again."""

    def read(self, size: int = -1, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def tell(self) -> int: ...


class Storage(Protocol):
    """One container (bucket) of one object store.

    Methods may be called from several threads at once. They raise only subclasses
    of `StorageError`; an SDK's own errors never pass through. What a sink raises
    passes through unchanged, and so does a `PfstorageError` that a body raises.
    """

    @property
    def settings(self) -> Settings:
        """What this was opened with."""
        ...

    def list(
        self, prefix: str = "", *, marker: str = "", limit: int | None = None, delimiter: str = ""
    ) -> Iterator[ObjectInfo]:
        """Yield every object whose key starts with *prefix*, in ascending order of its UTF-8 bytes.

        *prefix* is a plain string prefix: ``a/b`` matches ``a/bc``. Rows begin
        after *marker*, and end after *limit*. With *delimiter*, keys that contain it
        after the prefix are rolled up into one row, `ObjectInfo.is_subdir`, whose
        key is the common part with the delimiter. No match is an empty iterator,
        not an error. Pages are fetched as they are needed.
        Raise `ContainerNotFoundError` if there is no container, at the first row.
        """
        ...

    def head(self, key: str) -> ObjectInfo:
        """Return what the store says of *key*. Raise `NotFoundError` if it isn't there."""
        ...

    def get(self, key: str, sink: Sink) -> ObjectInfo:
        """Write the bytes of *key* into *sink*, in order, each once; return what they are.

        The bytes are checked against the size and, where it is known, the MD5 that
        the store gives. Raise `NotFoundError`, or `IntegrityError` if the bytes are
        not those; *sink* has then got some, which are worth nothing.
        """
        ...

    def put(self, key: str, body: Source, size: int) -> ObjectInfo:
        """Store *size* bytes of *body* as *key*, replacing what was there, whole or not at all.

        *body* is read from its present position. A missing container is made if the
        settings say so.
        Raise `LocalFileError` if *body* has not that size, and `IntegrityError` if
        other bytes arrive than were sent.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove *key*. Raise `NotFoundError` if it isn't there."""
        ...

    def copy(self, source: str, target: str) -> ObjectInfo:
        """Make *target* what *source* is, inside the store. Raise `NotFoundError`."""
        ...

    def close(self) -> None:
        """Give back what is held. Work under way ends as it would have; none may begin."""
        ...

    def __enter__(self) -> Storage: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
