"""Download one object of a Swift into a sink: one request, and another one after each broken connection."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace

from pfstorage.backends.contract import CHUNK, ByteRange, ObjectInfo, Sink
from pfstorage.backends.errors import PreconditionFailedError, object_changed_error, range_error
from pfstorage.backends.http.errors import Refusal
from pfstorage.backends.http.response import StoreResponse
from pfstorage.backends.streams import HashedSink, announce
from pfstorage.backends.swift.headers import LARGE, etag_in, info_of, is_md5_of_content
from pfstorage.backends.swift.network import Connection, path_of
from pfstorage.backends.swift.session import SwiftSession
from pfstorage.errors import IntegrityError, RejectedError


class Download:
    """The bytes of *key*, or of a *byte_range* of it. A dropped download resumes, if it is the same object."""

    def __init__(
        self, session: SwiftSession, container: str, key: str, sink: Sink, byte_range: ByteRange | None
    ) -> None:
        self._session = session
        self._container = container
        self._key = key
        self._sink = sink
        self._span = byte_range
        self._hashed = HashedSink(sink, hashes=not byte_range or bool(byte_range.md5))
        # the headers of the first answer, or of the first answer with content
        self._headers: Mapping[str, str] = {}
        self._info = ObjectInfo(key)
        self._start, self._size = (byte_range.offset, byte_range.size) if byte_range else (0, None)
        self._ends_in_band = False
        self._sink_seconds = 0.0
        self._sink_error: BaseException | None = None
        self._compares_etags = False  # instead of the store
        self._refused_etag = ""  # the ETag of the last refusal

    def run(self) -> ObjectInfo:
        """Download the object, as `Storage.get` does."""
        try:
            self._session.call(self._get_rest, self._key, progress=self._progress)
        except RejectedError as e:
            if not isinstance(e, PreconditionFailedError):  # it is If-Match
                raise
            if self._compares_etags or not self._is_large_and_the_same():
                raise object_changed_error(self._key) from None
            self._compares_etags = True
            return self.run()
        if self._sink_error:
            raise self._sink_error
        return self._verified()

    def _progress(self) -> float:
        """Return the received bytes, and those that the least rate allows for the time that the sink needed."""
        return self._hashed.received + self._sink_seconds * self._session.min_rate

    def _is_large_and_the_same(self) -> bool:
        """Return whether the store has the expected large object, although it answered 412.

        Ceph has two ETags for a large object, and sends neither of them with a 412. Swift sends the ETag.
        """
        if self._refused_etag not in ("", self._etag):
            return False
        fields = self._session.ask("HEAD", self._container, self._key)
        return not LARGE.isdisjoint(fields) and etag_in(fields) == self._etag

    def _verified(self) -> ObjectInfo:
        info, byte_range = self._info, self._span
        if byte_range:
            self._hashed.verify(self._key, self._size, byte_range.md5 or None)
            return info
        md5 = info.etag if is_md5_of_content(self._headers) else None
        self._hashed.verify(self._key, info.size, md5)
        if info.size is None and (self._ends_in_band or md5):  # otherwise it may have been cut off
            return replace(info, size=self._hashed.received)
        return info

    @property
    def _etag(self) -> str:
        """The ETag that the object must have, or "" if any version is right."""
        if self._span and self._span.etag:
            return self._span.etag
        return etag_in(self._headers) if self._hashed.received else ""

    def _get_rest(self, connection: Connection, url: str, token: str) -> None:
        """Request the bytes that the sink has not received yet."""
        received = self._hashed.received
        if received and not self._etag:
            text = f"{self._key!r}: the download broke, and the store sent no ETag to continue it safely; pull it again"
            raise IntegrityError(text, key=self._key)
        headers = {"X-Auth-Token": token, **self._conditions()}
        path = path_of(url, self._container, self._key)
        try:
            answer = self._session.send(connection, "GET", path, headers)
        except Refusal as e:
            self._refused_etag = etag_in(e.headers)
            raise
        try:
            self._require_wanted(answer)
            if not received:
                self._begin(answer)
        except (IntegrityError, RejectedError):
            connection.http.close()
            raise
        if self._sink_error:
            _discard(connection, answer)
        else:
            self._receive(connection, answer)

    def _conditions(self) -> dict[str, str]:
        """Return the headers of a request for the missing bytes."""
        received = self._hashed.received
        if not (self._span or received):
            return {}
        match = {"If-Match": f'"{self._etag}"'} if self._etag and not self._compares_etags else {}
        if self._span and not received:
            return {"Range": f"bytes={_range_header(self._span)}", **match}
        first = self._start + received
        last = "" if self._size is None else self._start + self._size - 1
        return {"Range": f"bytes={first}-{last}", **match}

    def _require_wanted(self, answer: StoreResponse) -> None:
        """Raise unless *answer* has the requested object, and the requested range of it.

        A proxy may ignore If-Match, or may send a stored answer to another request.
        """
        etag, content_range = etag_in(answer.fields), answer.fields.get("content-range", "")
        if self._etag and etag != self._etag and (etag or self._compares_etags):
            raise object_changed_error(self._key)
        if answer.status != 206:
            return
        begin = re.match(r"bytes (\d+)-", content_range)
        if not begin:
            raise IntegrityError(
                f"{self._key!r}: the answer has no valid Content-Range; see the proxy of the store",
                key=self._key,
            )
        wanted = self._start + self._hashed.received
        if wanted >= 0 and int(begin[1]) != wanted:
            raise object_changed_error(self._key)

    def _begin(self, answer: StoreResponse) -> None:
        """Record the headers of *answer* and announce the object to the sink, whose error ends the download."""
        self._headers = answer.fields
        self._info = info_of(self._key, answer.fields)
        if self._span:
            self._start, self._size = self._bounds(self._span, answer)
        try:
            announce(self._sink, self._info)
        except Exception as e:  # noqa: BLE001 - `run` raises it, outside of the retries
            self._sink_error = e

    def _bounds(self, byte_range: ByteRange, answer: StoreResponse) -> tuple[int, int | None]:
        """Return the first byte of *byte_range* and its size, as far as *answer* has the size of the object."""
        if self._info.size is not None:
            start, size = byte_range.bounds(self._info.size)
            if not size and byte_range.size != 0:
                raise range_error(self._key, self._info.size)
            return start, size
        if told := re.match(r"bytes (\d+)-(\d+)/", answer.fields.get("content-range", "")):
            return int(told[1]), int(told[2]) - int(told[1]) + 1
        if byte_range.offset < 0:
            raise RejectedError(
                f"the size of {self._key!r} is not known, so the store must send its last bytes with a Content-Range",
                key=self._key,
            )
        return byte_range.offset, byte_range.size

    def _receive(self, connection: Connection, answer: StoreResponse) -> None:
        http = connection.http
        self._ends_in_band = answer.chunked or answer.length is not None
        # a store may ignore Range and send the whole object
        surplus = 0 if answer.status == 206 else self._start + self._hashed.received
        left = None if self._size is None else self._size - self._hashed.received
        while count := http.read_into(answer, http.buffer):
            chunk = http.buffer[surplus:count] if surplus else http.buffer[:count]
            surplus = max(0, surplus - count)
            chunk = chunk[:left]
            started = time.monotonic()
            self._hashed.write(chunk)
            self._sink_seconds += time.monotonic() - started
            left = None if left is None else left - len(chunk)
            if left == 0 and answer.status != 206:  # the rest of the object may be long
                http.close()
                return


def _range_header(byte_range: ByteRange) -> str:
    """Format *byte_range* for the header Range (RFC 9110, section 14.1.2)."""
    if byte_range.offset < 0:
        return str(byte_range.offset)
    return f"{byte_range.offset}-{'' if byte_range.size is None else byte_range.offset + byte_range.size - 1}"


def _discard(connection: Connection, answer: StoreResponse) -> None:
    """Discard the body of *answer*. A short body is read, so that the connection can be used again."""
    if answer.length is not None and answer.length <= CHUNK:
        connection.http.skip(answer)
    else:
        connection.http.close()
