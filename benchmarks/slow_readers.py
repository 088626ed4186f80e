"""Measure the memory of a server whose clients do not read long replies: ``python -m benchmarks.slow_readers``.

The server is a separate process, in front of a directory of empty files or of a development Swift. The result is its
peak resident size, minus the peak after a few short answers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Server
from benchmarks.listing_memory import STORES, serving

ROWS = 150_000
MIB = 1024**2
# The bound of the additional memory, in MiB.
MOST = 60
MEGABYTE = 10**6
ALL = ["name", "bytes", "hash", "last_modified", "content_type"]


PAGE = b"GET /api/v1/objects?limit=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n"


def _message(action: str, **meta: object) -> bytes:
    """Return the HTTP request with a message."""
    text = json.dumps({"action": action, "meta": meta}, ensure_ascii=False, separators=(",", ":")).encode()
    return b"POST /api/v1/cmd HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(text) + text


def _echo(value: object) -> bytes:
    return _message("hello", askAbout="echoBack", echoBack=value)


def _deep(value: object) -> object:
    for _ in range(28):
        value = [value]
    return value


# By kind: the number of clients, and their request.
KINDS: dict[str, tuple[int, bytes]] = {
    "echoes of nested lists": (24, _echo([_deep([])] * 16_000)),
    "echoes of fewer nested lists": (24, _echo([_deep([])] * 3000)),
    "echoes of one long text": (24, _echo("x" * MEGABYTE)),
    "echoes of a text that JSON escapes": (24, _echo("é" * (MEGABYTE // 2))),
    "echoes of numbers in a deep list": (24, _echo(_deep([1] * 90_000))),
    "echoes of objects": (24, _echo([{"a": 0}] * 24_000)),
    "pages of 10,000 objects": (24, PAGE),
    "listings": (12, _message("ls", retSpec=ALL)),
    "listings in the long form": (12, _message("ls", retSpec=[])),
    "listings of verified objects": (12, _message("ls", retSpec=["name"], sure=True)),
}


def _ask(port: int, request: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), 60) as sock:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(MEGABYTE):
            continue


@contextlib.contextmanager
def _unread(server: Server, count: int, request: bytes) -> Iterator[None]:
    """Let *count* clients send *request* at once. They do not read the answers during the ``with`` block."""
    with contextlib.ExitStack() as stack:
        socks = [socket.socket() for _ in range(count)]
        for sock in socks:
            stack.enter_context(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.port))
        for sock in socks:
            sock.sendall(request)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slow_readers", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of a listing (default %(default)s)")
    parser.add_argument("--store", choices=STORES, default="swift", help="default %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="how long nobody reads (default %(default)s)"
    )
    parser.add_argument("--kind", choices=KINDS, action="append", help="only these; may be given again")
    options = parser.parse_args()
    is_within_bound = True
    with tempfile.TemporaryDirectory(prefix="pfbench-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        flags = stack.enter_context(STORES[options.store](directory / "store", options.rows))
        for kind in options.kind or KINDS:
            with serving(flags, directory) as server:
                for _ in range(3):
                    _ask(server.port, _message("ls", limit=100))
                base = server.peak_bytes
                with _unread(server, *KINDS[kind]):
                    time.sleep(options.seconds)
                    over = (server.peak_bytes - base) / MIB
            is_within_bound = is_within_bound and over <= MOST
            print(
                f"{KINDS[kind][0]} unread {kind}: {over:.0f} MiB over {base / MIB:.0f} (at most {MOST})",
                flush=True,
            )
    return 0 if is_within_bound else 1


if __name__ == "__main__":
    sys.exit(main())
