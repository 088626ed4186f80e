"""The manifests of large objects of a Swift: static ones (SLO), which list their segments, and dynamic ones (DLO)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from pfstorage.backends.capabilities import Part
from pfstorage.backends.checksums import new_md5, segments_etag_of
from pfstorage.backends.contract import ObjectInfo
from pfstorage.backends.swift.network import Connection, path_of
from pfstorage.backends.swift.objects import SwiftObjects
from pfstorage.backends.swift.rows import NO_JSON, require_row
from pfstorage.errors import ContainerNotFoundError, IntegrityError, NotFoundError

NESTED = 2
"""Manifests within manifests that are followed for the MD5s of their segments."""
MAX_SIZE = 64 * 1024**2
"""Bytes of what is taken for a manifest: Swift takes 8 MiB (``max_manifest_size``)."""

Row = Mapping[str, Any]


class Unreadable(Exception):
    """The store does not give a manifest out, or tells not all of it: so does Ceph's gateway."""


class SwiftManifests:
    """What large objects are made of."""

    def __init__(self, objects: SwiftObjects) -> None:
        self._objects = objects

    def pieces(self, container: str, info: ObjectInfo) -> list[Part]:
        """Return the pieces of *info*, whose manifest must be that of its etag. Raise `Unreadable`."""
        rows = self.rows(container, info.key, info.segments_etag)
        return list(self._pieces_of(info.key, rows, 0, NESTED))

    def _pieces_of(self, whole: str, rows: Sequence[Row], offset: int, depth: int) -> Iterator[Part]:
        for row in rows:
            size = _size_of(row)
            if row.get("sub_slo") and depth and "range" not in row:
                container, _, key = str(row["name"]).lstrip("/").partition("/")
                try:
                    inner = self.rows(container, key, row["hash"])
                except NotFoundError as e:  # *whole* itself is there
                    text = f"{whole!r} is not whole: the manifest {key!r} in it is missing or has changed"
                    raise IntegrityError(text, key=whole) from e
                yield from self._pieces_of(whole, inner, offset, depth - 1)
            else:
                is_whole = not row.get("sub_slo") and "range" not in row
                yield Part(offset, size, str(row["hash"]) if is_whole else "")
            offset += size

    def rows(self, container: str, key: str, etag: str) -> list[Row]:
        """Return the rows of a manifest: of a static one its own, of a dynamic one what its prefix lists.

        Raise `NotFoundError` if it is another than that of *etag*.
        """
        try:
            dynamic, content = self.read(container, key)
            with self._objects.listings.wrong_rows(f"the segments of {key!r}"):
                rows = self._listed(dynamic) if dynamic else parsed(content)
            made_of = segments_etag_of(_etag_of(row) for row in rows if _size_of(row) >= 0)
        except NO_JSON as e:
            raise Unreadable(f"{key!r} has a manifest that can't be read") from e
        if made_of != etag.strip('"'):
            raise NotFoundError(f"{key!r} is another object than was listed: try again", key=key)
        return rows

    def read(self, container: str, key: str, query: str = "") -> tuple[str, bytes]:
        """Return the container and prefix that a dynamic manifest names, or "" and the content of a static one.

        Raise `ValueError` for a prefix that is no UTF-8.
        """

        def get_manifest(connection: Connection, url: str, token: str) -> tuple[str, bytes]:
            path = f"{path_of(url, container, key)}?multipart-manifest=get{query}"
            answer = self._objects.session.send(connection, "GET", path, {"X-Auth-Token": token})
            if (answer.length or 0) > MAX_SIZE:  # it is no manifest, by now
                connection.http.close()
                raise Unreadable(f"{key!r} has a manifest that is too large to be one")
            return prefix_of(answer.fields), connection.http.read_all(answer)

        return self._objects.session.call(get_manifest, key)

    def _listed(self, prefix: str) -> list[Row]:
        container, _, start = prefix.partition("/")
        try:
            rows = [*self._objects.list(container, prefix=start)]
        except ContainerNotFoundError:  # to Swift, the object is empty then
            return []
        return [{"name": f"/{container}/{row.key}", "bytes": row.size, "hash": row.etag} for row in rows]


def prefix_of(fields: Mapping[str, str]) -> str:
    """Return the container and prefix in *fields*, the headers of a dynamic large object; "" if it is none.

    Clients send the prefix percent-encoded or as it is; Swift decodes it once, whichever it is.
    """
    told = fields.get("x-object-manifest", "")
    if "\N{REPLACEMENT CHARACTER}" in told:
        raise ValueError("it is no UTF-8")
    return unquote_to_bytes(told).decode()


def parsed(content: bytes) -> list[Row]:
    """Return the rows of a static manifest. Raise `WrongRowError`, or one of `NO_JSON` for what is none."""
    rows = json.loads(content)
    if not isinstance(rows, list) or not rows:
        raise ValueError("it is no list of segments")
    return [_named(row) for row in rows]


def _named(row: Row) -> Row:
    """Return a row of a manifest; one that holds its bytes itself as that of a segment without a name."""
    if "data" not in row:
        if {"name", "bytes", "hash"} <= row.keys():  # else it is no manifest, but an object
            require_row(row)
        return row
    content = base64.b64decode(row["data"])
    digest = new_md5()
    digest.update(content)
    return {"name": "", "bytes": len(content), "hash": digest.hexdigest()}


def _size_of(row: Row) -> int:
    if "range" not in row:
        return int(row["bytes"])
    first, last = str(row["range"]).split("-")
    return int(last) - int(first) + 1


def _etag_of(row: Row) -> str:
    """Return what Swift takes of a segment for the etag of the whole."""
    etag = str(row["hash"] or "").strip('"')
    if not etag:
        raise ValueError("a segment without its MD5")
    return f"{etag}:{row['range']};" if "range" in row else etag
