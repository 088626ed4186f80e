"""The server as a program: what it says, and the signals that it obeys."""

from __future__ import annotations

import argparse
import functools
import os
import signal
import threading
from collections.abc import Set

from pfstorage import console
from pfstorage._version import __version__
from pfstorage.config import Settings
from pfstorage.errors import LocalFileError, MessageError
from pfstorage.handler import StoreHandler
from pfstorage.masks import without_password
from pfstorage.serving.options import ServerOptions
from pfstorage.serving.server import ThreadedHTTPServer
from pfstorage.texts import text_of


def serve(handler: StoreHandler, options: argparse.Namespace, key_source: str) -> bool:
    """Serve until told to stop by ``quit``, SIGINT or SIGTERM; without --forever, one request.

    *key_source* is the flag --swiftKey as it was given. Tell whether the address could be had.
    Raise `SettingsError`.
    """
    settings = handler.settings
    try:
        wanted = ServerOptions.from_args(vars(options))
        server = ThreadedHTTPServer((settings.ip_self, settings.port_self), handler, wanted)
    except OSError as e:
        console.complain(f"cannot listen on {settings.ip_self}:{settings.port_self}: {e.strerror}")
        return False

    def secrets() -> Set[str]:
        return handler.settings.secrets() | server.secrets()

    console.set_up_logging(settings.verbosity, options.logFormat, secrets, in_batches=True)
    console.log_what_ends_threads()
    with server:
        server.require_guard()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: _end(server))
        read_again = functools.partial(_reload, server, options, key_source)
        # in a thread: what a signal interrupts may hold a lock that is taken here
        signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=read_again, daemon=True).start())
        if options.b_forever:
            server.open_jobs()
        _announce(server, settings)
        if options.b_forever:
            server.serve_forever()
            finished = server.wait_for_requests(wanted.grace_seconds)
        else:
            finished = server.answer_once()
        if not finished:
            console.complain("ends in the middle of a transfer that takes too long")
            os._exit(1)  # the threads at work would hold up an ordinary exit
    handler.close()
    return True


def _end(server: ThreadedHTTPServer) -> None:
    """End the server when its work is done; the second time at once."""
    if server.is_stopping:
        os._exit(1)
    server.stop()


def _reload(server: ThreadedHTTPServer, options: argparse.Namespace, key_source: str) -> None:
    """Read again what may have changed, the file of the store's key, too."""
    try:
        if key_source.startswith("@"):
            options.swiftKey = text_of(key_source).strip()
    except (LocalFileError, MessageError) as e:
        console.complain(f"--swiftKey is kept as it was: {e}")
    server.reload()


def _announce(server: ThreadedHTTPServer, settings: Settings) -> None:
    if settings.verbosity > 0:
        console.complain(f"{__version__} serves {_place(settings)} at {server.url}", "INFO")
    if server.site.access.is_open:
        console.complain(
            "anybody who can reach this address may read, replace and remove what is served (--allowAnonymous)",
            "WARNING",
        )


def _place(settings: Settings) -> str:
    if settings.type == "swift":
        url = without_password(settings.swift.auth_url)
        return f"the container {settings.swift.container_name!r} of {url}"
    return settings.filesystem.store_base if settings.type == "filesystem" else "its memory"
