"""Implement `Storage` for one container of an OpenStack Swift."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import quote

from pfstorage.backends.capabilities import Leftover, Leftovers, Part, RunAll
from pfstorage.backends.content_types import guess_content_type
from pfstorage.backends.contract import NO_ATTRIBUTES, Attributes, ByteRange, ObjectInfo, Sink, Source
from pfstorage.backends.retry import RetryPolicy
from pfstorage.backends.swift.headers import MTIME
from pfstorage.backends.swift.manifests import segments_etag_of
from pfstorage.backends.swift.objects import SwiftObjects, if_absent_errors
from pfstorage.backends.swift.segments import SwiftSegments, SwiftUpload
from pfstorage.backends.swift.session import SwiftSession
from pfstorage.backends.swift.sweep import SwiftSweep
from pfstorage.backends.times import format_mtime
from pfstorage.keys.mapping import check_key
from pfstorage.settings.model import Settings


def open_storage(settings: Settings) -> SwiftStorage:
    """Open the container that *settings* describe. The first request opens the first connection."""
    return SwiftStorage(settings)


class SwiftStorage:
    """One container of an OpenStack Swift. See `Storage`. Safe in many threads."""

    takes_streams = True

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._container = settings.swift.container_name
        self._use(SwiftSession(settings))

    def _use(self, session: SwiftSession) -> None:
        self._session = session
        self._objects = SwiftObjects(session, makes_containers=self.settings.swift.auto_create_container)
        self._segments = SwiftSegments(self._objects, self._container)

    @property
    def connections(self) -> tuple[int, int]:
        return self._session.connections

    def with_retry_policy(self, retry_policy: RetryPolicy) -> SwiftStorage:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._use(self._session.with_retry_policy(retry_policy))
        return other

    def abort(self, reason: str) -> None:
        self._session.retry_policy.abort(reason)

    def list(
        self,
        prefix: str = "",
        *,
        start_after: str = "",
        stop_before: str = "",
        limit: int | None = None,
        delimiter: str = "",
    ) -> Iterator[ObjectInfo]:
        return self._objects.list(
            self._container,
            limit=limit,
            prefix=prefix,
            marker=start_after,
            end_marker=stop_before,
            delimiter=delimiter,
        )

    def head(self, key: str) -> ObjectInfo:
        return self._objects.head(self._container, check_key(key))

    def get(self, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
        return self._objects.get(self._container, check_key(key), sink, byte_range)

    def put(
        self,
        key: str,
        body: Source,
        size: int,
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        headers = _put_headers(check_key(key), attributes)
        with if_absent_errors(key, headers, if_absent):
            return self._objects.put(self._container, key, body, size, headers)

    def delete(self, key: str) -> None:
        self._session.ask("DELETE", self._container, check_key(key))

    def copy(self, source: str, target: str) -> ObjectInfo:
        destination = quote(f"/{self._container}/{check_key(target)}")
        self._session.ask("COPY", self._container, check_key(source), {"Destination": destination})
        return self.head(target)

    def part_size(self, size: int, wanted: int) -> int:
        return self._segments.part_size(size, wanted)

    def multipart_etag(self, md5s: Iterable[str]) -> str:
        return segments_etag_of(md5s)

    def start_multipart_upload(
        self, key: str, size: int, part_size: int, attributes: Attributes, replaced: ObjectInfo | None
    ) -> SwiftUpload:
        headers = _put_headers(check_key(key), attributes)
        stamp = format_mtime(time.time_ns() if attributes.mtime_ns is None else attributes.mtime_ns)
        return SwiftUpload(self._segments, key, f"{stamp}/{size}/{part_size}", headers, replaced)

    def list_parts(self, info: ObjectInfo) -> Sequence[Part]:
        return self._segments.list_parts(info)

    def leftovers(self, is_wanted: Callable[[str], bool], older_than: float, run_all: RunAll) -> Leftovers:
        return SwiftSweep(self._segments).leftovers(is_wanted, older_than, run_all)

    def remove_leftover(self, leftover: Leftover) -> bool:
        return SwiftSweep(self._segments).remove(leftover)

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> SwiftStorage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _put_headers(key: str, attributes: Attributes) -> dict[str, str]:
    headers = {"Content-Type": attributes.content_type or guess_content_type(key)}
    if attributes.mtime_ns is not None:
        headers[MTIME] = format_mtime(attributes.mtime_ns)
    return headers
