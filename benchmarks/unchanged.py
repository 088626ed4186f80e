"""Measure the time for a push and a pull of files that exist already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.measurement import Measurement, Sample, take
from benchmarks.moving import checked, slug
from benchmarks.peers import OLD, OURS, RCLONE_DEFAULT, Peer, Task
from benchmarks.table import Row
from benchmarks.transfers import FILES, SIZE
from benchmarks.trees import Tree, series

BOUNDS = {OLD: 0.08, RCLONE_DEFAULT: 0.35}


@dataclass(frozen=True)
class Copies:
    """The copies of *tree* of each peer: clients recognize an unchanged file in different ways."""

    bench: Bench
    tree: Tree
    directory_of_copies: Path

    def push(self, peer: Peer, number: int) -> Sample:
        task = Task(self.bench.store, slug(peer), self.tree.directory, self.tree.names)
        sample = take(self.bench, peer, task.site, peer.push(task))
        checked(peer, sample, lambda: self.tree.check_pushed(self.bench.store, slug(peer)))
        return sample

    def pull(self, peer: Peer, number: int) -> Sample:
        task = Task(self.bench.store, slug(peer), self.directory_of_copies / slug(peer), self.tree.names)
        sample = take(self.bench, peer, task.site, peer.pull(task))
        checked(peer, sample, lambda: self.tree.check_pulled(task.tree))
        return sample


def measure(bench: Bench) -> list[Row]:
    work = f"{FILES} x {SIZE // 1024} KiB again"
    with bench.temporary_path("series") as directory, bench.temporary_path("copies") as directory_of_copies:
        copies = Copies(bench, Tree.create(directory, series(FILES), SIZE), directory_of_copies)
        for peer in (OURS, *BOUNDS):  # the files that the measured transfers find unchanged
            copies.push(peer, 0)
            copies.pull(peer, 0)
        push = Measurement.run(bench, f"push {work}", BOUNDS, copies.push)
        pull = Measurement.run(bench, f"pull {work}", BOUNDS, copies.pull)
    return [row for measurement in (pull, push) for row in measurement.wall(BOUNDS)]
