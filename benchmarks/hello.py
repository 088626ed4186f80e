"""Measure the requests per second that the server answers if they need no work."""

from __future__ import annotations

import contextlib
import http.client
import json
from functools import partial

from benchmarks import bare_server
from benchmarks.bench import Bench, Server, free_port
from benchmarks.rates import OURS, compare, rate, request_of
from benchmarks.table import Row

MESSAGE = {"action": "hello", "meta": {"askAbout": "timestamp"}}
# Python's own server, which answers with a constant text of the same size.
BARE = "http.server"

CLIENTS = (1, 32)
# By clients: the smallest allowed ratio to the requests per second of the old version.
LEAST = {1: 10.0, 32: 5.0}
LEAST_OF_BARE = 0.8


def measure(bench: Bench) -> list[Row]:
    with contextlib.ExitStack() as stack:
        old, new = (stack.enter_context(bench.serving(version)) for version in bench.versions)
        port = free_port()
        command = (bench.new.python, bare_server.__file__, str(port), str(_size(new.port)))
        bare = stack.enter_context(bench.listening(port, *command))
        servers = {OURS: new, bench.old.name: old, BARE: bare}
        return [row for clients in CLIENTS for row in _compared(bench, servers, clients)]


def _compared(bench: Bench, servers: dict[str, Server], clients: int) -> list[Row]:
    each = {
        name: partial(rate, bench, server.port, clients, request_of(MESSAGE))
        for name, server in servers.items()
    }
    bounds = {bench.old.name: LEAST[clients], BARE: LEAST_OF_BARE}
    return compare(bench, f"HTTP hello, {clients} client{'s' * (clients > 1)}", each, bounds)


def _size(port: int) -> int:
    """Return the number of bytes of the reply of this version."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/api/v1/cmd", json.dumps(MESSAGE))
        return len(connection.getresponse().read())
