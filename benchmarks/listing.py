"""How many listings of a folder a second the server gives to several clients at once."""

from __future__ import annotations

import contextlib
from functools import partial

from benchmarks import listing_sdk
from benchmarks.bench import Bench
from benchmarks.peers import SWIFTCLIENT, swift
from benchmarks.rates import OURS, SECONDS, compare, per_second, rate, request_of
from benchmarks.store import CONTAINER
from benchmarks.table import Row
from benchmarks.trees import Tree

FILES = 100
CLIENTS = 8
LOCATION = "listing"
LAST = f"{LOCATION}/{FILES - 1:03}.dcm"
MESSAGE = request_of({"action": "ls", "meta": {"path": LOCATION}})
SDK = f"python-swiftclient {SWIFTCLIENT}"
"""Bare: a thread for each client, with a connection that is kept, and one token."""

STORE = "the store itself"
"""Asked for the same rows by a client that does nothing else: nobody in front of it can be faster."""

LEAST = 8.0
"""Times the listings of the old version, which logs in for each."""
LEAST_OF_SDK = 0.85


def measure(bench: Bench) -> list[Row]:
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(bench.place("listed"))
        tree = Tree.written(directory, [f"{number:03}.dcm" for number in range(FILES)], 1)
        stack.enter_context(tree.stored(bench.store, LOCATION))
        old, new = (stack.enter_context(bench.serving(version)) for version in bench.versions)
        each = {
            OURS: partial(rate, bench, new.port, CLIENTS, MESSAGE),
            bench.old.name: partial(rate, bench, old.port, CLIENTS, MESSAGE),
            SDK: partial(_rate_of_sdk, bench),
            STORE: partial(rate, bench, bench.store.port, CLIENTS, _request_of_store(bench), LAST),
        }
        bounds = {bench.old.name: LEAST, SDK: LEAST_OF_SDK, STORE: None}
        return compare(bench, f"HTTP ls of {FILES} objects, {CLIENTS} clients", each, bounds)


def _rate_of_sdk(bench: Bench) -> float:
    python = str(swift().install(bench.cache)[0]).replace("/bin/swift", "/bin/python")
    store = bench.store
    url = f"http://127.0.0.1:{store.port}{store.path.rpartition('/')[0]}"
    what = (url, store.token, CONTAINER, LOCATION, str(FILES))
    run = bench.run(python, listing_sdk.__file__, *what, str(CLIENTS), str(SECONDS))
    if run.status:
        raise RuntimeError(run.stderr[-1000:])
    return per_second(run.stdout)


def _request_of_store(bench: Bench) -> str:
    line = f"GET {bench.store.path}?format=json&prefix={LOCATION} HTTP/1.1"
    return "\r\n".join((line, "Host: 127.0.0.1", f"X-Auth-Token: {bench.store.token}", "", ""))
