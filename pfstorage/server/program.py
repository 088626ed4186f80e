"""The server as a program: what it says, and the signals that it obeys."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import shlex
import signal
import stat
import threading
from collections.abc import Set

from pfstorage._version import __version__
from pfstorage.errors import LocalFileError
from pfstorage.handler import StoreHandler
from pfstorage.logs import console
from pfstorage.server.memory import share_between_threads
from pfstorage.server.options import ServerOptions
from pfstorage.server.server import ThreadedHTTPServer, seconds_to_end
from pfstorage.settings.model import Settings
from pfstorage.settings.redaction import without_password
from pfstorage.settings.values import secret_of
from pfstorage.wire.decoding import decoded

log = logging.getLogger(__name__)

_PRIVATE = ("--tlsKey", "--swiftKey")


def serve(handler: StoreHandler, options: argparse.Namespace, key_source: str) -> bool:
    """Serve until told to stop by ``quit``, SIGINT, SIGTERM or SIGQUIT; without --forever, one request.

    *key_source* is the flag --swiftKey as it was given. Tell whether the address and the file of the
    jobs could be had. Raise `SettingsError`.
    """
    share_between_threads()
    settings = handler.settings
    # it would end the process, until there is something to read again
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        wanted = ServerOptions.from_args(vars(options), secret_files=_secret_files(options, key_source))
        server = ThreadedHTTPServer((settings.ip_self, settings.port_self), handler, wanted)
    except OSError as e:
        address = f"{settings.ip_self}:{settings.port_self}"
        console.complain(f"cannot listen on {address}: {e.strerror}; see --ipSelf and --portSelf")
        return False

    def secrets() -> Set[str]:
        tokens = server.secrets()  # asked for by each line
        return handler.settings.secrets() | tokens if tokens else handler.settings.secrets()

    console.set_up_logging(settings.verbosity, wanted.log_format, secrets, in_batches=True)
    handler.state.on_change = lambda changed: console.set_verbosity(changed.verbosity)
    console.log_what_ends_threads()
    ended = threading.Event()
    longest = seconds_to_end(wanted.grace_seconds) + 1
    threading.Thread(target=_end_anyway, args=(server, ended, longest), daemon=True).start()
    with server:
        server.require_guard()
        _obey_signals(server, options, key_source)
        if options.b_forever and not _open_jobs(server):
            return False
        _announce(server, settings)
        if options.b_forever:
            server.serve_forever()
            finished = server.end_requests(wanted.grace_seconds)
        else:
            finished = server.answer_once()
        if not finished:
            console.complain(f"ends with requests at work that take too long: {server.load.at_work}")
            console.write_log()
            os._exit(1)  # the threads at work would hold up an ordinary exit
    handler.close()
    log.info("the server has ended")
    if not console.write_log():
        os._exit(0)  # an ordinary exit would wait for whoever does not read stderr
    ended.set()
    return True


def _end_anyway(server: ThreadedHTTPServer, ended: threading.Event, seconds: float) -> None:
    """End the process *seconds* after the server was told to stop, if it has not *ended*: whatever holds it up."""
    server.wait_for_stop()
    if not ended.wait(seconds):
        os._exit(1)


def _secret_files(options: argparse.Namespace, key_source: str) -> dict[str, str]:
    key_file = key_source[1:] if key_source.startswith("@") else ""
    return {"--swiftKey": key_file, "--configFileLoad": options.str_configFileLoad or ""}


def _open_jobs(server: ThreadedHTTPServer) -> bool:
    try:
        server.open_jobs()
    except LocalFileError as e:
        console.complain(f"--stateDir: {e}")
        return False
    return True


def _obey_signals(server: ThreadedHTTPServer, options: argparse.Namespace, key_source: str) -> None:
    # SIGQUIT as well: by default, it would leave the memory of the process in a file, with all its secrets
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda *_: _end(server))
    read_again = functools.partial(_reload, server, options, key_source)
    # in a thread: what a signal interrupts may hold a lock that is taken here
    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=read_again, daemon=True).start())


def _end(server: ThreadedHTTPServer) -> None:
    """End the server when its work is done; the second time at once."""
    if server.is_stopping:
        os._exit(1)
    server.stop()


def _reload(server: ThreadedHTTPServer, options: argparse.Namespace, key_source: str) -> None:
    """Read again what may have changed, the file of the store's key, too."""

    def read_settings() -> None:
        if key_source.startswith("@"):
            options.swiftKey = secret_of("--swiftKey", key_source)
        server.handler.reload()

    server.reload(read_settings)
    log.info("serves %s", _place(server.handler.settings))
    _warn_of_readable(server)


def _announce(server: ThreadedHTTPServer, settings: Settings) -> None:
    if settings.verbosity > 0:
        console.complain(f"{__version__} serves {_place(settings)} at {server.url}", "INFO")
    if server.site.access.is_open:
        console.complain(
            "anybody who can reach this address may read and replace what is served (--allowAnonymous)",
            "WARNING",
        )
    _warn_of_readable(server)


def _warn_of_readable(server: ThreadedHTTPServer) -> None:
    own = server.options.own_files()
    paths = {flag: own[flag] for flag in _PRIVATE if own.get(flag)}
    configuration = own.get("--configFileLoad", "")
    if configuration and _names_one_of(server.handler.settings.secrets(), configuration):
        paths["--configFileLoad"] = configuration
    for flag, path in paths.items():
        if _can_any_read(path):
            console.complain(
                f"any user of this host can read {flag} {path!r}: run  chmod o-r {shlex.quote(path)}",
                "WARNING",
            )


def _can_any_read(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:  # it was read, and has gone since
        return False


def _names_one_of(secrets: Set[str], path: str) -> bool:
    try:
        with open(path, "rb") as file:
            text = decoded(file.read())
    except (OSError, UnicodeDecodeError):  # it is another since it was read
        return False
    return any(secret in text for secret in secrets)


def _place(settings: Settings) -> str:
    if settings.type == "swift":
        url = without_password(settings.swift.auth_url)
        return f"the container {settings.swift.container_name!r} of {url}"
    if settings.type != "filesystem":
        return "its memory"
    base = settings.filesystem.store_base
    return base if os.path.isdir(base) else f"{base} (not there: the first upload makes it)"
