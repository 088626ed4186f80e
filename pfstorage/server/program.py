"""Run the server as a program: signals, warnings and the exit."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import functools
import gc
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
from pfstorage.server.options import ServerOptions
from pfstorage.server.server import ThreadedHTTPServer, seconds_to_end
from pfstorage.settings.model import Settings
from pfstorage.settings.redaction import without_password
from pfstorage.settings.values import read_file, read_secret
from pfstorage.wire.decoding import decoded

log = logging.getLogger(__name__)

_SECRET_FILES = ("--tlsKey", "--swiftKey")
_M_ARENA_MAX = -8  # of mallopt(3), from glibc's malloc.h

# A full collection examines the rows of all listings, and stops all threads for 50 ms: start it a fifth as often as
# with Python's 700, 10, 10. Reference cycles take more memory meanwhile.
_GC_THRESHOLDS = 700, 10, 50


def serve(handler: StoreHandler, options: argparse.Namespace, key_source: str) -> bool:
    """Serve until the action ``quit``, SIGINT, SIGTERM or SIGQUIT. Without --forever, serve one request.

    *key_source* is the value of the flag --swiftKey, before its file was read. Return False if the address or the
    database of the jobs is not available. Raise `SettingsError`.
    """
    _use_one_arena()
    gc.freeze()  # no collection needs to examine imported objects
    gc.set_threshold(*_GC_THRESHOLDS)
    settings = handler.settings
    # SIGHUP would end the process until `_handle_signals` gives it a meaning
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        server_options = ServerOptions.from_args(
            vars(options), secret_files=_secret_files(options, key_source)
        )
        server = ThreadedHTTPServer((settings.ip_self, settings.port_self), handler, server_options)
    except OSError as e:
        address = f"{settings.ip_self}:{settings.port_self}"
        console.print_line(f"cannot listen on {address}: {e.strerror}; see --ipSelf and --portSelf")
        return False

    def secrets() -> Set[str]:
        tokens = server.secrets()  # for each line, since tokens may change
        return handler.settings.secrets() | tokens if tokens else handler.settings.secrets()

    console.set_up_logging(settings.verbosity, server_options.log_format, secrets, in_batches=True)
    handler.state.on_change = lambda changed: console.set_verbosity(changed.verbosity)
    console.log_uncaught_errors()
    ended = threading.Event()
    longest = seconds_to_end(server_options.grace_seconds) + 1
    threading.Thread(target=_exit_late, args=(server, ended, longest), daemon=True).start()
    with server:
        server.check_exposure()
        _handle_signals(server, options, key_source)
        if options.b_forever and not _open_jobs(server):
            return False
        _announce(server, settings)
        if options.b_forever:
            server.serve_forever()
            finished = server.end_requests(server_options.grace_seconds)
        else:
            finished = server.answer_once()
        if not finished:
            console.print_line(
                f"exits although {server.load.at_work} requests are still at work after --graceSeconds"
            )
            console.write_log()
            os._exit(1)  # an ordinary exit would wait for the threads at work
    handler.close()
    log.info("the server has ended")
    if not console.write_log():
        os._exit(0)  # an ordinary exit would wait for the reader of stderr
    ended.set()
    return True


def _use_one_arena() -> None:
    """Make all threads allocate memory from one arena. Call this before the first thread starts.

    By default, glibc gives each of the first threads its own arena, up to eight for each processor. No thread can use
    the memory that another one has freed there. With many long messages, the process would hold twice as much memory.
    Other C libraries have no such option.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _exit_late(server: ThreadedHTTPServer, ended: threading.Event, seconds: float) -> None:
    """Exit *seconds* after the server was stopped, unless *ended* is set by then."""
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
        console.print_line(f"--stateDir: {e}")
        return False
    return True


def _handle_signals(server: ThreadedHTTPServer, options: argparse.Namespace, key_source: str) -> None:
    # By default, SIGQUIT would write a core dump of the process, with all its secrets.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda *_: _stop_server(server))
    reload = functools.partial(_reload, server, options, key_source)
    # in a thread, because the interrupted code may hold a lock that the reload takes
    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=reload, daemon=True).start())


def _stop_server(server: ThreadedHTTPServer) -> None:
    """Stop the server after its requests. If it stops already, exit at once."""
    if server.is_stopping:
        os._exit(1)
    server.stop()


def _reload(server: ThreadedHTTPServer, options: argparse.Namespace, key_source: str) -> None:
    """Read the settings, the tokens, the certificate and the file of the store's key again."""

    def read_settings() -> None:
        if key_source.startswith("@"):
            options.swiftKey = read_secret("--swiftKey", key_source)
        secret_files = server.options.secret_files
        server_options = ServerOptions.from_args(vars(options), secret_files=secret_files)
        before = server.handler.settings
        server.handler.reload()
        names = server.options.differences(server_options)
        names += _changed_address(before, server.handler.settings)
        if names:
            log.warning("these settings have changed, and apply after a restart only: %s", ", ".join(names))

    server.reload(read_settings)
    log.info("serves %s", _store_name(server.handler.settings))
    _warn_of_readable_files(server)


def _changed_address(before: Settings, after: Settings) -> list[str]:
    """Return the settings of the address that differ between *before* and *after*."""
    pairs = {
        "this.ipSelf": (before.ip_self, after.ip_self),
        "this.portSelf": (before.port_self, after.port_self),
    }
    return [name for name, (old, new) in pairs.items() if old != new]


def _announce(server: ThreadedHTTPServer, settings: Settings) -> None:
    if settings.verbosity > 0:
        console.print_line(f"{__version__} serves {_store_name(settings)} at {server.url}", "INFO")
    if server.router.access.is_open:
        console.print_line(
            "every client that can reach this address may read and replace all objects (--allowAnonymous)",
            "WARNING",
        )
    _warn_of_readable_files(server)


def _warn_of_readable_files(server: ThreadedHTTPServer) -> None:
    private = server.options.private_files()
    paths = {flag: private[flag] for flag in _SECRET_FILES if private.get(flag)}
    configuration = private.get("--configFileLoad", "")
    if configuration and _contains_any(server.handler.settings.secrets(), configuration):
        paths["--configFileLoad"] = configuration
    for flag, path in paths.items():
        if _is_world_readable(path):
            console.print_line(
                f"any user of this host can read {flag} {path!r}: run  chmod o-r {shlex.quote(path)}",
                "WARNING",
            )


def _is_world_readable(path: str) -> bool:
    try:
        return bool(os.stat(path).st_mode & stat.S_IROTH)
    except OSError:  # deleted since the server read it
        return False


def _contains_any(secrets: Set[str], path: str) -> bool:
    try:
        text = decoded(read_file(path))
    except (OSError, ValueError):  # replaced since the server read it
        return False
    return any(secret in text for secret in secrets)


def _store_name(settings: Settings) -> str:
    if settings.type == "swift":
        url = without_password(settings.swift.auth_url)
        return f"the container {settings.swift.container_name!r} of {url}"
    if settings.type != "filesystem":
        return "its memory"
    base = settings.filesystem.store_base
    return base if os.path.isdir(base) else f"{base} (which the first upload creates)"
