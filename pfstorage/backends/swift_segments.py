"""Large objects of a Swift: static ones (SLO), made of segments in a container beside theirs.

Segments are named much as python-swiftclient names them,
``<container>_segments/<key>/<mtime>/<size>/<segment size>/00000000``, so a later try finds
what an earlier one left.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from pfstorage.backends.base import ObjectInfo, Piece, Source
from pfstorage.backends.common import is_unmet, md5_of_md5s, new_md5
from pfstorage.backends.http_connection import Refusal
from pfstorage.backends.swift_objects import SwiftObjects, noted_if_unanswered, only_if_new
from pfstorage.backends.swift_session import Connection, path_of
from pfstorage.errors import (
    ContainerNotFoundError,
    IntegrityError,
    NotFoundError,
    ObjectTooLargeError,
    RejectedError,
    StorageError,
)
from pfstorage.pathmap import join

log = logging.getLogger(__name__)

MAX_FILE_SIZE = 5 * 1024**3
MAX_SEGMENTS = 1000
"""Swift's defaults (``max_file_size``, ``max_manifest_segments``), where a cluster doesn't tell its own."""

NESTED = 2
"""Manifests within manifests that are followed for the MD5s of their segments."""


class SwiftSegments:
    """The segments of the objects in *container*, and the manifests that name them."""

    def __init__(self, objects: SwiftObjects, container: str) -> None:
        self.objects = objects
        self.container = container
        self.segment_container = f"{container}_segments"
        self._told: tuple[int, int] | None = None

    @property
    def _limits(self) -> tuple[int, int]:
        """The largest object and the most segments that the cluster says it takes."""
        # no cached_property: before Python 3.12, one that waits would hold up all others
        if self._told is None:
            self._told = self._asked_limits()
        return self._told

    def _asked_limits(self) -> tuple[int, int]:
        def get_info(connection: Connection, *_: str) -> Any:
            answer = self.objects.session.send(connection, "GET", "/info", {})
            return json.loads(connection.http.read_all(answer))

        try:
            told = self.objects.session.tried(get_info)
            return int(told["swift"]["max_file_size"]), int(told["slo"]["max_manifest_segments"])
        except (StorageError, ValueError, TypeError, KeyError) as e:
            log.debug("the cluster does not tell its limits: %s", e)  # an operator may hide them
            return MAX_FILE_SIZE, MAX_SEGMENTS

    def piece_size(self, size: int, wanted: int) -> int:
        largest, most = self._limits
        least = math.ceil(size / most)
        if least > largest:
            text = (
                f"an object of {size} bytes is too large: the store takes {most} segments of {largest} bytes"
            )
            raise ObjectTooLargeError(text)
        return max(least, min(wanted, largest))

    def pieces(self, info: ObjectInfo) -> list[Piece]:
        """Return the segments of *info*, whose manifest must be that of its etag."""
        if not info.segments_etag:
            if info.size is None:
                raise RejectedError(f"the store does not tell how many bytes {info.key!r} has", key=info.key)
            return [Piece(0, info.size, info.md5)]
        manifest = self._manifest(self.container, info.key, info.segments_etag)
        return list(self._pieces_of(manifest, 0, NESTED))

    def _pieces_of(self, manifest: Sequence[Mapping[str, Any]], offset: int, depth: int) -> Iterator[Piece]:
        for row in manifest:
            size = _size_of(row)
            if row.get("sub_slo") and depth and "range" not in row:
                container, _, key = str(row["name"]).lstrip("/").partition("/")
                yield from self._pieces_of(self._manifest(container, key, row["hash"]), offset, depth - 1)
            else:
                is_whole = not row.get("sub_slo") and "range" not in row
                yield Piece(offset, size, str(row["hash"]) if is_whole else "")
            offset += size

    def _manifest(self, container: str, key: str, etag: str) -> list[dict[str, Any]]:
        """Return the rows of a manifest: of a static one its own, of a dynamic one what its prefix lists."""

        def get_manifest(connection: Connection, url: str, token: str) -> tuple[str, bytes]:
            path = f"{path_of(url, container, key)}?multipart-manifest=get"
            answer = self.objects.session.send(connection, "GET", path, {"X-Auth-Token": token})
            return answer.fields.get("x-object-manifest", ""), connection.http.read_all(answer)

        try:
            dynamic, content = self.objects.session.tried(get_manifest, key)
            manifest = self._listed(unquote(dynamic)) if dynamic else [*map(_named, json.loads(content))]
            made_of = md5_of_md5s(_etag_of(row) for row in manifest if _size_of(row) >= 0)
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            raise RejectedError(f"{key!r} has a manifest that can't be read", key=key) from e
        if made_of != etag.strip('"'):
            raise NotFoundError(f"{key!r} is another object than was listed: try again", key=key)
        return manifest

    def _listed(self, prefix: str) -> list[dict[str, Any]]:
        container, _, start = prefix.partition("/")
        rows = self.objects.list(container, prefix=start)
        return [{"name": f"/{container}/{row.key}", "bytes": row.size, "hash": row.etag} for row in rows]

    def names_below(self, key: str) -> Iterator[ObjectInfo]:
        """Yield the segments of *key* itself, not those of keys below it, whatever try they are of."""
        shape = re.compile(re.escape(key) + r"/-?[\d.]+/\d+/\d+/\d+")
        with contextlib.suppress(ContainerNotFoundError):
            for row in self.objects.list(self.segment_container, prefix=f"{key}/"):
                if shape.fullmatch(row.key):
                    yield row

    def old_names(self, info: ObjectInfo) -> set[str]:
        """Return the names of the segments of *info* that are its own: they lie where this module puts them."""
        home = f"/{self.segment_container}/{info.key}/"
        manifest = self._manifest(self.container, info.key, info.segments_etag)
        names = [str(row["name"]) for row in manifest if not row.get("sub_slo")]
        return {name[len(self.segment_container) + 2 :] for name in names if name.startswith(home)}

    def live_names(self, key: str) -> set[str]:
        """Return the names of the segments of its own that the object *key* is made of now."""
        try:
            info = self.objects.head(self.container, key)
        except NotFoundError:
            return set()
        return self.old_names(info) if info.segments_etag else set()

    @contextlib.contextmanager
    def removed_after(self, info: ObjectInfo) -> Iterator[None]:
        names: set[str] = set()
        if info.segments_etag:
            with contextlib.suppress(NotFoundError):  # it is another by now, whose maker sees to it
                names = self.old_names(info)
        yield
        self.remove(names)

    def remove(self, names: set[str]) -> None:
        """Remove segments that nothing uses. What fails is left: the object itself is as it should be."""
        for name in names:
            try:
                self.objects.session.ask("DELETE", self.segment_container, name)
            except NotFoundError:
                continue
            except StorageError as e:
                log.warning("a segment that is not used any more could not be removed")
                log.debug("%s", e)  # which names it


class SwiftUpload:
    """A `SegmentedUpload` of *key*. *stem* tells its segments from those of another file or size.

    Those of the object that it replaces have other names even so: until the new one is whole, they stay as they are.
    """

    def __init__(
        self,
        segments: SwiftSegments,
        key: str,
        stem: str,
        headers: dict[str, str],
        replaced: ObjectInfo | None,
    ) -> None:
        self._segments = segments
        self._key = key
        self._prefix = f"{join(key, stem)}/"
        self._other_prefix = f"{join(key, stem.replace('/', '0/', 1))}/"  # the same time with one more digit
        self._piece_size = int(stem.rpartition("/")[2])
        self._headers = headers
        self._replaced = replaced
        self._stale: set[str] = set()
        self._is_unanswered = False

    def _name(self, offset: int) -> str:
        return f"{self._prefix}{offset // self._piece_size:08}"

    def stored(self) -> dict[int, Piece]:
        self._stale = self._names_replaced()
        if any(name.startswith(self._prefix) for name in self._stale):
            self._prefix = self._other_prefix
        found = {}
        for row in self._segments.names_below(self._key):
            self._stale.add(row.key)
            if row.key.startswith(self._prefix) and row.size is not None:
                offset = int(row.key[len(self._prefix) :]) * self._piece_size
                found[offset] = Piece(offset, row.size, row.md5)
        return found

    def put(self, body: Source, offset: int, size: int) -> Piece:
        segments, name = self._segments, self._name(offset)
        headers = {"Content-Type": "application/octet-stream"}
        home, like = segments.segment_container, segments.container
        info = segments.objects.put(home, name, body, size, headers, like)
        return Piece(offset, size, info.etag)

    def finish(self, pieces: Sequence[Piece], *, only_new: bool = False) -> ObjectInfo:
        stale = self._stale - {self._name(piece.offset) for piece in pieces}
        etag = md5_of_md5s(piece.md5 for piece in pieces)
        manifest = [
            {
                "path": f"/{self._segments.segment_container}/{self._name(piece.offset)}",
                "etag": piece.md5,
                "size_bytes": piece.size,
            }
            for piece in pieces
        ]
        with only_if_new(self._key, self._headers, only_new):
            try:
                self._put_manifest(json.dumps(manifest).encode(), etag)
            except RejectedError as e:
                # what is there is new, if it is of a try whose answer was lost
                if not (self._is_unanswered and is_unmet(e) and self._is_live(etag)):
                    raise
        if stale and self._is_live(etag):
            self._segments.remove(stale)
        size = sum(piece.size for piece in pieces)
        kind = self._headers["Content-Type"]
        return ObjectInfo(self._key, size, etag, content_type=kind, segments_etag=etag)

    def _names_replaced(self) -> set[str]:
        if self._replaced and self._replaced.segments_etag:
            with contextlib.suppress(NotFoundError):  # it is another by now, whose maker sees to it
                return self._segments.old_names(self._replaced)
        return set()

    def _is_live(self, etag: str) -> bool:
        """Tell whether the object is still the one that was made here: another's segments stay."""
        try:
            return self._segments.objects.head(self._segments.container, self._key).etag == etag
        except StorageError as e:  # the object itself is whole: what is left over may stay
            log.debug("the segments that are left over stay: %s", e)
            return False

    def _put_manifest(self, manifest: bytes, etag: str) -> None:
        """Store the manifest. The store looks at each segment first; a heartbeat keeps the line open."""

        def note() -> None:
            self._is_unanswered = True

        def put(connection: Connection, url: str, token: str) -> str:
            path = f"{path_of(url, self._segments.container, self._key)}?multipart-manifest=put&heartbeat=on"
            headers = {"X-Auth-Token": token, "Content-Length": str(len(manifest)), **self._headers}
            headers |= {"ETag": etag, "Accept": "application/json"}
            with noted_if_unanswered(note):
                answer = self._segments.objects.session.send(connection, "PUT", path, headers, manifest)
                told = connection.http.read_all(answer)
            return (
                answer.fields.get("etag", "")
                if answer.status == 201
                else _etag_told(told, path, answer.fields)
            )

        def put_intact() -> None:
            """Store it as it is: what comes damaged, a manifest that names nothing, is sent again."""
            try:
                stored = objects.session.tried(put, self._key)
            except RejectedError as e:
                if e.facts.get("status") == 400:
                    raise IntegrityError(f"{self._key!r}: the manifest did not arrive whole: {e}") from e
                raise
            if stored.strip('"') != etag:
                raise IntegrityError(f"{self._key!r}: the store has other segments than were sent")

        objects = self._segments.objects
        patience = objects.session.patience
        objects.in_container(
            self._segments.container, lambda: patience.tried(put_intact, (IntegrityError,), retries=1)
        )

    def discard(self) -> None:
        segments = self._segments
        try:
            rows = segments.names_below(self._key)
            names = {row.key for row in rows if row.key.startswith(self._prefix)}
            segments.remove(names - segments.live_names(self._key))
        except StorageError as e:
            log.warning("the segments of an upload that failed were left")
            log.debug("%s", e)


