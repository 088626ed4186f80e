"""Upload large objects to a Swift as static large objects (SLO), with segments in a second container.

The names of segments are those of python-swiftclient, with an identifier of the upload before the number:
``<container>_segments/<key>/<mtime>/<size>/<segment size>/<upload>/00000000``. So a later upload finds the segments
that an earlier one left, and two uploads never write the same name.

A name does not show which objects use a segment: another manifest may contain it, such as a copy or an old version.
So a failed upload removes only its own segments that no manifest can contain. The module `sweep` removes the others.
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
from pfstorage.backends.contract import ObjectInfo, Source
from pfstorage.backends.errors import PreconditionFailedError
from pfstorage.backends.http.errors import Refusal
from pfstorage.backends.swift.errors import BadRequestError
from pfstorage.backends.swift.headers import etag_in
from pfstorage.backends.swift.limits import SwiftLimits, fetch_limits
from pfstorage.backends.swift.manifests import SwiftManifests, Unreadable, segments_etag_of
from pfstorage.backends.swift.names import home_of, number_of, segment_container
from pfstorage.backends.swift.network import Connection, path_of
from pfstorage.backends.swift.objects import SwiftObjects, if_absent_errors, note_if_unanswered
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

# Bytes of the answer to a manifest: Swift lists each segment that is wrong.
MOST_ANSWERED = 1024**2
# The header of a segment with the identifier of the upload that reuses it.
REUSED_BY = "x-object-meta-taken-by"


class SwiftSegments:
    """The segments of the objects in *container*, and the manifests that list them."""

    def __init__(self, objects: SwiftObjects, container: str) -> None:
        self.objects = objects
        self.container = container
        self.manifests = SwiftManifests(objects)
        self._limits: SwiftLimits | None = None

    @property
    def limits(self) -> SwiftLimits:
        """The limits of the cluster. The first access requests them, and the defaults replace those that are hidden."""
        # before Python 3.12, a cached_property holds one lock for all instances while it waits
        if self._limits is None:
            self._limits = fetch_limits(self.objects.session)
        return self._limits

    @property
    def segment_container(self) -> str:
        """The name of the container with the segments. It depends on `limits`."""
        return segment_container(self.container, self.limits.container)

    def part_size(self, size: int, wanted: int) -> int:
        """Return the segment size in bytes for an object of *size* bytes: *wanted*, adjusted to `limits`.

        Raise `ObjectTooLargeError` if the object needs more segments than the cluster accepts.
        """
        largest, most = self.limits.file_size, self.limits.segments
        least = math.ceil(size / most)
        if least > largest:
            text = f"an object of {size} bytes is too large: the store accepts {most} segments of {largest} bytes"
            raise ObjectTooLargeError(text)
        return max(least, min(wanted, largest))

    def list_parts(self, info: ObjectInfo) -> list[Part]:
        """Return the segments of *info*, or one part for the whole object if its manifest can't be read.

        Raise `NotFoundError` if the manifest does not have the etag of *info*.
        """
        if not info.segments_etag:
            return [_whole_object(info)]
        try:
            return self.manifests.parts(self.container, info)
        except Unreadable as e:
            log.debug("%s", e)
            return [_whole_object(info)]

    def names_in(self, info: ObjectInfo) -> set[str]:
        """Return the names of those segments of *info* that are in the segment container. Raise `Unreadable`."""
        home = f"/{self.segment_container}/"
        rows = self.manifests.rows(self.container, info.key, info.segments_etag)
        return {str(row["name"]).removeprefix(home) for row in rows}

    def mark_reused(self, name: str, by: str) -> None:
        """Mark the segment *name* as used by the upload *by*. That also renews its modification time."""
        self.objects.session.ask("POST", self.segment_container, name, {REUSED_BY: by})

    def remove_unless_reused(self, name: str) -> None:
        """Remove a segment, unless another upload reuses it. An error leaves it in place, which does no harm."""
        home, ask = self.segment_container, self.objects.session.ask
        try:
            if REUSED_BY not in ask("HEAD", home, name):
                ask("DELETE", home, name)
        except NotFoundError:
            return
        except StorageError as e:
            log.warning("an unused segment could not be removed; run objSweep to remove it")
            log.debug("%s", e)  # this text has the key, which may name a patient


class SwiftUpload:
    """A `MultipartUpload` of *key*. *stem* is in the names of its segments: mtime, size and part size."""

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
        self._id = uuid.uuid4().hex
        self._stem = stem
        self._part_size = int(stem.rpartition("/")[2])
        self._headers = headers
        self._replaced = replaced
        self._stored: dict[Part, str] = {}
        self._reused: dict[int, str] = {}
        self._own: set[str] = set()
        self._may_be_in_use = False

    @functools.cached_property
    def _common_prefix(self) -> str:
        return f"{home_of(self._key, self._segments.limits.key)}/{self._stem}/"

    def stored(self) -> Set[Part]:
        """Return the segments that other uploads of this object stored; none if a listing is refused.

        Segments of the existing object are not among them.
        """
        with contextlib.suppress(ContainerNotFoundError, PermissionDeniedError, RejectedError):
            in_use = self._replaced_names()
            if in_use is None:
                return set()
            rows = self._segments.objects.list(self._segments.segment_container, prefix=self._common_prefix)
            for row in rows:
                number = number_of(row.key[len(self._common_prefix) :])
                if number is not None and row.size and row.md5 and row.key not in in_use:
                    self._stored[Part(number * self._part_size, row.size, row.md5)] = row.key
        return self._stored.keys()

    def _replaced_names(self) -> set[str] | None:
        """Return the names of the segments of the existing object, None if its manifest can't be read.

        They are not reused: a new upload then repairs a damaged object.
        """
        if not (self._replaced and self._replaced.segments_etag):
            return set()
        try:
            return self._segments.names_in(self._replaced)
        except (NotFoundError, Unreadable):
            return None

    def reuse(self, part: Part) -> bool:
        """Mark the segment of *part* as used by this upload; return False if it is gone or can't be marked.

        Several threads may call this at once.
        """
        name = self._stored[part]
        try:
            self._segments.mark_reused(name, self._id)
        except (NotFoundError, PermissionDeniedError, RejectedError):
            return False
        self._reused[part.offset] = name
        return True

    def _name(self, offset: int) -> str:
        own = f"{self._common_prefix}{self._id}/{offset // self._part_size:08}"
        return self._reused.get(offset, own)

    def put(self, body: Source, offset: int, size: int) -> Part:
        """Store *size* bytes of *body*, from its present position, as a segment at *offset*. Return it with its MD5.

        Several threads may call this at once. Raise `LocalFileError` if *body* has another size, or `StorageError`.
        """
        segments = self._segments
        self._reused.pop(offset, None)
        name = self._name(offset)
        self._own.add(name)
        headers = {"Content-Type": "application/octet-stream"}
        home, like = segments.segment_container, segments.container
        info = segments.objects.put(home, name, body, size, headers, like)
        return Part(offset, size, info.etag)

    def finish(self, parts: Sequence[Part], *, if_absent: bool = False) -> ObjectInfo:
        """Store the manifest of *parts*, in the order of their offsets. It replaces an existing object atomically.

        Raise `ExistsError` if *if_absent* is set and the object exists, `IntegrityError` if the store has other
        segments, or another `StorageError`.
        """
        etag = segments_etag_of(part.md5 for part in parts)
        manifest = [
            {
                "path": f"/{self._segments.segment_container}/{self._name(part.offset)}",
                "etag": part.md5,
                "size_bytes": part.size,
            }
            for part in parts
        ]
        with if_absent_errors(self._key, self._headers, if_absent):
            try:
                self._put_manifest(json.dumps(manifest).encode(), etag, len(manifest))
            except RejectedError as e:
                # an earlier attempt, whose answer was lost, may have stored the object
                if not (
                    self._may_be_in_use and isinstance(e, PreconditionFailedError) and self._is_live(etag)
                ):
                    raise
        size = sum(part.size for part in parts)
        kind = self._headers["Content-Type"]
        return ObjectInfo(self._key, size, etag, content_type=kind, segments_etag=etag)

    def _is_live(self, etag: str) -> bool:
        """Return whether the store has the object of this upload."""
        with contextlib.suppress(StorageError):  # the error of the PUT is raised instead
            return self._segments.objects.head(self._segments.container, self._key).etag == etag
        return False

    def _put_manifest(self, manifest: bytes, etag: str, segments: int) -> None:
        """Store the manifest, and check that the new object has *etag*.

        The store first checks each segment, so the answer may take a second for each. Meanwhile it sends a byte every
        10 s. The request has no ETag, since Ceph would compare it with the manifest itself.
        """

        def note() -> None:
            self._may_be_in_use = True

        def put(connection: Connection, url: str, token: str) -> None:
            path = path_of(url, self._segments.container, self._key)
            headers = {"X-Auth-Token": token, "Content-Length": str(len(manifest)), **self._headers}
            headers |= {"Accept": "application/json"}
            query = "?multipart-manifest=put&heartbeat=on"
            with note_if_unanswered(note, _is_no_clear_refusal):
                answer = objects.session.send(connection, "PUT", path + query, headers, manifest)
                answer.allow(objects.session.timeout + segments)
                content = connection.http.read_all(answer, MOST_ANSWERED)
                if answer.status == 201:
                    stored = etag_in(answer.fields)
                else:
                    stored = _etag_in_body(content, path + query, answer.fields).strip('"')
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
        """Remove the segments that this upload stored, unless a manifest may contain them or an upload reuses them.

        An error of the store is logged, and leaves the segment in place.
        """
        if self._may_be_in_use:
            return
        for name in self._own:
            self._segments.remove_unless_reused(name)


def _whole_object(info: ObjectInfo) -> Part:
    if info.size is None:
        raise RejectedError(
            f"the size of {info.key!r} is not known: the store sent no Content-Length; see its proxy",
            key=info.key,
        )
    return Part(0, info.size, info.md5)


def _is_no_clear_refusal(refusal: Refusal) -> bool:
    return refusal.status is None or not 400 <= refusal.status < 499 or refusal.status == 408


def _etag_in_body(content: bytes, path: str = "", headers: Mapping[str, str] | None = None) -> str:
    """Return the ETag of the JSON after the heartbeats. Raise `Refusal` for an error that it describes."""
    try:
        result = json.loads(content.strip() or b"{}")
        status, _, reason = str(result.get("Response Status", "")).partition(" ")
        if status == "201":
            return str(result.get("Etag") or "")
        errors = "; ".join(f"{unquote(str(name))}: {reason}" for name, reason in result.get("Errors", []))
    except NO_JSON:
        raise Refusal(500, "the answer to the manifest can't be read") from None
    number = int(status) if status.isdecimal() else 500
    raise Refusal(number, " ".join([reason, errors]).strip(), headers, method="PUT", path=path)
