"""Read the manifests of large objects of a Swift: static ones (SLO) list segments, dynamic ones (DLO) a prefix."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote_to_bytes

from pfstorage.backends.capabilities import Part
from pfstorage.backends.checksums import new_md5
from pfstorage.backends.contract import ObjectInfo
from pfstorage.backends.swift.network import Connection, path_of
from pfstorage.backends.swift.objects import SwiftObjects
from pfstorage.backends.swift.rows import NO_JSON, require_row
from pfstorage.errors import ContainerNotFoundError, IntegrityError, NotFoundError

# Levels of manifests in manifests that are read for the MD5s of their segments.
NESTED = 2
# Bytes of a manifest. Swift accepts 8 MiB (``max_manifest_size``).
MAX_SIZE = 64 * 1024**2

ManifestRow = Mapping[str, Any]


class Unreadable(Exception):
    """The store does not return a manifest, or not all of it, as Ceph's gateway does."""


class SwiftManifests:
    """The manifests of large objects, which list their parts."""

    def __init__(self, objects: SwiftObjects) -> None:
        self._objects = objects

    def parts(self, container: str, info: ObjectInfo) -> list[Part]:
        """Return the parts of *info*. Raise `Unreadable`, or `NotFoundError` if the object has another etag now."""
        rows = self.rows(container, info.key, info.segments_etag)
        return list(self._parts_of(info.key, rows, 0, NESTED))

    def _parts_of(self, whole: str, rows: Sequence[ManifestRow], offset: int, depth: int) -> Iterator[Part]:
        for row in rows:
            size = _segment_size(row)
            if row.get("sub_slo") and depth and "range" not in row:
                container, _, key = str(row["name"]).lstrip("/").partition("/")
                try:
                    inner = self.rows(container, key, row["hash"])
                except NotFoundError as e:  # the object *whole* itself exists
                    text = f"{whole!r} is damaged: the manifest {key!r} in it is missing or has changed"
                    raise IntegrityError(text, key=whole) from e
                yield from self._parts_of(whole, inner, offset, depth - 1)
            else:
                is_whole = not row.get("sub_slo") and "range" not in row
                yield Part(offset, size, str(row["hash"]) if is_whole else "")
            offset += size

    def rows(self, container: str, key: str, etag: str) -> list[ManifestRow]:
        """Return the rows of a static manifest, or the listing for the prefix of a dynamic one.

        Raise `NotFoundError` if the segments do not have *etag*.
        """
        try:
            dynamic, content = self.read(container, key)
            with self._objects.listings.wrong_rows(f"the segments of {key!r}"):
                rows = self._listed(dynamic) if dynamic else parsed(content)
            made_of = segments_etag_of(_segment_etag(row) for row in rows if _segment_size(row) >= 0)
        except NO_JSON as e:
            raise Unreadable(f"{key!r} has a manifest that can't be read") from e
        if made_of != etag.strip('"'):
            raise NotFoundError(f"{key!r} is another object than was listed: try again", key=key)
        return rows

    def read(self, container: str, key: str, query: str = "") -> tuple[str, bytes]:
        """Return ``CONTAINER/PREFIX`` of a dynamic manifest, or "" and the content of a static one.

        Raise `ValueError` for a prefix that is not UTF-8.
        """

        def get_manifest(connection: Connection, url: str, token: str) -> tuple[str, bytes]:
            path = f"{path_of(url, container, key)}?multipart-manifest=get{query}"
            answer = self._objects.session.send(connection, "GET", path, {"X-Auth-Token": token})
            if (answer.length or 0) > MAX_SIZE:  # an ordinary object may have replaced the manifest
                connection.http.close()
                raise Unreadable(f"{key!r} has more bytes than a manifest may have")
            return prefix_of(answer.fields), connection.http.read_all(answer)

        return self._objects.session.call(get_manifest, key)

    def _listed(self, prefix: str) -> list[ManifestRow]:
        container, _, start = prefix.partition("/")
        try:
            rows = [*self._objects.list(container, prefix=start)]
        except ContainerNotFoundError:  # Swift shows an empty object then
            return []
        return [{"name": f"/{container}/{row.key}", "bytes": row.size, "hash": row.etag} for row in rows]


def segments_etag_of(md5s: Iterable[str]) -> str:
    """Return the etag of a large object: the MD5 of the concatenated hexadecimal *md5s* of its segments.

    >>> segments_etag_of(["d41d8cd98f00b204e9800998ecf8427e"])
    '74be16979710d4c4e7c6647856088456'
    """
    digest = new_md5()
    digest.update("".join(md5s).encode())
    return digest.hexdigest()


def prefix_of(fields: Mapping[str, str]) -> str:
    """Return ``CONTAINER/PREFIX`` of the headers of a dynamic large object, or "" for another object.

    Clients send the prefix with or without percent-encoding. Swift decodes it once in either case.
    """
    value = fields.get("x-object-manifest", "")
    if "\N{REPLACEMENT CHARACTER}" in value:
        raise ValueError("the prefix is not UTF-8")
    return unquote_to_bytes(value).decode()


def parsed(content: bytes) -> list[ManifestRow]:
    """Return the rows of a static manifest. Raise `WrongRowError`, or one of `NO_JSON` for other content."""
    rows = json.loads(content)
    if not isinstance(rows, list) or not rows:
        raise ValueError("a manifest must be a list of segments")
    return [_checked_row(row) for row in rows]


def _checked_row(row: ManifestRow) -> ManifestRow:
    """Check a row of a manifest. Convert a row with inline data to that of a segment without a name."""
    if "data" not in row:
        if {"name", "bytes", "hash"} <= row.keys():  # other JSON is the content of an ordinary object
            require_row(row)
        return row
    content = base64.b64decode(row["data"])
    digest = new_md5()
    digest.update(content)
    return {"name": "", "bytes": len(content), "hash": digest.hexdigest()}


def _segment_size(row: ManifestRow) -> int:
    if "range" not in row:
        return int(row["bytes"])
    first, last = str(row["range"]).split("-")
    return int(last) - int(first) + 1


def _segment_etag(row: ManifestRow) -> str:
    """Return the contribution of a segment to the etag of the large object."""
    etag = str(row["hash"] or "").strip('"')
    if not etag:
        raise ValueError("a segment has no MD5")
    return f"{etag}:{row['range']};" if "range" in row else etag
