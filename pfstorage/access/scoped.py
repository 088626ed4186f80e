"""A storage as somebody sees it who may not do all: other keys are neither told of nor touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

from pfstorage.access.permissions import Permissions
from pfstorage.backends.capabilities import (
    Leftover,
    Leftovers,
    MultipartUpload,
    Part,
    RunAll,
    SupportsMultipart,
    SupportsRetryPolicy,
    list_partially,
    takes_streams,
)
from pfstorage.backends.contract import (
    NO_ATTRIBUTES,
    Attributes,
    ByteRange,
    ObjectInfo,
    Sink,
    Source,
    Storage,
)
from pfstorage.backends.retry import RetryPolicy
from pfstorage.errors import PermissionDeniedError
from pfstorage.keys.mapping import check_key
from pfstorage.settings.model import Settings

ELSEWHERE = "something in the account"
"""What is told of keys that are for others."""


def scoped(storage: Storage, permissions: Permissions) -> Storage:
    """Return *storage* for whoever has *permissions*: itself, or what offers the same, patience and segments too."""
    if not permissions.prefix and permissions.allows("write"):
        return storage
    kinds: dict[tuple[bool, bool], type[_Confined]] = {
        (False, False): _Confined,
        (True, False): _Patient,
        (False, True): _Segmented,
        (True, True): _PatientAndSegmented,
    }
    offers = (isinstance(storage, SupportsRetryPolicy), isinstance(storage, SupportsMultipart))
    return kinds[offers](storage, permissions)


def require_write(permissions: Permissions, key: str) -> None:
    """Raise `PermissionDeniedError` if *permissions* don't allow to write *key*."""
    if not permissions.allows("write"):
        raise PermissionDeniedError(f"{key!r}: this token may read, and change nothing", key=key)
    _require_touch(permissions, key)


def _require_touch(permissions: Permissions, key: str) -> None:
    if not permissions.allows_key(key):
        raise PermissionDeniedError(
            f"{key!r}: this token is for the keys that begin with {permissions.prefix!r}", key=key
        )


class _Confined:
    """See `Storage`. Raise `PermissionDeniedError` for what the rights don't allow.

    A key with ``..`` is refused where it begins as it should, too: what stands between here
    and a store may take it for a path.
    """

    def __init__(self, storage: Any, permissions: Permissions) -> None:
        self._storage: Storage = storage
        self._rights = permissions

    @property
    def settings(self) -> Settings:
        return self._storage.settings

    @property
    def takes_streams(self) -> bool:
        return takes_streams(self._storage)

    def _within(self, start: str) -> str:
        _require_touch(self._rights, start)
        return start

    def _readable(self, key: str) -> str:
        return check_key(self._within(key))

    def _writable(self, key: str) -> str:
        require_write(self._rights, key)
        return check_key(key)

    def list(
        self,
        prefix: str = "",
        *,
        start_after: str = "",
        stop_before: str = "",
        limit: int | None = None,
        delimiter: str = "",
    ) -> Iterator[ObjectInfo]:
        """Yield the rows of those keys alone: a shorter *prefix* stands for the whole of them."""
        within = self._rights.prefix if self._rights.prefix.startswith(prefix) else self._within(prefix)
        rows = self._storage.list(
            within, start_after=start_after, stop_before=stop_before, limit=limit, delimiter=delimiter
        )
        # what lies between here and the store may drop what was asked for
        return (row for row in rows if row.key.startswith(within))

    def allow_partial_listing(self, note: Callable[[str, str], None]) -> Storage:
        """See `SupportsPartialListing`: a listing looks at nothing but what begins as it should."""
        return scoped(list_partially(self._storage, note), self._rights)

    def head(self, key: str) -> ObjectInfo:
        return self._storage.head(self._readable(key))

    def get(self, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
        return self._storage.get(self._readable(key), sink, byte_range)

    def put(
        self,
        key: str,
        body: Source,
        size: int,
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        return self._storage.put(self._writable(key), body, size, attributes, if_absent=if_absent)

    def delete(self, key: str) -> None:
        self._storage.delete(self._writable(key))

    def copy(self, source: str, target: str) -> ObjectInfo:
        return self._storage.copy(self._readable(source), self._writable(target))

    def close(self) -> None:
        """Do nothing: the storage is others', too."""

    def __enter__(self) -> Storage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _PatientStorage(Storage, SupportsRetryPolicy, Protocol):
    pass


class _SegmentedStorage(Storage, SupportsMultipart, Protocol):
    pass


class _PatientAndSegmentedStorage(_PatientStorage, _SegmentedStorage, Protocol):
    pass


class _Patient(_Confined):
    _storage: _PatientStorage

    def with_retry_policy(self, retry_policy: RetryPolicy) -> Storage:
        return scoped(self._storage.with_retry_policy(retry_policy), self._rights)


class _Segmented(_Confined):
    """Of a large object, the segments lie below its key in a container of their own. Nothing here names them."""

    _storage: _SegmentedStorage

    def part_size(self, size: int, wanted: int) -> int:
        return self._storage.part_size(size, wanted)

    def start_multipart_upload(
        self, key: str, size: int, part_size: int, attributes: Attributes, replaced: ObjectInfo | None
    ) -> MultipartUpload:
        if replaced:
            self._writable(replaced.key)
        return self._storage.start_multipart_upload(
            self._writable(key), size, part_size, attributes, replaced
        )

    def list_parts(self, info: ObjectInfo) -> Sequence[Part]:
        self._readable(info.key)
        return self._storage.list_parts(info)

    def leftovers(self, is_wanted: Callable[[str], bool], older_than: float, run_all: RunAll) -> Leftovers:
        """Return those of the keys that the rights are for. What others have that could not be read, is not told."""
        permissions = self._rights
        found = self._storage.leftovers(
            lambda key: permissions.allows_key(key) and is_wanted(key), older_than, run_all
        )
        return replace(found, unread=[ELSEWHERE] * len(found.unread) if permissions.prefix else found.unread)

    def remove_leftover(self, leftover: Leftover) -> bool:
        require_write(self._rights, leftover.key)
        return self._storage.remove_leftover(leftover)


class _PatientAndSegmented(_Patient, _Segmented):
    _storage: _PatientAndSegmentedStorage
