"""Measure the time for a push and a pull of a series of files if the store is far away."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.distance import at_distance
from benchmarks.measurement import Measurement
from benchmarks.moving import pulling, pushing
from benchmarks.peers import OLD, RCLONE_DEFAULT, SWIFT
from benchmarks.table import Row
from benchmarks.trees import Tree, series

FILES = 500
SIZE = 128 * 1024
# The delay in each direction.
SECONDS = 0.025

LOCATION = "far"

BOUNDS = {OLD: 0.15, SWIFT: 0.8, RCLONE_DEFAULT: 0.8}


def measure(bench: Bench) -> list[Row]:
    work = f"{FILES} x {SIZE // 1024} KiB, {SECONDS * 1e3:.0f} ms away"
    with bench.temporary_path("series") as directory, at_distance(bench.store, SECONDS) as far:
        tree = Tree.create(directory, series(FILES), SIZE)
        with tree.stored(bench.store, LOCATION):
            pull = Measurement.run(bench, f"pull {work}", BOUNDS, pulling(bench, far, tree, LOCATION))
        push = Measurement.run(bench, f"push {work}", BOUNDS, pushing(bench, far, tree))
    return [row for measurement in (pull, push) for row in measurement.wall(BOUNDS)]
