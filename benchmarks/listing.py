"""Measure the listings of a folder per second that the server returns to several clients at once."""

from __future__ import annotations

import contextlib
from functools import partial
from urllib.parse import quote

from benchmarks import listing_sdk
from benchmarks.bench import Bench
from benchmarks.peers import SWIFTCLIENT, swift
from benchmarks.rates import OURS, SECONDS, compare, per_second, rate, request_of
from benchmarks.store import CONTAINER
from benchmarks.table import Row
from benchmarks.trees import Tree

FILES = 100
CLIENTS = 8
LOCATIONS = [f"listing {number}" for number in range(CLIENTS)]
LAST = f"/{FILES - 1:03}.dcm"
# The SDK alone: a thread and a kept connection for each client, and one token for all.
SDK = f"python-swiftclient {SWIFTCLIENT}"

# A client requests the same rows from the store. A server can be faster, because it shares one request among clients.
STORE = "the store itself"

# The smallest allowed ratio to the listings per second of the old version, which logs in for each.
LEAST = 8.0
LEAST_OF_SDK = 0.85


def measure(bench: Bench) -> list[Row]:
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(bench.temporary_path("listed"))
        tree = Tree.create(directory, [f"{number:03}.dcm" for number in range(FILES)], 1)
        for location in LOCATIONS:
            stack.enter_context(tree.stored(bench.store, location))
        old, new = (stack.enter_context(bench.serving(version)) for version in bench.versions)
        found = []
        for what, locations, least in (
            ("one folder", LOCATIONS[:1], LEAST),
            ("a folder each", LOCATIONS, None),
        ):
            message = "\0".join(request_of({"action": "ls", "meta": {"path": each}}) for each in locations)
            direct = "\0".join(_request_of_store(bench, each) for each in locations)
            each = {
                OURS: partial(rate, bench, new.port, CLIENTS, message),
                bench.old.name: partial(rate, bench, old.port, CLIENTS, message),
                SDK: partial(_rate_of_sdk, bench, locations),
                STORE: partial(rate, bench, bench.store.port, CLIENTS, direct, LAST),
            }
            bounds = {bench.old.name: least, SDK: LEAST_OF_SDK, STORE: None}
            work = f"HTTP ls of {FILES} objects, {CLIENTS} clients, {what}"
            found += compare(bench, work, each, bounds)
        return found


def _rate_of_sdk(bench: Bench, locations: list[str]) -> float:
    python = str(swift().install(bench.cache)[0]).replace("/bin/swift", "/bin/python")
    store = bench.store
    url = f"http://127.0.0.1:{store.port}{store.path.rpartition('/')[0]}"
    what = (url, store.token, CONTAINER, str(FILES), str(CLIENTS), str(SECONDS), *locations)
    run = bench.run(python, listing_sdk.__file__, *what)
    if run.status:
        raise RuntimeError(run.stderr[-1000:])
    return per_second(run.stdout)


def _request_of_store(bench: Bench, location: str) -> str:
    line = f"GET {bench.store.path}?format=json&prefix={quote(location)} HTTP/1.1"
    return "\r\n".join((line, "Host: 127.0.0.1", f"X-Auth-Token: {bench.store.token}", "", ""))
