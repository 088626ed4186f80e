"""Open connections to a server: directly, through an HTTP proxy, or through a tunnel of one."""

from __future__ import annotations

import base64
import functools
import http.client
import math
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from pfstorage.backends.contract import CHUNK
from pfstorage.backends.http.errors import PROXY, ConnectionBroken, Mistake
from pfstorage.backends.http.response import StoreResponse


@dataclass(frozen=True)
class NetworkRoute:
    """A route to the server of *url*: direct, or through the HTTP proxy of the URL *proxy*.

    *timeout* in seconds bounds each silence and the head of each answer; *connect_timeout* bounds the opening of a
    connection. *min_rate* in bytes a second bounds the speed of bodies from below, 0 sets no bound (see `pace`).
    *context* is for https. Without it, the certificates of the system are trusted.
    """

    url: str
    proxy: str = field(repr=False)  # it may contain a password
    connect_timeout: float
    timeout: float
    context: ssl.SSLContext | None = None
    min_rate: float = 0


def make_connection(route: NetworkRoute) -> tuple[str, dict[str, str], http.client.HTTPConnection]:
    """Return the prefix of each path, the headers of each request, and the connection, which is not open yet."""
    target, proxy = urlsplit(route.url), urlsplit(route.proxy)
    context = (route.context or ssl.create_default_context()) if target.scheme == "https" else None
    default = http.client.HTTPS_PORT if context else http.client.HTTP_PORT
    host, port = target.hostname or "", target.port or default
    netloc = target.netloc.rpartition("@")[2]
    headers = {"Host": netloc}
    connection: http.client.HTTPConnection
    prefix = ""
    if proxy.hostname:
        proxy_address = (proxy.hostname, proxy.port or http.client.HTTP_PORT)
        credentials = _proxy_headers(proxy.username, proxy.password)
        if context:
            connection = Tunnel(proxy_address, host, port, credentials, context, CHUNK)
        else:
            connection = http.client.HTTPConnection(*proxy_address, blocksize=CHUNK)
            prefix, headers = f"http://{netloc}", {**headers, **credentials}
    elif context:
        connection = http.client.HTTPSConnection(host, port, context=context, blocksize=CHUNK)
    else:
        connection = http.client.HTTPConnection(host, port, blocksize=CHUNK)
    connection.response_class = response_class(route)
    return prefix, headers, connection


def response_class(route: NetworkRoute) -> Any:
    """Return the class of responses, with the bounds of *route*."""
    return functools.partial(StoreResponse, seconds=route.timeout, min_rate=route.min_rate)


def _proxy_headers(user: str | None, password: str | None) -> dict[str, str]:
    if not user and not password:
        return {}
    login = f"{unquote(user or '')}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(login).decode()}"}


def speaks_tls(route: NetworkRoute) -> bool:
    """Return whether the server of *route*, a URL with http, expects TLS. Such a server closes plain HTTP silently."""
    target = urlsplit(route.url)
    if route.proxy or target.scheme == "https":
        return False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    address = (target.hostname or "", target.port or http.client.HTTP_PORT)
    try:
        with socket.create_connection(address, route.connect_timeout) as sock, context.wrap_socket(sock):
            return True
    except (OSError, ValueError):
        return False


class Tunnel(http.client.HTTPConnection):
    """A TLS connection to *host* and *port* through the proxy at *proxy_address*, which gets *headers*.

    The request is CONNECT (RFC 9110, 9.3.6). `http.client` sends it too, but not for an IPv6 address before
    Python 3.12, and it hides the status of the proxy.
    """

    def __init__(
        self,
        proxy_address: tuple[str, int],
        host: str,
        port: int,
        headers: Mapping[str, str],
        context: ssl.SSLContext,
        blocksize: int,
    ) -> None:
        super().__init__(*proxy_address, blocksize=blocksize)
        self._target = (host, port)
        self._headers = headers
        self._context = context

    def connect(self) -> None:
        super().connect()
        try:
            self._send_connect()
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self._target[0])
        except BaseException:
            self.close()
            raise

    def _send_connect(self) -> None:
        """Send CONNECT to the proxy. Raise `Mistake` if the proxy refuses permanently."""
        host, port = self._target
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        headers = [f"{name}: {value}" for name, value in self._headers.items()]
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", *headers]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = StoreResponse(self.sock, method="CONNECT", seconds=self.timeout or math.inf)
        try:
            answer.begin()  # the server sends nothing more until the client starts TLS
        finally:
            answer.close()
        if not 200 <= answer.status < 300:
            text = f"{PROXY}: it answered {answer.status} {answer.reason} to CONNECT {target}"
            if answer.status >= 500 or answer.status in (408, 429):
                raise ConnectionBroken(text, connecting=True)
            raise Mistake(text)
