"""Run Swift's four servers in this process until a signal."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pfstorage.devswift import HOST, KEY, USER, DevSwiftError
from pfstorage.devswift.middleware import SETTINGS, paste_config
from pfstorage.logs.output import Parser, print_text, standard_streams

SERVER_KINDS = ("account", "container", "object", "proxy")
RINGS = ("account", "container", "object", "object-1")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

# The place of an object on the device depends on these three values: after a change of one, the server does not find
# the objects of existing directories.
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


def _import_swift() -> None:
    """Import Swift and make the sockets and threads of this process green, as Swift's servers do.

    Swift imports eventlet and silences its deprecation warning.
    """
    from swift.common import utils
    from swift.common.concurrency import debug, hubs

    utils.monkey_patch()
    hubs.use_hub(utils.get_hub())
    debug.hub_exceptions(False)


@contextlib.contextmanager
def _stop_signals() -> Iterator[int]:
    """Yield a file descriptor that becomes readable at a signal to stop. A disabled SIGHUP (nohup) stays disabled.

    The main green thread waits for the descriptor. An exception from a signal handler would end the green thread that
    happens to run.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(-1)


def _stop_at_eof() -> None:
    """Stop the server when the process at the other end of stdin has ended."""
    from swift.common.concurrency import hubs

    hubs.trampoline(
        sys.stdin.fileno(), read=True
    )  # the parent sends nothing, so stdin is readable at its end only
    signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def _home(directory: str | None) -> Iterator[Path]:
    """Yield the directory of the server's files, locked for this process. None creates a temporary one."""
    import fcntl  # here, because this module can also be imported on systems without it

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
    """Raise `DevSwiftError` without extended attributes, where Swift keeps the metadata of an object."""
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
    """Listen on the loopback interface only.

    `eventlet.listen` would set SO_REUSEPORT, with which two servers could share one port. Connections inherit
    TCP_NODELAY; without it, some GETs of more than 64 KiB take 40 ms longer.
    """
    try:
        listener = socket.create_server((HOST, port), backlog=1024)
    except (OSError, OverflowError) as error:
        raise DevSwiftError(f"cannot listen on {HOST}:{port}: {error}") from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _write_rings(home: Path, ports: dict[str, int]) -> None:
    """Write the rings, from which the proxy knows the ports of the other servers."""
    from swift.common.ring import RingBuilder

    for name in RINGS:
        port = ports[name.partition("-")[0]]
        address = {"ip": HOST, "port": port, "replication_ip": HOST, "replication_port": port}
        builder = RingBuilder(PART_POWER, replicas=1, min_part_hours=0)
        builder.add_dev({"region": 1, "zone": 1, "weight": 1, "device": DEVICE, **address})
        builder.rebalance()
        builder.get_ring().save(str(home / f"{name}.ring.gz"))


def _start(kind: str, listener: socket.socket, settings: dict[str, str]) -> None:
    """Serve *listener* in a green thread, as `swift.common.wsgi.run_server` does.

    That function itself can't run twice in one process, because it replaces eventlet's hub.
    """
    from swift.common import concurrency, constraints, wsgi

    concurrency.spawn(
        concurrency.wsgi.server,
        listener,
        wsgi.loadapp(wsgi.ConfigString(paste_config(kind)), {**settings, "log_name": kind}),
        wsgi.NullLogger(),
        protocol=wsgi.SwiftHttpProtocol,
        socket_timeout=60.0,
        capitalize_response_headers=False,  # S3 clients look for "ETag", not "Etag"
        url_length_limit=constraints.MAX_REQUEST_LINE,
    )


@contextlib.contextmanager
def _serving(home: Path, port: int, log: Path, processes: int) -> Iterator[int]:
    """Run the four servers, with their files in *home*. Yield the port of the proxy."""
    from swift.common.utils import set_swift_dir

    listeners = {kind: _listen(port if kind == "proxy" else 0) for kind in SERVER_KINDS}
    ports: dict[str, int] = {kind: listener.getsockname()[1] for kind, listener in listeners.items()}
    (home / "swift.conf").write_text(SWIFT_CONF)
    set_swift_dir(str(home))  # before the imports below, which read swift.conf
    _write_rings(home, ports)
    devices = str(home / "devices")
    settings = {**SETTINGS, "swift_dir": str(home), "devices": devices, "request_log": str(log)}
    with contextlib.ExitStack() as stack:
        if processes > 1:
            behind = {kind: listeners.pop(kind) for kind in SERVER_KINDS if kind != "proxy"}
            stack.enter_context(_forked(behind, settings))
        for kind, listener in listeners.items():
            _start(kind, listener, settings)
        yield ports["proxy"]


@contextlib.contextmanager
def _forked(listeners: dict[str, socket.socket], settings: dict[str, str]) -> Iterator[None]:
    """Serve *listeners* in a child process, which ends with this one, even if this one is killed."""
    from swift.common.concurrency import hubs, tpool
    from swift.common.utils import get_hub

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        for number in STOP_SIGNALS:
            signal.signal(
                number, signal.SIG_IGN
            )  # a terminal signals both processes; the parent ends the child
        hubs.use_hub(get_hub())  # as Swift's own workers do: a hub does not survive a fork
        for kind, listener in listeners.items():
            _start(kind, listener, settings)
        hubs.trampoline(reader, read=True)  # the pipe is at its end when the parent has ended
        tpool.killall()
        os._exit(0)
    os.close(reader)
    for listener in listeners.values():
        listener.close()
    try:
        yield
    finally:
        os.close(writer)
        os.waitpid(child, 0)


def _run_server(options: argparse.Namespace) -> None:
    """Serve until a signal to stop, then end all threads that write to the device."""
    with _stop_signals() as stopped:
        _import_swift()
        from swift.common.concurrency import hubs, spawn, tpool

        log = Path(options.log or os.devnull).resolve()
        log.open("a").close()
        with _home(options.dir) as home, _serving(home, options.port, log, options.processes) as port:
            where = f"http://{HOST}:{port}/auth/v1.0"
            if not print_text(f"devswift: up at {where}, user {USER}, key {KEY}, files in {home}"):
                raise DevSwiftError("cannot print the address of the server to stdout; open stdout")
            if options.until_eof:
                spawn(_stop_at_eof)
            hubs.trampoline(stopped, read=True)
            tpool.killall()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command until a signal to stop, and return its exit status."""
    with standard_streams():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    parser = Parser(
        prog="python -m pfstorage.devswift",
        description=f"Run a real OpenStack Swift on {HOST} until it is interrupted.",
    )
    parser.add_argument("--port", type=int, default=8080, help="default %(default)s; 0 chooses a free one")
    parser.add_argument("--dir", help="keep the objects in DIR; default a temporary directory")
    parser.add_argument("--log", metavar="FILE", help="append a line to FILE for each request")
    parser.add_argument(
        "--processes",
        type=int,
        choices=(1, 2),
        default=1,
        help="2 runs the servers behind the proxy in a process of their own, for measurements",
    )
    parser.add_argument("--until-eof", action="store_true", help=argparse.SUPPRESS)  # for `running`
    try:
        _run_server(parser.parse_args(argv))
    except ImportError as error:
        print(f"devswift: {error}; run: pip install 'pfstorage[devswift]'", file=sys.stderr)
        return 1
    except (DevSwiftError, OSError) as error:
        print(f"devswift: {error}", file=sys.stderr)
        return 1
    return 0
