"""Measure the time, the CPU time of the client and the logins for a push and a pull of a series of files.

With several requests at a time, the store determines the time: no client can be faster than the CPU time of a store
that is one process.
"""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.measurement import Measurement
from benchmarks.moving import pulling, pushing
from benchmarks.peers import CURL_8, CURL_DEFAULT, OLD, RCLONE_8, RCLONE_DEFAULT, SWIFT
from benchmarks.table import Row
from benchmarks.trees import Tree, series

FILES = 1000
SIZE = 128 * 1024
LOCATION = "series"

PULL = {OLD: 0.50, SWIFT: 0.80, RCLONE_8: 0.65, CURL_8: 1.25}
PUSH = {OLD: 0.55, SWIFT: 0.75, RCLONE_DEFAULT: 1.0, CURL_DEFAULT: 1.15}
CLIENT_CPU = {OLD: 0.9, SWIFT: 0.7}


def measure(bench: Bench) -> list[Row]:
    work = f"{FILES} x {SIZE // 1024} KiB"
    with bench.temporary_path("series") as directory:
        tree = Tree.create(directory, series(FILES), SIZE)
        with tree.stored(bench.store, LOCATION):
            measure_peer = pulling(bench, bench.store, tree, LOCATION)
            pull = Measurement.run(bench, f"pull {work}", PULL, measure_peer)
        push = Measurement.run(bench, f"push {work}", PUSH, pushing(bench, bench.store, tree))
    rows = []
    for measurement, bounds in ((pull, PULL), (push, PUSH)):
        rows += [
            *measurement.wall(bounds),
            *measurement.client_cpu(CLIENT_CPU, FILES),
            measurement.logins(OLD, 1),
        ]
    return rows
