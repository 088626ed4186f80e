"""One object of a Swift on its way into a sink: one request, and more only where one breaks off."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace

from pfstorage.backends.contract import CHUNK, ByteRange, ObjectInfo, Sink
from pfstorage.backends.errors import PreconditionFailedError, object_changed_error, range_error
from pfstorage.backends.http.errors import Refusal
from pfstorage.backends.http.response import Response
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
        # of the answer that came first, or of the first whose bytes came
        self._headers: Mapping[str, str] = {}
        self._info = ObjectInfo(key)
        self._start, self._size = (byte_range.offset, byte_range.size) if byte_range else (0, None)
        self._has_end = False
        self._sink_seconds = 0.0
        self._refusal: BaseException | None = None
        self._is_to_compare = False  # and not the store
        self._etag_told = ""  # with a refusal

    def run(self) -> ObjectInfo:
        """Do what `Storage.get` says."""
        try:
            self._session.call(self._get_rest, self._key, progress=self._progress)
        except RejectedError as e:
            if not isinstance(e, PreconditionFailedError):  # it is If-Match
                raise
            if self._is_to_compare or not self._is_large_and_the_same():
                raise object_changed_error(self._key) from None
            self._is_to_compare = True
            return self.run()
        if self._refusal:
            raise self._refusal
        return self._verified()

    def _progress(self) -> float:
        """Return the bytes that came, and those that might have come while the sink took its time."""
        return self._hashed.received + self._sink_seconds * self._session.min_rate

    def _is_large_and_the_same(self) -> bool:
        """Tell whether it is the large object that the store says it is not: Ceph has two ETags for one.

        It tells none of them then; a Swift tells that of the object, and need not be asked.
        """
        if self._etag_told not in ("", self._etag):
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
        if info.size is None and (self._has_end or md5):  # else it may have been cut
            return replace(info, size=self._hashed.received)
        return info

    @property
    def _etag(self) -> str:
        """That of the only object whose bytes are wanted, "" if it may be any."""
        if self._span and self._span.etag:
            return self._span.etag
        return etag_in(self._headers) if self._hashed.received else ""

    def _get_rest(self, connection: Connection, url: str, token: str) -> None:
        """Get what the sink has not received yet."""
        received = self._hashed.received
        if received and not self._etag:
            text = f"{self._key!r}: the download broke off, and the store tells no ETag to go on by; pull it again"
            raise IntegrityError(text, key=self._key)
        headers = {"X-Auth-Token": token, **self._conditions()}
        path = path_of(url, self._container, self._key)
        try:
            answer = self._session.send(connection, "GET", path, headers)
        except Refusal as e:
            self._etag_told = etag_in(e.headers)
            raise
        try:
            self._require_wanted(answer)
            if not received:
                self._begin(answer)
        except (IntegrityError, RejectedError):
            connection.http.close()
            raise
        if self._refusal:
            _leave(connection, answer)
        else:
            self._receive(connection, answer)

    def _conditions(self) -> dict[str, str]:
        """Return the headers that ask for what is wanted and has not come yet."""
        received = self._hashed.received
        if not (self._span or received):
            return {}
        match = {"If-Match": f'"{self._etag}"'} if self._etag and not self._is_to_compare else {}
        if self._span and not received:
            return {"Range": f"bytes={_range_of(self._span)}", **match}
        first = self._start + received
        last = "" if self._size is None else self._start + self._size - 1
        return {"Range": f"bytes={first}-{last}", **match}

    def _require_wanted(self, answer: Response) -> None:
        """Raise unless *answer* is of the object, and of the part of it, that was asked for.

        What lies between here and the store may know nothing of If-Match, or keep an answer to another question.
        """
        told, part = etag_in(answer.fields), answer.fields.get("content-range", "")
        if self._etag and told != self._etag and (told or self._is_to_compare):
            raise object_changed_error(self._key)
        if answer.status != 206:
            return
        begin = re.match(r"bytes (\d+)-", part)
        if not begin:
            raise IntegrityError(
                f"{self._key!r}: the store does not tell which part it sent; see its proxy", key=self._key
            )
        wanted = self._start + self._hashed.received
        if wanted >= 0 and int(begin[1]) != wanted:
            raise object_changed_error(self._key)

    def _begin(self, answer: Response) -> None:
        """Take note of what comes, and tell the sink; what that raises ends the download."""
        self._headers = answer.fields
        self._info = info_of(self._key, answer.fields)
        if self._span:
            self._start, self._size = self._bounds(self._span, answer)
        try:
            announce(self._sink, self._info)
        except Exception as e:  # noqa: BLE001 - it is raised again where no other try is made for it
            self._refusal = e

    def _bounds(self, byte_range: ByteRange, answer: Response) -> tuple[int, int | None]:
        """Return the first byte of *byte_range* and its size, as far as *answer* tells how large the object is."""
        if self._info.size is not None:
            start, size = byte_range.bounds(self._info.size)
            if not size and byte_range.size != 0:
                raise range_error(self._key, self._info.size)
            return start, size
        if told := re.match(r"bytes (\d+)-(\d+)/", answer.fields.get("content-range", "")):
            return int(told[1]), int(told[2]) - int(told[1]) + 1
        if byte_range.offset < 0:
            raise RejectedError(f"the store does not tell where {self._key!r} ends", key=self._key)
        return byte_range.offset, byte_range.size

    def _receive(self, connection: Connection, answer: Response) -> None:
        http = connection.http
        self._has_end = answer.chunked or answer.length is not None
        # a store may ignore Range, and send all
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


def _range_of(byte_range: ByteRange) -> str:
    """Return *byte_range* as the header Range has it (RFC 9110, section 14.1.2)."""
    if byte_range.offset < 0:
        return str(byte_range.offset)
    return f"{byte_range.offset}-{'' if byte_range.size is None else byte_range.offset + byte_range.size - 1}"


def _leave(connection: Connection, answer: Response) -> None:
    """Leave what nobody wants of *answer*: little of it is read, and the connection serves another request."""
    if answer.length is not None and answer.length <= CHUNK:
        connection.http.skip(answer)
    else:
        connection.http.close()
