"""A storage that is limited to the permissions of a principal: other objects are neither listed nor changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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

# Replaces names that the principal may not see.
HIDDEN_NAME = "something in the account"


def scoped(storage: Storage, permissions: Permissions) -> Storage:
    """Return *storage* limited to *permissions*, with the same optional abilities of retries and multipart uploads.

    With permission to write all keys, this is *storage* itself.
    """
    if not permissions.prefix and permissions.allows("write"):
        return storage
    kinds: dict[tuple[bool, bool], type[ScopedStorage]] = {
        (False, False): ScopedStorage,
        (True, False): _ScopedRetryStorage,
        (False, True): _ScopedMultipartStorage,
        (True, True): _ScopedRetryAndMultipartStorage,
    }
    abilities = (isinstance(storage, SupportsRetryPolicy), isinstance(storage, SupportsMultipart))
    return kinds[abilities](storage, permissions)


def require_write(permissions: Permissions, key: str) -> None:
    """Raise `PermissionDeniedError` if *permissions* do not allow writing *key*."""
    if not permissions.allows("write"):
        raise PermissionDeniedError(
            f"{key!r}: this token may only read; use one with the level write", key=key
        )
    _require_permitted(permissions, key)


def require_some(permissions: Permissions, prefix: str) -> None:
    """Raise `PermissionDeniedError` if *permissions* allow no key that begins with *prefix*."""
    if not permissions.prefix.startswith(prefix):
        _require_permitted(permissions, prefix)


def _require_permitted(permissions: Permissions, key: str) -> None:
    if not permissions.allows_key(key):
        raise PermissionDeniedError(
            f"{key!r}: this token is for the keys that begin with {permissions.prefix!r}", key=key
        )


class ScopedStorage:
    """See `Storage`. Methods also raise `PermissionDeniedError`.

    A key with ``..`` is refused even if it starts with the prefix: a proxy in front of the store may resolve it like
    a path.
    """

    def __init__(self, storage: Any, permissions: Permissions) -> None:
        self._storage: Storage = storage
        self._permissions = permissions

    @property
    def settings(self) -> Settings:
        return self._storage.settings

    @property
    def takes_streams(self) -> bool:
        return takes_streams(self._storage)

    def _require_key(self, key: str) -> str:
        _require_permitted(self._permissions, key)
        return key

    def _readable(self, key: str) -> str:
        return check_key(self._require_key(key))

    def _writable(self, key: str) -> str:
        require_write(self._permissions, key)
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
        """Yield only permitted rows. A *prefix* shorter than the permitted one lists all of those."""
        require_some(self._permissions, prefix)
        start = max(prefix, self._permissions.prefix, key=len)
        rows = self._storage.list(
            start, start_after=start_after, stop_before=stop_before, limit=limit, delimiter=delimiter
        )
        # a proxy in front of the store may drop the parameters of the request
        return (row for row in rows if row.key.startswith(start))

    def allow_partial_listing(self, on_skip: Callable[[str, str], None]) -> Storage:
        """See `SupportsPartialListing`. A listing reads only directories with permitted keys."""
        return scoped(list_partially(self._storage, on_skip), self._permissions)

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
        """Do nothing: other principals use the same storage."""

    def __enter__(self) -> Storage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _RetryStorage(Storage, SupportsRetryPolicy, Protocol):
    pass


class _MultipartStorage(Storage, SupportsMultipart, Protocol):
    pass


class _RetryAndMultipartStorage(_RetryStorage, _MultipartStorage, Protocol):
    pass


class _ScopedRetryStorage(ScopedStorage):
    _storage: _RetryStorage

    def with_retry_policy(self, retry_policy: RetryPolicy) -> Storage:
        return scoped(self._storage.with_retry_policy(retry_policy), self._permissions)


class _ScopedMultipartStorage(ScopedStorage):
    """A scoped storage with multipart uploads. Callers never name segments, so only object keys are checked."""

    _storage: _MultipartStorage

    def part_size(self, size: int, wanted: int) -> int:
        return self._storage.part_size(size, wanted)

    def multipart_etag(self, md5s: Iterable[str]) -> str:
        return self._storage.multipart_etag(md5s)

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
        """Return only leftovers of permitted keys, and hide the names of unreadable manifests."""
        permissions = self._permissions
        found = self._storage.leftovers(
            lambda key: permissions.allows_key(key) and is_wanted(key), older_than, run_all
        )
        return replace(
            found, unread=[HIDDEN_NAME] * len(found.unread) if permissions.prefix else found.unread
        )

    def remove_leftover(self, leftover: Leftover) -> bool:
        require_write(self._permissions, leftover.key)
        return self._storage.remove_leftover(leftover)


class _ScopedRetryAndMultipartStorage(_ScopedRetryStorage, _ScopedMultipartStorage):
    _storage: _RetryAndMultipartStorage
