"""Measure the memory that a server needs for one long ``ls`` over HTTP: ``python -m benchmarks.listing_memory``.

The server is a separate process, in front of a development Swift or of a directory of empty files. The result is its
peak resident size, minus the peak after an ``ls`` of a few rows.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import rows
from benchmarks.bench import Server, ended, free_port, wait_until_up
from benchmarks.measurement import MB
from benchmarks.store import running_store
from benchmarks.versions import clean_environment

ROWS = 300_000
# The bound of the additional memory, in megabytes (10^6 bytes).
MOST = 15
BLOCK = 65536


@contextlib.contextmanager
def _swift(directory: Path, count: int) -> Iterator[list[str]]:
    """Yield the flags of a server in front of a Swift with *count* rows."""
    with running_store(directory, 1) as store:
        subprocess.run(
            [sys.executable, "-m", "benchmarks.rows", str(store.directory), str(count)], check=True
        )
        yield ["--ipSwift", "127.0.0.1", "--portSwift", str(store.port)]


@contextlib.contextmanager
def _filesystem(directory: Path, count: int) -> Iterator[list[str]]:
    """Yield the flags of a server in front of *count* empty files, a thousand in each directory."""
    for number in range(count):
        path = directory / rows.key(number)
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.touch()
    yield ["--type", "filesystem", "--storeBase", str(directory)]


STORES = {"swift": _swift, "filesystem": _filesystem}


@contextlib.contextmanager
def serving(flags: list[str], directory: Path) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "pfstorage", *flags, "--server", "--forever", "--portSelf", str(port)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**clean_environment(directory), "PYTHONPATH": os.getcwd()},
        cwd=directory,
    )
    with ended(process):
        wait_until_up(process, port)
        yield Server(port, process.pid)


def _list(port: int, **meta: object) -> tuple[int, float]:
    """Request a listing. Return the number of its rows, and the seconds. Raise RuntimeError if it is incomplete."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    with contextlib.closing(connection):
        started = time.perf_counter()
        connection.request("POST", "/api/v1/cmd", json.dumps({"action": "ls", "meta": meta}))
        answer = connection.getresponse()
        count, last = 0, b""
        while block := answer.read(BLOCK):
            count += block.count(b'"name"') + (last[-5:] + block[:5]).count(b'"name"')
            last = block
    if not last.endswith(b"\n}"):
        raise RuntimeError(f"the listing is cut: {last[-200:]!r}")
    return count, time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.listing_memory", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of the listing (default %(default)s)")
    parser.add_argument("--store", choices=STORES, default="swift", help="default %(default)s")
    parser.add_argument(
        "--ret-spec", nargs="*", default=["name", "bytes"], help="the fields; none is the long form"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pfbench-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        flags = stack.enter_context(STORES[options.store](directory / "store", options.rows))
        server = stack.enter_context(serving(flags, directory))
        for _ in range(3):
            _list(server.port, limit=100, retSpec=options.ret_spec)
        base = server.peak_bytes
        count, seconds = _list(server.port, retSpec=options.ret_spec)
        over = (server.peak_bytes - base) / MB
    print(f"{count} rows in {seconds:.1f} s: {base / MB:.1f} MB and {over:.1f} MB more (at most {MOST} MB)")
    return 0 if over <= MOST and count >= options.rows else 1


if __name__ == "__main__":
    sys.exit(main())
