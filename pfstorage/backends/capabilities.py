"""Optional abilities of a storage, each a protocol to test with ``isinstance``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pfstorage.backends.contract import Attributes, ObjectInfo, Source, Storage
from pfstorage.backends.retry import RetryPolicy
from pfstorage.local import DenyList

# Runs functions concurrently and returns their results, in order.
RunAll = Callable[[Sequence[Callable[[], Any]]], list[Any]]


@runtime_checkable
class SupportsPartialListing(Protocol):
    """A storage that may contain objects which it cannot list, such as unreadable directories."""

    def allow_partial_listing(self, on_skip: Callable[[str, str], None]) -> Storage:
        """Return this storage with listings that skip unreadable objects instead of raising.

        *on_skip* is called with the prefix or the key of the skipped objects, and the reason. If the prefix of the
        listing is itself unreadable, the listing still raises `PermissionDeniedError`.
        """
        ...


def list_partially(storage: Storage, on_skip: Callable[[str, str], None]) -> Storage:
    """Return *storage* with `SupportsPartialListing.allow_partial_listing` applied, or unchanged without it."""
    return storage.allow_partial_listing(on_skip) if isinstance(storage, SupportsPartialListing) else storage


@runtime_checkable
class SupportsDenyList(Protocol):
    """A storage whose objects are local files. The server's own files may be mounted or linked among them."""

    def with_deny_list(self, deny_list: DenyList) -> Storage:
        """Return this storage without the files of *deny_list*: they can't be listed, read or replaced."""
        ...


@runtime_checkable
class SupportsRetryPolicy(Protocol):
    """A storage that repeats failed requests."""

    def with_retry_policy(self, retry_policy: RetryPolicy) -> Storage:
        """Return this storage, with the same connections and login, but another *retry_policy*."""
        ...


@runtime_checkable
class SupportsAbort(Protocol):
    """A storage with requests that may wait for a remote store."""

    def abort(self, reason: str) -> None:
        """End all waiting requests soon with `StoppedError`, and let later requests fail in the same way.

        This is final. A storage that `SupportsRetryPolicy.with_retry_policy` returned goes on, except for its
        login, which all share. Any thread may call this.
        """
        ...


@runtime_checkable
class SupportsStreams(Protocol):
    """A storage whose `Storage.put` may accept a body that can't be read twice."""

    @property
    def takes_streams(self) -> bool:
        """Whether `Storage.put` reads a body once if nothing fails.

        After a failure, `Storage.put` sends the body again only if it has read no more than the ``window`` of the
        body. Otherwise it raises the error.
        """
        ...


def takes_streams(storage: object) -> bool:
    """Return whether *storage* has `SupportsStreams.takes_streams` and it is true."""
    return isinstance(storage, SupportsStreams) and storage.takes_streams


def rewind_window(body: object) -> float:
    """Return the number of bytes that *body* can seek back over: its ``window``, or infinity."""
    window: float = getattr(body, "window", math.inf)
    return window


@runtime_checkable
class SupportsConnections(Protocol):
    """A storage that keeps a pool of connections."""

    @property
    def connections(self) -> tuple[int, int]:
        """The number of active and of idle connections."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """*size* bytes of an object, starting at *offset*, and their hexadecimal MD5 ("" if it is unknown)."""

    offset: int
    size: int
    md5: str = ""


class MultipartUpload(Protocol):
    """The upload of one large object in parts. The object becomes visible with `finish`, at once."""

    def stored(self) -> Set[Part]:
        """Return the parts in the store that earlier or concurrent uploads of this object have put there."""
        ...

    def reuse(self, part: Part) -> bool:
        """Claim one part of `stored` for this object; return whether the store still has it.

        Several threads may call this at once.
        """
        ...

    def put(self, body: Source, offset: int, size: int) -> Part:
        """Store *size* bytes of *body*, from its present position, as the part at *offset* of the object.

        Several threads may call this at once, each with its own body.
        """
        ...

    def finish(self, parts: Sequence[Part], *, if_absent: bool = False) -> ObjectInfo:
        """Create the object from *parts*, in order of their offsets, and replace an existing object atomically.

        The parts of a replaced object stay in the store, since other objects may use them. With *if_absent*, raise
        `ExistsError` if the object exists.
        """
        ...

    def discard(self) -> None:
        """Remove the parts that this failed upload has stored, unless another object may use them."""
        ...


@dataclass(frozen=True, slots=True)
class Leftover:
    """A segment that no object uses: its *name*, the *key* that it was stored for, and its *size* in bytes."""

    name: str
    key: str
    size: int | None
    last_modified: str


@dataclass(frozen=True, slots=True)
class Leftovers:
    """The result of a search for unused *segments*. *manifests* is the number of manifests that were read.

    *unread* names the manifests and containers that could not be read. If it is not empty, *segments* may contain
    segments that one of them uses.
    """

    segments: Sequence[Leftover]
    manifests: int
    unread: Sequence[str]


@runtime_checkable
class SupportsMultipart(Protocol):
    """A storage that composes large objects of parts, which it stores as segments."""

    def part_size(self, size: int, wanted: int) -> int:
        """Return the part size in bytes for an object of *size* bytes: *wanted*, adjusted to the store's limits.

        Raise `ObjectTooLargeError` if the store can't hold an object of this size.
        """
        ...

    def multipart_etag(self, md5s: Iterable[str]) -> str:
        """Return the `ObjectInfo.segments_etag` of an object whose parts have the hexadecimal *md5s*, in order."""
        ...

    def start_multipart_upload(
        self, key: str, size: int, part_size: int, attributes: Attributes, replaced: ObjectInfo | None
    ) -> MultipartUpload:
        """Start the upload of *key*. *replaced* is the existing object from a listing, if there is one."""
        ...

    def list_parts(self, info: ObjectInfo) -> Sequence[Part]:
        """Return the parts of the object *info* from a listing, in order of their offsets. This is one request.

        If the store does not disclose the parts, return one part without an MD5. Raise `NotFoundError` if the
        object was removed or replaced.
        """
        ...

    def leftovers(self, is_wanted: Callable[[str], bool], older_than: float, run_all: RunAll) -> Leftovers:
        """Search for segments that no object uses. This reads every manifest that could use one.

        *is_wanted* selects segments by the key that they were stored for. For a key that was too long to be
        recorded, it gets the beginning. Segments of an upload that stored any segment in the last *older_than*
        seconds are not returned, since the upload may still be running. *run_all* runs the requests concurrently.
        """
        ...

    def remove_leftover(self, leftover: Leftover) -> bool:
        """Remove one of `leftovers`, unless an upload has claimed it; return whether it was removed."""
        ...
