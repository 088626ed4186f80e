"""Large objects of a Swift: static ones (SLO), made of segments in a container beside theirs.

Segments are named much as python-swiftclient names them, with a name of the try before their number:
``<container>_segments/<key>/<mtime>/<size>/<segment size>/<try>/00000000``. So a later try finds
what an earlier one left, and no two tries write the same name.

Whose a segment is, no name tells: others may name it in a manifest of theirs, which may be a copy or an old version.
So an upload removes only what it stored itself, if it failed to name that. All else is for `swift_sweep`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import uuid
from collections.abc import Mapping, Sequence, Set
from urllib.parse import unquote

from pfstorage.backends.capabilities import Part
from pfstorage.backends.checksums import segments_etag_of
from pfstorage.backends.contract import ObjectInfo, Source
from pfstorage.backends.errors import PreconditionFailedError
from pfstorage.backends.http.errors import Refusal
from pfstorage.backends.swift.errors import BadRequestError
from pfstorage.backends.swift.headers import etag_in
from pfstorage.backends.swift.limits import Limits, asked_limits
from pfstorage.backends.swift.manifests import SwiftManifests, Unreadable
from pfstorage.backends.swift.names import home_of, number_of, segment_container
from pfstorage.backends.swift.network import Connection, path_of
from pfstorage.backends.swift.objects import SwiftObjects, noted_if_unanswered, only_if_new
from pfstorage.backends.swift.rows import NO_JSON
from pfstorage.errors import (
    ContainerNotFoundError,
    IntegrityError,
    NotFoundError,
    ObjectTooLargeError,
    PermissionDeniedError,
    RejectedError,
    StorageError,
)

log = logging.getLogger(__name__)

MOST_TOLD = 1024**2
"""Bytes of the answer to a manifest: Swift names each segment that is wrong."""
TAKEN = "x-object-meta-taken-by"
"""Which try has taken a segment of another one for its own, too."""


class SwiftSegments:
    """The segments of the objects in *container*, and the manifests that name them."""

    def __init__(self, objects: SwiftObjects, container: str) -> None:
        self.objects = objects
        self.container = container
        self.manifests = SwiftManifests(objects)
        self._limits: Limits | None = None

    @property
    def limits(self) -> Limits:
        # no cached_property: before Python 3.12, one that waits would hold up all others
        if self._limits is None:
            self._limits = asked_limits(self.objects.session)
        return self._limits

    @property
    def segment_container(self) -> str:
        return segment_container(self.container, self.limits.container)

    def part_size(self, size: int, wanted: int) -> int:
        largest, most = self.limits.file_size, self.limits.segments
        least = math.ceil(size / most)
        if least > largest:
            text = (
                f"an object of {size} bytes is too large: the store takes {most} segments of {largest} bytes"
            )
            raise ObjectTooLargeError(text)
        return max(least, min(wanted, largest))

    def list_parts(self, info: ObjectInfo) -> list[Part]:
        """Return the segments of *info*, whose manifest must be that of its etag; or the whole, if none can be read."""
        if not info.segments_etag:
            return [_whole(info)]
        try:
            return self.manifests.pieces(self.container, info)
        except Unreadable as e:
            log.debug("%s", e)
            return [_whole(info)]

    def names_in(self, info: ObjectInfo) -> set[str]:
        """Return the names of the segments of *info* that are in the container for them. Raise `Unreadable`."""
        home = f"/{self.segment_container}/"
        rows = self.manifests.rows(self.container, info.key, info.segments_etag)
        return {str(row["name"]).removeprefix(home) for row in rows}

    def take(self, name: str, by: str) -> None:
        """Have the segment *name* stay for *by*, whoever stored it. It then counts as new."""

        self.objects.session.ask("POST", self.segment_container, name, {TAKEN: by})

    def remove_unless_taken(self, name: str) -> None:
        """Remove a segment, unless another try has taken it. What fails is left: it is in nobody's way."""

        home, ask = self.segment_container, self.objects.session.ask
        try:
            if TAKEN not in ask("HEAD", home, name):
                ask("DELETE", home, name)
        except NotFoundError:
            return
        except StorageError as e:
            log.warning("a segment that is not used could not be removed; objSweep does it")
            log.debug("%s", e)  # which names it


