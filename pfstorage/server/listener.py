"""Accept connections, and give each of them a thread."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import ssl
import sys
import time
from http.server import HTTPServer
from socketserver import BaseRequestHandler, ThreadingMixIn
from typing import Any

from pfstorage.errors import NoDescriptorError, PfstorageError, StoppedError
from pfstorage.runtime.sockets import drain
from pfstorage.runtime.unexpected import NO_DESCRIPTORS, is_out_of_descriptors
from pfstorage.server.exchange import standard_headers, to_response
from pfstorage.server.http1.sending import send_response
from pfstorage.server.load import ServerLoad
from pfstorage.server.options import ServerOptions
from pfstorage.wire.reply import Reply

log = logging.getLogger(__name__)

# seconds before the next attempt to accept a connection while no descriptor is free
NO_DESCRIPTOR_SECONDS = 0.5
# seconds for a client to receive its refusal, while no other connection is accepted
REFUSAL_SECONDS = 0.5
# seconds for a provisional connection to send its request
PROVISIONAL_SECONDS = 1.0


class Listener(ThreadingMixIn, HTTPServer):
    """A listener on one address, which handles each connection in its own thread."""

    daemon_threads = True
    block_on_close = (
        False  # `server_close` would wait for idle connections; `load` waits for requests at work
    )
    request_queue_size = 128
    allow_reuse_address = True

    load: ServerLoad
    options: ServerOptions
    tls: ssl.SSLContext | None

    def __init__(self, address: tuple[str, int], handler_class: type[BaseRequestHandler]) -> None:
        """Listen on *address*. Raise `OSError` if the address is not available."""
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._spare = open(os.devnull, "rb")  # noqa: SIM115 - `_refuse_one` closes it to free a descriptor
        try:
            super().__init__(address, handler_class)
        except BaseException:
            self._spare.close()
            raise

    @property
    def url(self) -> str:
        """The URL to which clients send messages."""
        host, port = self.server_address[:2]
        return f"http{'s' if self.tls else ''}://{f'[{host!s}]' if ':' in str(host) else host!s}:{port}/api/v1/cmd"

    def server_bind(self) -> None:
        """Bind without the lookup of the host name in the base class, which may take long."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a new connection even above the limit: its request decides whether it gets a place."""
        self.load.connect(request, str(client_address[0]))
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self.load.disconnect(request)
            raise

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in the current thread: make the TLS handshake if TLS is on, and handle the requests."""
        connection = request
        try:
            if self.tls:
                connection = self.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
                if not self.load.replace(request, connection):
                    return
                connection.settimeout(self.head_seconds(connection))  # for the whole handshake
                connection.do_handshake()
            super().finish_request(connection, client_address)
        finally:
            self.load.disconnect(connection)
            if connection is not request:
                connection.close()  # the base class closes only the socket below the TLS socket

    def head_seconds(self, connection: socket.socket) -> float:
        """Return the seconds in which *connection* must send a head, or complete the TLS handshake."""
        seconds = self.options.head_seconds
        return min(seconds, PROVISIONAL_SECONDS) if self.load.is_provisional(connection) else seconds

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection. If this process has no free descriptor, refuse one with the spare descriptor."""
        try:
            return super().get_request()
        except OSError as e:
            if is_out_of_descriptors(e):
                log.error(
                    "no connection can be accepted, too many files are open: see --maxConnections, ulimit -n"
                )
                self._refuse_one()
            raise

    def _refuse_one(self) -> None:
        """Accept a connection with the spare descriptor, and answer 503. With TLS, close it without an answer."""
        self._spare.close()
        before = self.socket.gettimeout()
        try:
            self.socket.settimeout(REFUSAL_SECONDS)
            connection, _ = self.socket.accept()
            with connection:
                connection.settimeout(REFUSAL_SECONDS)
                if not self.tls:
                    connection.sendall(_refusal())
                    drain(connection, REFUSAL_SECONDS)
        except OSError as e:  # another thread has taken the descriptor, or the client has left
            log.debug("no connection was refused: %s", e)
            time.sleep(NO_DESCRIPTOR_SECONDS)
        finally:
            self.socket.settimeout(before)
            self._keep_spare()

    def _keep_spare(self) -> None:
        """Reserve a descriptor. If none is free, the next refusal fails and waits."""
        with contextlib.suppress(OSError):
            self._spare = open(os.devnull, "rb")  # noqa: SIM115 - `_refuse_one` closes it to free a descriptor

    def server_close(self) -> None:
        super().server_close()
        self._spare.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log the error that ended a connection, with a level by its kind."""
        error = sys.exc_info()[1]
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            log.info("the TLS handshake with %s failed: %s", client_address[0], error.reason)
        elif isinstance(error, OSError | StoppedError):  # most often, the client has left
            log.debug("the connection from %s broke: %r", client_address[0], error)
        elif isinstance(error, PfstorageError):  # its text may name a patient
            log.warning("the response to %s is incomplete: %s", client_address[0], type(error).__name__)
            log.debug("%s", error)
        else:
            log.error("the connection from %s broke unexpectedly", client_address[0], exc_info=error)


def _refusal() -> bytes:
    out = io.BytesIO()
    response = to_response(Reply.from_error(NoDescriptorError(NO_DESCRIPTORS)))
    response.headers = standard_headers(response.status) | response.headers
    send_response(response, out, "GET", "HTTP/1.1", close=True)
    return out.getvalue()
