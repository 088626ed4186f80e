"""A real OpenStack Swift in one process, for trying things out and for tests.

``python -m pfstorage.devswift`` runs Swift's own proxy, account, container and object servers on
the loopback interface: no memcached, no root, no ``/etc/swift``, nothing to configure. It needs
``pip install 'pfstorage[devswift]'``. Importing this module imports neither Swift nor eventlet;
only the running server does.

It keeps one replica on one device, under the storage policies ``gold`` (the default) and
``silver``. None of Swift's background daemons run: an expired object answers 404 but stays in
listings, and an account's totals stay at zero. What Swift has to complain about is in
``swift.log`` among its files. Its user and key are public: it is no place for real patients.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HOST = "127.0.0.1"
USER = "chris:chris1234"
KEY = "testing"

START_SECONDS = 60.0
STOP_SECONDS = 10.0

KINDS = ("account", "container", "object", "proxy")
RINGS = ("account", "container", "object", "object-1")

# Where an object lies on the device follows from these three: to change one is to lose the
# objects of every directory that was written before.
PART_POWER = 6
DEVICE = "device"
SWIFT_CONF = """\
[swift-hash]
swift_hash_path_prefix = pfstorage
swift_hash_path_suffix = devswift

[storage-policy:0]
name = gold
default = yes

[storage-policy:1]
name = silver
"""

# The order of Swift's etc/proxy-server.conf-sample, with s3api right before the auth middleware,
# as s3api's documentation asks. proxy-logging is left out: its log would go nowhere.
PIPELINE = (
    "request_log catch_errors gatekeeper healthcheck cache listing_formats bulk tempurl s3api "
    "tempauth copy container_quotas slo dlo versioned_writes symlink"
)
FILTERS = {
    "request_log": "paste.filter_app_factory = pfstorage.devswift:with_request_log",
    "cache": "paste.filter_app_factory = pfstorage.devswift:with_cache",
    "tempauth": f"use = egg:swift#tempauth\nuser_{USER.replace(':', '_')} = {KEY} .admin",
    "versioned_writes": (
        "use = egg:swift#versioned_writes\nallow_versioned_writes = true\nallow_object_versioning = true"
    ),
}

# For all four servers. When a busy server answers late, a cluster turns to another replica or
# leaves a listing's update to a daemon. Here is neither, so wait for it, and never shun the only
# device (error_suppression). Nor refuse a PUT because the developer's disk is 99% full.
SETTINGS = {
    "account_autocreate": "true",
    "mount_check": "false",
    "conn_timeout": "60",
    "node_timeout": "60",
    "container_update_timeout": "60",
    "error_suppression_interval": "0",
    "fallocate_reserve": "0",
    "log_requests": "false",
    "log_level": "ERROR",
    "log_custom_handlers": "pfstorage.devswift.log_to_file",
    "log_udp_host": HOST,  # or Swift looks for /dev/log; log_to_file sees that nothing is sent
}


class DevSwiftError(RuntimeError):
    """The development server can't start; the message is one line for its user."""


# --- For tests and documents: the server as a child process


@dataclass(frozen=True)
class DevSwift:
    """A development server that runs as the child *process*, its files in *directory*."""

    port: int
    directory: Path
    process: subprocess.Popen[str]
    user: str = USER
    key: str = KEY

    @property
    def auth_url(self) -> str:
        """Where to log in (TempAuth, v1)."""
        return f"http://{HOST}:{self.port}/auth/v1.0"

    @property
    def pid(self) -> int:
        return self.process.pid


@contextlib.contextmanager
def running(
    port: int = 0, directory: str | Path | None = None, log: str | Path | None = None
) -> Iterator[DevSwift]:
    """Run a development server for the length of a ``with`` block.

    The arguments are those of the command; port 0 is any free one. The server answers when the
    block begins and is gone when it ends. Raises `DevSwiftError`, with what the server had to
    say, if it does not start.
    """
    options = {"--port": port, "--dir": directory, "--log": log}
    arguments = [f"{name}={value}" for name, value in options.items() if value is not None]
    with tempfile.TemporaryFile("w+") as errors, _spawn(arguments, errors) as process:
        try:
            yield _wait_until_up(process, errors)
        finally:
            _stop(process)


