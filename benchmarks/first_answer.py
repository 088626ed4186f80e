"""Measure the time from the start of a server's process to its first answer."""

from __future__ import annotations

import socket
import time

from benchmarks.bench import START_SECONDS, Bench, ended, free_port
from benchmarks.rates import request_of
from benchmarks.table import Row, median, spread
from benchmarks.versions import Version

# The bound in seconds.
MOST = 0.35
TIMES = 10
REQUEST = request_of({"action": "hello", "meta": {"askAbout": "timestamp"}}).encode()


def measure(bench: Bench) -> list[Row]:
    times: dict[str, list[float]] = {version.name: [] for version in bench.versions}
    for _, version in bench.turns(bench.versions, TIMES):
        times[version.name].append(_seconds(bench, version))
    old, new = times[bench.old.name], times[bench.new.name]
    shown = (spread(old, "s", 2), spread(new, "s", 2), f"{median(new) / median(old):.2f}")
    return [
        Row(
            "server, start to first answer",
            bench.old.name,
            *shown,
            f"<= {MOST} s",
            median(new) <= MOST,
        )
    ]


def _seconds(bench: Bench, version: Version) -> float:
    port = free_port()
    started = time.perf_counter()
    with ended(bench.start(*bench.server_command(version, port))):
        while not _answers(port):
            if time.perf_counter() - started > START_SECONDS:
                raise RuntimeError(f"{version.name} did not start")
            time.sleep(0.001)
        return time.perf_counter() - started


def _answers(port: int) -> bool:
    """Send a message, and return whether a server has answered it."""
    try:
        connection = socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS)
    except ConnectionRefusedError:
        return False
    with connection:
        connection.sendall(REQUEST)
        answer = b""
        while b'"status": true' not in answer:
            data = connection.recv(65536)
            if not data:
                raise RuntimeError(f"the answer is {answer!r}")
            answer += data
    return True
