"""A storage in memory: the shortest implementation of the contract, useful in tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from pfstorage.backends.content_types import guess_content_type
from pfstorage.backends.contract import CHUNK, NO_ATTRIBUTES, Attributes, ByteRange, ObjectInfo, Sink, Source
from pfstorage.backends.errors import already_exists_error, resolve_range
from pfstorage.backends.listing import select
from pfstorage.backends.streams import HashedBody, announce
from pfstorage.backends.times import iso_time
from pfstorage.errors import ContainerNotFoundError, NotFoundError
from pfstorage.keys.mapping import check_key
from pfstorage.settings.model import Settings


def open_storage(settings: Settings) -> MemoryStorage:
    """Open an empty storage with *settings*."""
    return MemoryStorage(settings)


class MemoryStorage:
    """Objects in a dictionary. They are lost when the process ends."""

    takes_streams = True

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings(type="memory")
        self._container: dict[str, tuple[ObjectInfo, bytes]] | None = None
        self._lock = threading.Lock()

    def list(
        self,
        prefix: str = "",
        *,
        start_after: str = "",
        stop_before: str = "",
        limit: int | None = None,
        delimiter: str = "",
    ) -> Iterator[ObjectInfo]:
        with self._lock:
            rows = [info for info, _ in self._objects().values()]
        rows.sort(key=lambda row: row.key)  # the order of code points is the order of their UTF-8
        yield from select(rows, prefix, start_after, stop_before, limit, delimiter)

    def head(self, key: str) -> ObjectInfo:
        return self._object(key)[0]

    def get(self, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
        info, content = self._object(key)
        first, size = resolve_range(byte_range, info)
        announce(sink, info)
        for start in range(first, first + size, CHUNK):
            sink.write(content[start : min(start + CHUNK, first + size)])
        return info

    def put(
        self,
        key: str,
        body: Source,
        size: int,
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        check_key(key)
        hashed = HashedBody(body, size, key)
        content = b"".join(iter(lambda: hashed.read(CHUNK), b""))
        kind, now = attributes.content_type or guess_content_type(key), iso_time(time.time())
        info = ObjectInfo(key, size, hashed.md5, now, kind, mtime_ns=attributes.mtime_ns)
        with self._lock:
            objects = self._objects(create=self.settings.memory.auto_create_container)
            if if_absent and key in objects:
                raise already_exists_error(key)
            objects[key] = (info, content)
        return info

    def delete(self, key: str) -> None:
        self._object(key)
        with self._lock:
            self._objects().pop(key, None)

    def copy(self, source: str, target: str) -> ObjectInfo:
        info, content = self._object(source)
        info = replace(info, key=check_key(target), last_modified=iso_time(time.time()))
        with self._lock:
            self._objects()[target] = (info, content)
        return info

    def close(self) -> None:
        """Do nothing: the objects stay."""

    def __enter__(self) -> MemoryStorage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _objects(self, *, create: bool = False) -> dict[str, tuple[ObjectInfo, bytes]]:
        if self._container is None:
            if not create:
                raise ContainerNotFoundError("the memory store is empty: push something first")
            self._container = {}
        return self._container

    def _object(self, key: str) -> tuple[ObjectInfo, bytes]:
        with self._lock:
            try:
                return self._objects()[key]
            except KeyError:
                raise NotFoundError(f"there is no object {key!r}", key=key) from None
