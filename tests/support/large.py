"""Large objects and their segments, as the store shows them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import swiftclient

from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from pfstorage.errors import ContainerNotFoundError
from tests.support.faults import Exchange, is_object
from tests.support.trees import write_tree

KIB = 1024
# Files of more bytes are large in the tests.
SEGMENT_SIZE = 64 * KIB
CONTENT = random.Random(5).randbytes(5 * SEGMENT_SIZE + 1000)
OTHER = random.Random(6).randbytes(len(CONTENT))
MTIME = 1_700_000_000_123_456_789
STAMP = "1700000000.123456789"
STEM = f"s/large/{STAMP}/{len(CONTENT)}/{SEGMENT_SIZE}"
NAMES = [f"{STEM}/{number:08}" for number in range(6)]
PUT: dict[str, Any] = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
PULL: dict[str, Any] = {"fromLocation": "s", "mapLocationOver": "out"}


def container_of(storage: Storage) -> str:
    return storage.settings.swift.container_name


def content_of(storage: Storage, key: str = "s/large") -> bytes:
    sink = io.BytesIO()
    storage.get(key, sink)
    return sink.getvalue()


def is_segment(exchange: Exchange) -> bool:
    return is_object(exchange) and exchange.container.endswith("_segments")


def is_manifest(exchange: Exchange) -> bool:
    return "multipart-manifest=put" in exchange.query


@contextlib.contextmanager
def raw_connection(swift: DevSwift) -> Iterator[swiftclient.Connection]:
    """Connect to the store itself, without pfstorage and without a proxy."""
    connection = swiftclient.Connection(swift.auth_url, swift.user, swift.key)
    try:
        yield connection
    finally:
        connection.close()


def stored(swift: DevSwift, container: str) -> dict[str, bytes]:
    """Return the contents of the objects in *container*, by key."""
    with raw_connection(swift) as raw:
        return {key: raw.get_object(container, key)[1] for key in _keys(raw, container)}


def segments(swift: DevSwift, container: str) -> set[str]:
    with raw_connection(swift) as raw:
        return set(_keys(raw, f"{container}_segments"))


def orphans(swift: DevSwift, container: str) -> set[str]:
    """Return the segments that belong to no object of *container*."""
    used = set()
    with raw_connection(swift) as raw:
        for key in _keys(raw, container):
            headers, body = raw.get_object(container, key, query_string="multipart-manifest=get")
            if headers.get("x-static-large-object"):
                used |= {row["name"].removeprefix(f"/{container}_segments/") for row in json.loads(body)}
    return segments(swift, container) - used


def _keys(raw: swiftclient.Connection, container: str) -> list[str]:
    try:
        return [row["name"] for row in raw.get_container(container, full_listing=True)[1]]
    except swiftclient.ClientException as e:
        if e.http_status != 404:
            raise
        return []


def write_large(content: bytes, mtime: int = MTIME, name: str = "data/large") -> None:
    """Write a file with *content* and the modification time *mtime*, in nanoseconds."""
    write_tree(Path.cwd(), {name: content})
    os.utime(name, ns=(mtime, mtime))


def keys(storage: Storage) -> list[str]:
    """Return the keys of all objects, none if the container does not exist."""
    try:
        return [row.key for row in storage.list()]
    except ContainerNotFoundError:
        return []
