"""What listens: connections are taken, counted, and break."""

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
from socketserver import ThreadingMixIn
from typing import Any

from pfstorage.errors import NoDescriptorError, PfstorageError, StoppedError
from pfstorage.runtime.sockets import drain
from pfstorage.runtime.unexpected import NO_DESCRIPTORS, is_out_of_descriptors
from pfstorage.server.exchange import answer_of
from pfstorage.server.http1.connection import RequestHandler
from pfstorage.server.http1.sending import send
from pfstorage.server.load import ServerLoad
from pfstorage.server.options import ServerOptions
from pfstorage.wire.reply import Reply

log = logging.getLogger(__name__)

NO_FILES_SECONDS = 0.5
REFUSAL_SECONDS = 0.5
"""What a client is waited for that is refused, while no other connection is taken."""
GUEST_SECONDS = 1.0
"""What a connection without a place is waited for."""


class Listener(ThreadingMixIn, HTTPServer):
    """Listens on one address; each connection has a thread of its own, with a `RequestHandler`."""

    daemon_threads = True
    block_on_close = False  # idle kept connections would hold it up; who is at work is waited for by `load`
    request_queue_size = 128
    allow_reuse_address = True

    load: ServerLoad
    options: ServerOptions
    tls: ssl.SSLContext | None

    def __init__(self, address: tuple[str, int]) -> None:
        """Listen on *address*. Raise `OSError` if it can't be had."""
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._spare = open(os.devnull, "rb")  # noqa: SIM115 - it is closed where a descriptor is needed
        try:
            super().__init__(address, RequestHandler)
        except BaseException:
            self._spare.close()
            raise

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http{'s' if self.tls else ''}://{f'[{host!s}]' if ':' in str(host) else host!s}:{port}/api/v1/cmd"

    def server_bind(self) -> None:
        """Bind without looking up the name of this host, which may take long and is not used."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a new connection, also if there are too many: what it asks for tells whether it gets a place."""
        self.load.connect(request, str(client_address[0]))
        try:
            super().process_request(request, client_address)
        except BaseException:  # there is no thread for it
            self.load.disconnect(request)
            raise

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, in a thread of its own: greet by TLS, if that is asked for, and handle its requests."""
        connection = request
        try:
            if self.tls:
                connection = self.tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
                if not self.load.replace(request, connection):
                    return
                connection.settimeout(self.head_seconds(connection))  # for all of the greeting
                connection.do_handshake()
            super().finish_request(connection, client_address)
        finally:
            self.load.disconnect(connection)
            if connection is not request:
                connection.close()  # the server knows only the socket below it

    def head_seconds(self, connection: socket.socket) -> float:
        """Return how long *connection* is waited for until a head has come, or a greeting by TLS."""
        seconds = self.options.head_seconds
        return min(seconds, GUEST_SECONDS) if self.load.is_guest(connection) else seconds

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection. Where this process may open no more files, refuse one, for which a descriptor is kept."""
        try:
            return super().get_request()
        except OSError as e:
            if is_out_of_descriptors(e):
                log.error(
                    "no connection can be taken, too many files are open: see --maxConnections, ulimit -n"
                )
                self._refuse_one()
            raise

    def _refuse_one(self) -> None:
        """Take a connection by the descriptor that is kept, and answer 503; by TLS, it ends without a word."""
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
        except OSError as e:  # another thread was quicker to open something, or the client has gone
            log.debug("no connection was refused: %s", e)
            time.sleep(NO_FILES_SECONDS)
        finally:
            self.socket.settimeout(before)
            self._keep_spare()

    def _keep_spare(self) -> None:
        """Keep a descriptor, unless there is none now: then the next refusal finds none, and waits."""
        with contextlib.suppress(OSError):
            self._spare = open(os.devnull, "rb")  # noqa: SIM115 - it is closed where a descriptor is needed

    def server_close(self) -> None:
        super().server_close()
        self._spare.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what ended a connection: a client that went away is no news."""
        error = sys.exc_info()[1]
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            log.info("the connection from %s came to no TLS: %s", client_address[0], error.reason)
        elif isinstance(error, OSError | StoppedError):
            log.debug("the connection from %s broke: %r", client_address[0], error)
        elif isinstance(error, PfstorageError):  # what it is of may name a patient
            log.warning(
                "an answer to %s ended before it was whole: %s", client_address[0], type(error).__name__
            )
            log.debug("%s", error)
        else:
            log.error("the connection from %s broke unexpectedly", client_address[0], exc_info=error)


def _refusal() -> bytes:
    out = io.BytesIO()
    send(answer_of(Reply.from_error(NoDescriptorError(NO_DESCRIPTORS))), out, "GET", "HTTP/1.1", ends=True)
    return out.getvalue()
