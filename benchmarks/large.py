"""Measure the time and the memory for a push and a pull of one large object."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.measurement import Measurement
from benchmarks.moving import pulling, pushing
from benchmarks.peers import OLD, RCLONE_DEFAULT, SWIFT
from benchmarks.table import Row
from benchmarks.trees import Tree

SIZE = 2 * 1024**3
LOCATION = "large"

BOUNDS = {OLD: 0.8, SWIFT: 1.0, RCLONE_DEFAULT: 1.0}
# The bound of the memory, in megabytes (10^6 bytes).
MOST = 100


def measure(bench: Bench) -> list[Row]:
    work = f"{SIZE // 1024**3} GiB object"
    with bench.temporary_path("large") as directory:
        tree = Tree.create(directory, ["volume.dcm"], SIZE)
        with tree.stored(bench.store, LOCATION):
            measure_peer = pulling(bench, bench.store, tree, LOCATION)
            pull = Measurement.run(bench, f"pull {work}", BOUNDS, measure_peer)
        push = Measurement.run(bench, f"push {work}", BOUNDS, pushing(bench, bench.store, tree))
    return [row for each in (pull, push) for row in (*each.wall(BOUNDS), each.peak(OLD, MOST))]