def _etag_told(content: bytes, path: str = "", headers: Mapping[str, str] | None = None) -> str:
    """Read what Swift tells after its heartbeats, with the status that it could not know before."""
    try:
        told = json.loads(content.strip() or b"{}")
        status, _, reason = str(told.get("Response Status", "")).partition(" ")
        if status == "201":
            return str(told.get("Etag", ""))
        errors = "; ".join(f"{unquote(str(name))}: {why}" for name, why in told.get("Errors", []))
    except (AttributeError, TypeError, ValueError):
        raise Refusal(500, "what it tells of a manifest can't be read") from None
    number = int(status) if status.isdecimal() else 500
    raise Refusal(number, " ".join([reason, errors]).strip(), headers, method="PUT", path=path)


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a manifest; one that holds its bytes itself as that of a segment without a name."""
    if "data" not in row:
        return {**row}
    content = base64.b64decode(row["data"])
    digest = new_md5()
    digest.update(content)
    return {"name": "", "bytes": len(content), "hash": digest.hexdigest()}


def _size_of(row: Mapping[str, Any]) -> int:
    if "range" not in row:
        return int(row["bytes"])
    first, last = str(row["range"]).split("-")
    return int(last) - int(first) + 1


def _etag_of(row: Mapping[str, Any]) -> str:
    """Return what Swift takes of a segment for the etag of the whole."""
    etag = str(row["hash"]).strip('"')
    return f"{etag}:{row['range']};" if "range" in row else etag
