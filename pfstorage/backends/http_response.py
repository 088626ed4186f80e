"""The answer to an HTTP request: `http.client`'s, but for its headers.

`http.client` reads headers with the parser for mail, which takes a third of the
client's time for a small object (docs/performance.rst has the numbers).
"""

from __future__ import annotations

import http.client
import io
from typing import Any

MAX_LINE = 65536
MAX_HEADERS = 100
"""The limits of `http.client`."""


class Response(http.client.HTTPResponse):
    """An answer whose headers are *fields*, by their names in lower case; where one came twice, the last."""

    fields: dict[str, str]

    def begin(self) -> None:
        """Read the status and the headers of the answer, past those that only announce it (1xx)."""
        if self.headers is not None:
            return
        version, status, reason = _status_line(self.fp)
        self.fields = _fields(self.fp)
        while status < http.HTTPStatus.OK and status != http.HTTPStatus.SWITCHING_PROTOCOLS:
            version, status, reason = _status_line(self.fp)
            self.fields = _fields(self.fp)
        self.version = 11 if version != "HTTP/1.0" else 10
        self.code = self.status = status
        self.reason = reason
        self.headers = self.msg = http.client.HTTPMessage()  # for whoever looks: all is in fields
        self._prepare_body()

    def _prepare_body(self) -> None:
        """Tell the readers of `http.client` how the body ends (RFC 9112, 6.3)."""
        length = self.fields.get("content-length", "")
        self.chunked = self.fields.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        self.length = int(length) if length.isdecimal() and not self.chunked else None
        if self.status in (http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED):
            self.length = 0
        connection = self.fields.get("connection", "").lower()
        stays_open = "keep-alive" in connection if self.version == 10 else "close" not in connection
        self.will_close = not stays_open or (self.length is None and not self.chunked)


def _status_line(file: io.BufferedIOBase) -> tuple[str, int, str]:
    line = _line(file)
    if not line:
        raise http.client.RemoteDisconnected("the server closed the connection")
    version, _, rest = line.partition(" ")
    status, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or not (status.isdecimal() and 100 <= int(status) <= 999):
        raise http.client.BadStatusLine(line[:80])
    return version, int(status), reason.strip()


def _fields(file: io.BufferedIOBase) -> dict[str, str]:
    fields: dict[str, str] = {}
    for _ in range(MAX_HEADERS + 1):
        line = _line(file)
        if line in ("", "\r\n", "\n"):
            return fields
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    raise http.client.HTTPException(f"got more than {MAX_HEADERS} headers")


def _line(file: Any) -> str:
    line: bytes = file.readline(MAX_LINE + 1)
    if len(line) > MAX_LINE:
        raise http.client.LineTooLong("header line")
    return line.decode("latin-1")