class SwiftUpload:
    """A `MultipartUpload` of *key*. *stem* tells its segments from those of another file or size."""

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
        self._try = uuid.uuid4().hex
        self._stem = stem
        self._piece_size = int(stem.rpartition("/")[2])
        self._headers = headers
        self._replaced = replaced
        self._left: dict[Part, str] = {}
        self._reused: dict[int, str] = {}
        self._own: set[str] = set()
        self._may_be_named = False

    @functools.cached_property
    def _of_all_tries(self) -> str:
        return f"{home_of(self._key, self._segments.limits.key)}/{self._stem}/"

    def stored(self) -> Set[Part]:
        with contextlib.suppress(ContainerNotFoundError, PermissionDeniedError, RejectedError):
            in_use = self._names_replaced()
            if in_use is None:
                return set()
            rows = self._segments.objects.list(self._segments.segment_container, prefix=self._of_all_tries)
            for row in rows:
                number = number_of(row.key[len(self._of_all_tries) :])
                if number is not None and row.size and row.md5 and row.key not in in_use:
                    self._left[Part(number * self._piece_size, row.size, row.md5)] = row.key
        return self._left.keys()

    def _names_replaced(self) -> set[str] | None:
        """Return the names of the segments of the object that is there, None if they are not known.

        They are not used again: to store an object anew mends one that is damaged.
        """
        if not (self._replaced and self._replaced.segments_etag):
            return set()
        try:
            return self._segments.names_in(self._replaced)
        except (NotFoundError, Unreadable):
            return None

    def reuse(self, piece: Part) -> bool:
        name = self._left[piece]
        try:
            self._segments.take(name, self._try)
        except (NotFoundError, PermissionDeniedError, RejectedError):
            return False
        self._reused[piece.offset] = name
        return True

    def _name(self, offset: int) -> str:
        own = f"{self._of_all_tries}{self._try}/{offset // self._piece_size:08}"
        return self._reused.get(offset, own)

    def put(self, body: Source, offset: int, size: int) -> Part:
        segments = self._segments
        self._reused.pop(offset, None)
        name = self._name(offset)
        self._own.add(name)
        headers = {"Content-Type": "application/octet-stream"}
        home, like = segments.segment_container, segments.container
        info = segments.objects.put(home, name, body, size, headers, like)
        return Part(offset, size, info.etag)

    def finish(self, pieces: Sequence[Part], *, if_absent: bool = False) -> ObjectInfo:
        etag = segments_etag_of(piece.md5 for piece in pieces)
        manifest = [
            {
                "path": f"/{self._segments.segment_container}/{self._name(piece.offset)}",
                "etag": piece.md5,
                "size_bytes": piece.size,
            }
            for piece in pieces
        ]
        with only_if_new(self._key, self._headers, if_absent):
            try:
                self._put_manifest(json.dumps(manifest).encode(), etag, len(manifest))
            except RejectedError as e:
                # what is there is new, if it is of a try whose answer was lost
                if not (
                    self._may_be_named and isinstance(e, PreconditionFailedError) and self._is_live(etag)
                ):
                    raise
        size = sum(piece.size for piece in pieces)
        kind = self._headers["Content-Type"]
        return ObjectInfo(self._key, size, etag, content_type=kind, segments_etag=etag)

    def _is_live(self, etag: str) -> bool:
        """Tell whether the object is the one that was made here."""
        with contextlib.suppress(StorageError):  # what is told is why the last try failed
            return self._segments.objects.head(self._segments.container, self._key).etag == etag
        return False

    def _put_manifest(self, manifest: bytes, etag: str, segments: int) -> None:
        """Store the manifest. The store looks at each segment first; a heartbeat keeps the line open.

        That is a byte each 10 s, so it is given a second for each segment.

        It is not told the *etag*, which Ceph takes for that of the manifest: what it answers is compared.
        """

        def note() -> None:
            self._may_be_named = True

        def put(connection: Connection, url: str, token: str) -> None:
            path = path_of(url, self._segments.container, self._key)
            headers = {"X-Auth-Token": token, "Content-Length": str(len(manifest)), **self._headers}
            headers |= {"Accept": "application/json"}
            query = "?multipart-manifest=put&heartbeat=on"
            with noted_if_unanswered(note, _is_no_clear_refusal):
                answer = objects.session.send(connection, "PUT", path + query, headers, manifest)
                answer.allow(objects.session.timeout + segments)
                told = connection.http.read_all(answer, MOST_TOLD)
                if answer.status == 201:
                    stored = etag_in(answer.fields)
                else:
                    stored = _etag_told(told, path + query, answer.fields).strip('"')
            note()
            # a proxy may have dropped the ETag
            if (stored or etag_in(objects.ask_head(connection, path, token))) != etag:
                raise IntegrityError(f"{self._key!r}: the store has other segments than were sent")

        objects = self._segments.objects
        retry_on = (
            IntegrityError,
            BadRequestError,
        )  # a manifest that arrives damaged is no JSON, or names nothing
        try:
            objects.in_container(self._segments.container, put, self._key, retry_on=retry_on)
        except BadRequestError as e:
            raise IntegrityError(f"{self._key!r}: the manifest did not arrive whole: {e}") from e

    def discard(self) -> None:
        if self._may_be_named:
            return
        for name in self._own:
            self._segments.remove_unless_taken(name)


def _whole(info: ObjectInfo) -> Part:
    if info.size is None:
        raise RejectedError(f"the store does not tell how many bytes {info.key!r} has", key=info.key)
    return Part(0, info.size, info.md5)


def _is_no_clear_refusal(refusal: Refusal) -> bool:
    return refusal.status is None or not 400 <= refusal.status < 499 or refusal.status == 408


def _etag_told(content: bytes, path: str = "", headers: Mapping[str, str] | None = None) -> str:
    """Read what Swift tells after its heartbeats, with the status that it could not know before."""
    try:
        told = json.loads(content.strip() or b"{}")
        status, _, reason = str(told.get("Response Status", "")).partition(" ")
        if status == "201":
            return str(told.get("Etag") or "")
        errors = "; ".join(f"{unquote(str(name))}: {why}" for name, why in told.get("Errors", []))
    except NO_JSON:
        raise Refusal(500, "what it tells of a manifest can't be read") from None
    number = int(status) if status.isdecimal() else 500
    raise Refusal(number, " ".join([reason, errors]).strip(), headers, method="PUT", path=path)