def _spawn(arguments: list[str], errors: IO[str]) -> subprocess.Popen[str]:
    package_home = str(Path(__file__).resolve().parent.parent)  # the child runs this very package
    path = os.pathsep.join(filter(None, [package_home, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "pfstorage.devswift", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def _wait_until_up(process: subprocess.Popen[str], errors: IO[str]) -> DevSwift:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        answered = selector.select(START_SECONDS)
    line = process.stdout.readline() if answered else ""
    match = re.search(rf"http://{HOST}:(\d+)/.* files in (.*)", line)
    if match is None:
        errors.seek(0)
        said = errors.read().strip() or f"no answer within {START_SECONDS:.0f} s"
        raise DevSwiftError(f"the development server did not start: {said}")
    return DevSwift(int(match[1]), Path(match[2]), process)


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


# --- What Swift's configuration names


class Cache:
    """What Swift asks of memcached (`swift.common.memcached.MemcacheRing`), from a dict.

    Values go through JSON, as they do there: nobody shares a mutable value with the cache.
    *clock* gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._items: dict[str, tuple[str, float]] = {}

    def get(self, key: str, raise_on_error: bool = False) -> Any:
        """Return the value of *key*, or None if there is none or its time is over."""
        text, expires = self._items.get(key, ("null", float("inf")))
        if expires <= self._clock():
            self.delete(key)
            return None
        return json.loads(text)

    def set(self, key: str, value: Any, serialize: bool = True, time: float = 0, **_: object) -> None:
        """Keep *value* for *time* seconds; 0 is for ever, as in memcached."""
        self._items[key] = (json.dumps(value), self._clock() + time if time else float("inf"))

    def incr(self, key: str, delta: int = 1, time: float = 0) -> int:
        """Add *delta* to a number, which never falls below 0; *time* is for a key this creates."""
        if self.get(key) is None:
            self.set(key, 0, time=time)
        text, expires = self._items[key]
        value = max(0, int(json.loads(text)) + delta)
        self._items[key] = (json.dumps(value), expires)
        return value

    def delete(self, key: str, server_key: str | None = None) -> None:
        self._items.pop(key, None)


def with_cache(app: WSGIApplication, global_conf: dict[str, str], **_: str) -> WSGIApplication:
    """Stand in for Swift's memcache middleware (a ``paste.filter_app_factory``)."""
    cache = Cache()

    def cached(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["swift.cache"] = cache
        return app(environ, start_response)

    return cached


def with_request_log(app: WSGIApplication, global_conf: dict[str, str], **_: str) -> WSGIApplication:
    """Append ``METHOD path?query status`` to a file for each request (a ``paste.filter_app_factory``).

    The line is written before the first byte of the answer is sent: whoever has an answer finds
    its line. (eventlet's own log comes after the last byte.)
    """
    log = Path(global_conf["request_log"])

    def logged(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        query = f"?{environ['QUERY_STRING']}" if environ.get("QUERY_STRING") else ""
        request = f"{environ['REQUEST_METHOD']} {environ['RAW_PATH_INFO']}{query}"

        def start(status: str, *rest: Any) -> Any:
            with log.open("a", encoding="utf-8") as lines:
                lines.write(f"{request} {status.split(maxsplit=1)[0]}\n")
            return start_response(status, *rest)

        return app(environ, start)

    return logged


def log_to_file(conf: dict[str, str], *rest: Any) -> None:
    """Let one of Swift's loggers write to ``swift.log`` alone (for ``log_custom_handlers``).

    Swift calls it with ``(conf, name, log_to_console, log_route, fmt, logger, adapted_logger)``.
    """
    logger: logging.Logger = rest[-2]
    handler = logging.FileHandler(Path(conf["swift_dir"], "swift.log"), encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(server)s: %(message)s"))
    logger.handlers[:] = [handler]


# --- The server


def _import_swift() -> None:
    """Import Swift and make this process's sockets and threads green, as Swift's servers do.

    eventlet comes by way of Swift, which silences eventlet's warning that it is deprecated.
    """
    from swift.common import utils
    from swift.common.concurrency import debug, hubs

    utils.monkey_patch()
    hubs.use_hub(utils.get_hub())
    debug.hub_exceptions(False)


@contextlib.contextmanager
def _stop_signals() -> Iterator[int]:
    """Give a file descriptor that becomes readable at SIGINT or SIGTERM.

    The main green thread waits for it. An exception from a signal handler would instead strike
    whichever green thread happens to run.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)


@contextlib.contextmanager
def _home(directory: str | None) -> Iterator[Path]:
    """Give the directory of the server's files, for this process alone; None is a temporary one."""
    import fcntl  # not at the top: this module can be imported where there is none

    with contextlib.ExitStack() as stack:
        if directory is None:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="devswift-"))
        home = Path(directory).resolve()
        (home / "devices" / DEVICE).mkdir(parents=True, exist_ok=True)
        lock = stack.enter_context((home / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DevSwiftError(f"another development server uses {home}") from error
        _check_xattrs(home)
        yield home


def _check_xattrs(home: Path) -> None:
    """Swift keeps an object's metadata in extended attributes of the object's file."""
    import xattr

    probe = home / "xattr-probe"
    probe.touch()
    try:
        xattr.setxattr(str(probe), "user.pfstorage", b"probe")
    except OSError as error:
        raise DevSwiftError(
            f"Swift needs user xattrs, and the file system of {home} has none ({error.strerror}); "
            "give --dir a directory on ext4, XFS or Btrfs"
        ) from error
    finally:
        probe.unlink()


def _listen(port: int) -> socket.socket:
    """Listen on the loopback interface alone.

    Not with `eventlet.listen`: its SO_REUSEPORT lets two servers share one port. TCP_NODELAY
    goes on to the connections; without it, some GETs of more than 64 KiB take 40 ms longer.
    """
    try:
        listener = socket.create_server((HOST, port), backlog=1024)
    except (OSError, OverflowError) as error:
        raise DevSwiftError(f"cannot listen on {HOST}:{port}: {error}") from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _paste_config(kind: str) -> str:
    """Return the configuration of one server, but for SETTINGS and the paths."""
    filters = PIPELINE.split() if kind == "proxy" else []
    lines = ["[pipeline:main]", f"pipeline = {' '.join([*filters, f'{kind}-server'])}"]
    lines += [f"[app:{kind}-server]", f"use = egg:swift#{kind}"]
    for name in filters:
        lines += [f"[filter:{name}]", FILTERS.get(name, f"use = egg:swift#{name}")]
    return "\n".join(lines)


def _write_rings(home: Path, ports: dict[str, int]) -> None:
    """Tell the proxy at which ports the servers behind it are, this time."""
    from swift.common.ring import RingBuilder

    for name in RINGS:
        port = ports[name.partition("-")[0]]
        address = {"ip": HOST, "port": port, "replication_ip": HOST, "replication_port": port}
        builder = RingBuilder(PART_POWER, replicas=1, min_part_hours=0)
        builder.add_dev({"region": 1, "zone": 1, "weight": 1, "device": DEVICE, **address})
        builder.rebalance()
        builder.get_ring().save(str(home / f"{name}.ring.gz"))


def _start(kind: str, listener: socket.socket, settings: dict[str, str]) -> None:
    """Serve *listener* in a green thread, in the way of `swift.common.wsgi.run_server`.

    That function itself replaces eventlet's hub: it can't run twice in one process.
    """
    from swift.common import concurrency, constraints, wsgi

    concurrency.spawn(
        concurrency.wsgi.server,
        listener,
        wsgi.loadapp(wsgi.ConfigString(_paste_config(kind)), {**settings, "log_name": kind}),
        wsgi.NullLogger(),
        protocol=wsgi.SwiftHttpProtocol,
        socket_timeout=60.0,
        capitalize_response_headers=False,  # S3 clients look for "ETag", not "Etag"
        url_length_limit=constraints.MAX_REQUEST_LINE,
    )


def _serve(home: Path, port: int, log: Path) -> int:
    """Start the four servers, their files in *home*; return the port of the proxy."""
    from swift.common.utils import set_swift_dir

    listeners = {kind: _listen(port if kind == "proxy" else 0) for kind in KINDS}
    ports: dict[str, int] = {kind: listener.getsockname()[1] for kind, listener in listeners.items()}
    (home / "swift.conf").write_text(SWIFT_CONF)
    set_swift_dir(str(home))  # before the imports below, which read swift.conf
    _write_rings(home, ports)
    devices = str(home / "devices")
    settings = {**SETTINGS, "swift_dir": str(home), "devices": devices, "request_log": str(log)}
    for kind, listener in listeners.items():
        _start(kind, listener, settings)
    return ports["proxy"]


def _run(options: argparse.Namespace) -> None:
    """Serve until a signal to stop, then leave nothing that still writes to the device."""
    with _stop_signals() as stopped:
        _import_swift()
        from swift.common.concurrency import hubs, tpool

        log = Path(options.log or os.devnull).resolve()
        log.open("a").close()
        with _home(options.dir) as home:
            port = _serve(home, options.port, log)
            where = f"http://{HOST}:{port}/auth/v1.0"
            print(f"devswift: up at {where}, user {USER}, key {KEY}, files in {home}", flush=True)
            hubs.trampoline(stopped, read=True)
            tpool.killall()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command until SIGINT or SIGTERM; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pfstorage.devswift",
        description=f"Run a real OpenStack Swift on {HOST} until it is interrupted.",
    )
    parser.add_argument("--port", type=int, default=8080, help="default %(default)s; 0 is any free one")
    parser.add_argument("--dir", help="keep the objects in DIR; default a temporary one")
    parser.add_argument("--log", metavar="FILE", help="append a line to FILE for each request")
    try:
        _run(parser.parse_args(argv))
    except ImportError as error:
        print(f"devswift: {error}; run: pip install 'pfstorage[devswift]'", file=sys.stderr)
        return 1
    except (DevSwiftError, OSError) as error:
        print(f"devswift: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
