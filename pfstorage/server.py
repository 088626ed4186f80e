"""The HTTP door: `ThreadedHTTPServer` over one `StoreHandler`."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import HTTPServer
from socketserver import ThreadingMixIn
from typing import Any

from pfstorage._version import __version__
from pfstorage.handler import StoreHandler
from pfstorage.request import RequestHandler
from pfstorage.stop import Stop

log = logging.getLogger(__name__)

GRACE_SECONDS = 30.0
LAST_SECONDS = 6.0
"""What a transfer that was stopped takes at most to reply, and a little more."""


class ThreadedHTTPServer(ThreadingMixIn, HTTPServer):
    """Serves one `StoreHandler` on one address, each connection in a thread of its own."""

    daemon_threads = True
    block_on_close = False  # idle kept connections would hold it up; requests at work are waited for below
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(
        self, address: tuple[str, int], handler: StoreHandler | type[StoreHandler] = StoreHandler
    ) -> None:
        """Listen on *address*. As in 2.x, *handler* may be a class, which `setup` makes one of."""
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.args: dict[str, Any] = {}
        self.answers_once = False
        self._handler = handler
        self._handler_lock = threading.Lock()
        self._stopping = threading.Event()
        self.end_of_work = Stop()
        self._at_work = 0
        self._answered = 0
        self._changed = threading.Condition()
        super().__init__(address, RequestHandler)

    def setup(
        self, *, args: Mapping[str, Any], name: str = "pfstorage", desc: str = "", ver: str = __version__
    ) -> None:
        """Configure the handler as 2.x did, from the ``vars`` of its parsed flags."""
        self.args = dict(args)
        if isinstance(self._handler, type):
            self._handler = self._handler.from_args(self.args, name=name, version=ver)

    @property
    def handler(self) -> StoreHandler:
        """The dispatcher that answers all requests."""
        with self._handler_lock:
            if isinstance(self._handler, type):
                self._handler = self._handler()
            return self._handler

    @property
    def is_last_reply(self) -> bool:
        """Whether connections end with the present reply, since no more requests are taken."""
        return self.answers_once or self._stopping.is_set()

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{f'[{host!s}]' if ':' in str(host) else host!s}:{port}/api/v1/cmd"

    def server_bind(self) -> None:
        """Bind without looking up the name of this host, which may take long and is not used."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def answer_once(self) -> bool:
        """Answer one request, then return; connections that ask nothing don't count. `stop` ends it, too.

        Tell whether the request was answered, or broken off after the grace time.
        """
        self.answers_once = True
        self.timeout = 0.1  # how soon it is noticed that a request was answered
        while not (self._answered or self._stopping.is_set()):
            if self._at_work:
                with self._changed:
                    self._changed.wait(self.timeout)
            else:
                self.handle_request()
        return self.wait_for_requests(GRACE_SECONDS)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Count a request while it is being answered."""
        with self._changed:
            self._at_work += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._answered += 1
                self._changed.notify_all()

    def wait_for_requests(self, seconds: float) -> bool:
        """Listen no more, and wait until all requests are answered; tell whether they were.

        Transfers that take longer than *seconds* are stopped, and tell what they have done.
        """
        self.server_close()
        with self._changed:
            if self._changed.wait_for(lambda: self._at_work == 0, seconds):
                return True
            self.end_of_work.request("the server ends")
            return self._changed.wait_for(lambda: self._at_work == 0, LAST_SECONDS)

    def stop(self) -> None:
        """Make `serve_forever` or `answer_once` return soon. Any thread may call it, a request's too."""
        self._stopping.set()
        threading.Thread(target=self.shutdown, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what ended a connection: a client that went away is no news."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            log.debug("the connection from %s broke: %r", client_address[0], error)
        else:
            log.error("the connection from %s broke unexpectedly", client_address[0], exc_info=error)
