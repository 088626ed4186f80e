"""TLS through an HTTP proxy (CONNECT, RFC 9110, 9.3.6).

`http.client` can do this too, but not for an IPv6 address before Python 3.12, and it hides the proxy's status.
"""

from __future__ import annotations

import http.client
import math
import ssl
from collections.abc import Mapping

from pfstorage.backends.http.errors import PROXY, ConnectionBroken, Mistake
from pfstorage.backends.http.response import Response


class Tunnel(http.client.HTTPConnection):
    """A TLS connection to *host* and *port* through the proxy at *first*, which gets *headers*."""

    def __init__(
        self,
        first: tuple[str, int],
        host: str,
        port: int,
        headers: Mapping[str, str],
        context: ssl.SSLContext,
        blocksize: int,
    ) -> None:
        super().__init__(*first, blocksize=blocksize)
        self._target = (host, port)
        self._headers = headers
        self._context = context

    def connect(self) -> None:
        super().connect()
        try:
            self._ask()
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self._target[0])
        except BaseException:
            self.close()
            raise

    def _ask(self) -> None:
        """Send CONNECT to the proxy. Raise `Mistake` if the proxy refuses for good."""
        host, port = self._target
        way = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {way} HTTP/1.1", f"Host: {way}", *(f"{n}: {v}" for n, v in self._headers.items())]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = Response(self.sock, method="CONNECT", seconds=self.timeout or math.inf)
        try:
            answer.begin()  # the server sends nothing more until the client begins TLS
        finally:
            answer.close()
        if not 200 <= answer.status < 300:
            told = f"{PROXY}: it answered {answer.status} {answer.reason} to CONNECT {way}"
            if answer.status >= 500 or answer.status in (408, 429):
                raise ConnectionBroken(told, connecting=True)
            raise Mistake(told)
