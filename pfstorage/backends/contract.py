"""The contract of a backend: what it offers, and nothing of how."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, runtime_checkable

from pfstorage.backends.leftovers import Leftover, Leftovers, RunAll
from pfstorage.backends.retry import RetryPolicy
from pfstorage.keys.mapping import is_directory_marker
from pfstorage.local import DenyList
from pfstorage.settings.model import Settings

CHUNK = 256 * 1024
"""Bytes moved at a time. An object is never whole in memory."""


EMPTY_MD5 = "d41d8cd98f00b204e9800998ecf8427e"
"""That of no bytes. Ceph lists it for large objects, with the size of their manifest."""
DIRECTORY_TYPES = frozenset({"application/directory", "text/directory", "httpd/unix-directory"})
"""Content types by which ``swift upload``, Cyberduck, rclone and others mark an empty object as a directory."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One row of a listing, or what a store says of one object.

    *size* is in bytes, None where the store does not tell it. *etag* is opaque: two objects with the same etag in one
    store hold the same bytes, unless *size* is 0, where it says nothing. Texts that the store does not tell are "".
    *segments_etag* is that of a large object that is stored in segments, the MD5 of
    their MD5s; its *etag* is then that of a list of them. *last_modified* is UTC in
    ISO 8601 without a zone, as Swift writes it. *mtime_ns* is the time of the file
    that the object was made of, since the epoch, where it is known: a listing never tells. Nor does it tell
    *content_encoding*, in which the bytes are stored, and given out.
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
        """The MD5 of the bytes, in hexadecimal; "" where it is not known."""
        may_be_md5 = self.size != 0 and not self.segments_etag and self.etag != EMPTY_MD5
        return self.etag if may_be_md5 and re.fullmatch("[0-9a-f]{32}", self.etag) else ""

    @property
    def seems_empty(self) -> bool:
        """Whether its size or its MD5 is that of no bytes: a listing may show a large object so, or a link."""
        return self.size == 0 or (self.etag == EMPTY_MD5 and not self.segments_etag)

    @property
    def is_directory(self) -> bool:
        """Whether it marks a directory: by a slash at the end of its key, or, if it is empty, by its content type.

        What a listing shows as empty may be a large object (DLO): see `Storage.head` before it is taken for none.

        >>> ObjectInfo("d", 0, content_type="Application/Directory; charset=UTF-8").is_directory
        True
        >>> ObjectInfo("d", 1, content_type="application/directory").is_directory
        False
        """
        if is_directory_marker(self.key):
            return True
        return self.size == 0 and self.content_type.partition(";")[0].strip().lower() in DIRECTORY_TYPES

    def as_row(self) -> dict[str, str | int | None]:
        """Return the row as the wire names it, in Swift's words. What the store does not tell is None."""
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
    """*size* bytes of an object from *offset* on, or all from there on; with a negative *offset*, its last ones.

    With *etag*, the bytes of the object must still be those of that one. *md5* is that of the span, in hexadecimal,
    where it is known.
    """

    offset: int
    size: int | None = None
    etag: str = ""
    md5: str = ""

    def bounds(self, total: int) -> tuple[int, int]:
        """Return the first byte of it in an object of *total* bytes, and how many bytes there are.

        >>> ByteRange(3, 4).bounds(5), ByteRange(-2).bounds(5), ByteRange(9).bounds(5)
        ((3, 2), (3, 2), (5, 0))
        """
        start = max(0, total + self.offset) if self.offset < 0 else min(self.offset, total)
        return start, total - start if self.size is None else min(self.size, total - start)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is stored with the bytes of an object. Without a *content_type*, the key tells it."""

    content_type: str = ""
    mtime_ns: int | None = None


NO_ATTRIBUTES = Attributes()


class Sink(Protocol):
    """Where `Storage.get` writes to.

    One that has a method ``begin(info)`` is told before the first byte what object comes, an `ObjectInfo`, and once
    more if the download broke off before any byte came. What that raises ends the download and passes through.
    """

    def write(self, data: bytes | memoryview, /) -> int | None: ...


class Source(Protocol):
    """What `Storage.put` reads from. It is seekable, since what fails is sent again.

    One that has an attribute ``window`` goes back over so many bytes at most: see `SupportsStreams`.
    """

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
        self,
        prefix: str = "",
        *,
        start_after: str = "",
        stop_before: str = "",
        limit: int | None = None,
        delimiter: str = "",
    ) -> Iterator[ObjectInfo]:
        """Yield every object whose key starts with *prefix*, in ascending order of its UTF-8 bytes.

        *prefix* is a plain string prefix: ``a/b`` matches ``a/bc``. Rows begin
        after *start_after*, and end before *stop_before* or after *limit*. With *delimiter*, keys that contain it
        after the prefix are rolled up into one row, `ObjectInfo.is_subdir`, whose
        key is the common part with the delimiter. No match is an empty iterator,
        not an error. Pages are fetched as they are needed, one ahead.
        Raise `ContainerNotFoundError` if there is no container, at the first row.
        """
        ...

    def head(self, key: str) -> ObjectInfo:
        """Return what the store says of *key*. Raise `NotFoundError` if it isn't there."""
        ...

    def get(self, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
        """Write the bytes of *key* into *sink*, in order, each once; return what they are.

        It is one request to the store. The bytes are checked against the size and, where it is known, the MD5 that
        the store gives, or the *byte_range*. What is returned has no size where nothing shows that all of it came. A
        download that breaks goes on where it was. Raise `NotFoundError`, `IntegrityError` if the bytes are
        not those, or `RejectedError` of the status 416 if there is nothing in the *byte_range*, and of 412 if the
        object is another meanwhile; *sink* has then got some, which are worth nothing.
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
        """Store *size* bytes of *body* as *key*, replacing what was there, whole or not at all.

        *body* is read from its present position. A missing container is made if the
        settings say so. With *if_absent*, an object that is there stays: raise `ExistsError`.
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


@runtime_checkable
class SupportsPartialListing(Protocol):
    """A storage that may have something in it which it may not list: an error, unless somebody can tell of it."""

    def allow_partial_listing(self, note: Callable[[str, str], None]) -> Storage:
        """Return this storage, whose listings leave out what they can't show.

        *note* is told the prefix of all that was left out, or its key, and why. It is an error all the
        same if the whole listing lies there.
        """
        ...


def list_partially(storage: Storage, note: Callable[[str, str], None]) -> Storage:
    """Return *storage* with `SupportsPartialListing.allow_partial_listing` applied, or unchanged without it."""
    return storage.allow_partial_listing(note) if isinstance(storage, SupportsPartialListing) else storage


@runtime_checkable
class SupportsDenyList(Protocol):
    """A storage whose objects are local files, among which some of the server's own may come to lie."""

    def with_deny_list(self, closed: DenyList) -> Storage:
        """Return this storage without what is *closed*: nobody may list, read or replace that."""
        ...


@runtime_checkable
class SupportsRetryPolicy(Protocol):
    """A storage whose requests may fail and be repeated."""

    def with_retry_policy(self, retry_policy: RetryPolicy) -> Storage:
        """Return this storage, its connections and its login, to be used with another *retry_policy*."""
        ...


@runtime_checkable
class SupportsAbort(Protocol):
    """A storage that may have to be waited for."""

    def abort(self, reason: str) -> None:
        """End what waits for the store with `StoppedError`, soon, and let nothing wait any more.

        It is not asked again. What has another patience, see `SupportsRetryPolicy`, goes on, but for a
        login, which all share.
        """
        ...


@runtime_checkable
class SupportsStreams(Protocol):
    """A storage whose `Storage.put` may take a body that can't be read again from its beginning."""

    @property
    def takes_streams(self) -> bool:
        """Whether it does.

        A put then reads the body once, if nothing fails. It sends it again only if that has not read more than its
        ``window``, and else raises the error of the failure.
        """
        ...


def takes_streams(storage: object) -> bool:
    """Tell whether *storage* is one of `SupportsStreams`, and does."""
    return isinstance(storage, SupportsStreams) and storage.takes_streams


def rewind_window(body: object) -> float:
    """Return over how many bytes *body* goes back at most."""
    window: float = getattr(body, "window", math.inf)
    return window


@runtime_checkable
class SupportsConnections(Protocol):
    """A storage that keeps connections."""

    @property
    def connections(self) -> tuple[int, int]:
        """How many of them are at work, and how many idle."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """*size* bytes of an object from *offset* on, and their MD5; "" is not known."""

    offset: int
    size: int
    md5: str = ""


class MultipartUpload(Protocol):
    """A large object on its way into a store, piece by piece: nothing of it is seen before `finish`."""

    def stored(self) -> Set[Part]:
        """Return the pieces that earlier tries have left in the store, or that others are storing."""
        ...

    def reuse(self, piece: Part) -> bool:
        """Make one of `stored` a piece of this object, too; tell whether it is still there.

        From several threads at once.
        """
        ...

    def put(self, body: Source, offset: int, size: int) -> Part:
        """Store *size* bytes of *body* as the piece at *offset*. From several threads at once."""
        ...

    def finish(self, pieces: Sequence[Part], *, if_absent: bool = False) -> ObjectInfo:
        """Make the object of *pieces*, in order. Nothing is removed: others may use what it replaces.

        With *if_absent*, an object that is there stays: raise `ExistsError`.
        """
        ...

    def discard(self) -> None:
        """Remove the pieces that this failed upload has stored, unless another object may be made of them."""
        ...


@runtime_checkable
class SupportsMultipart(Protocol):
    """A storage that makes a large object of segments."""

    def part_size(self, size: int, wanted: int) -> int:
        """Return of how many bytes each piece of an object of *size* bytes is to be.

        That is *wanted*, or what the store's limits leave. Raise `ObjectTooLargeError` if
        the store can't hold so large an object at all.
        """
        ...

    def start_multipart_upload(
        self, key: str, size: int, part_size: int, attributes: Attributes, replaced: ObjectInfo | None
    ) -> MultipartUpload:
        """Begin to store *key*, in place of *replaced* as a listing showed it."""
        ...

    def list_parts(self, info: ObjectInfo) -> Sequence[Part]:
        """Return of what pieces the object of a listing row is made, in order. It is one request.

        Raise `NotFoundError` if it is gone, or another object by now. Where the store does not
        tell of what it is made, that is one piece whose MD5 is not known.
        """
        ...

    def leftovers(self, is_wanted: Callable[[str], bool], older_than: float, run_all: RunAll) -> Leftovers:
        """Return the segments that no object is made of: whatever may be made of one is asked.

        *is_wanted* tells of the key that a segment was stored for whether it is wanted; of a key that was too
        long for that, of its beginning. Those of an upload that has stored one in the last *older_than*
        seconds may yet become an object, and are left out. *run_all* does what it is given side by side.
        """
        ...

    def remove_leftover(self, leftover: Leftover) -> bool:
        """Remove one of `leftovers`, unless an upload has taken it meanwhile; tell whether it was removed."""
        ...
