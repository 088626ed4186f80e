"""The measured work of peers: push a tree to a new location, or pull a tree into a new directory."""

from __future__ import annotations

import re
from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.measurement import MeasurePeer, Sample, take
from benchmarks.peers import Peer, Task
from benchmarks.store import Site
from benchmarks.trees import Tree


def pushing(bench: Bench, site: Site, tree: Tree) -> MeasurePeer:
    """Return a function that pushes *tree* to *site*: the store of *bench*, or a proxy in front of it."""

    def measure_peer(peer: Peer, number: int) -> Sample:
        location = f"pushed-{number}-{slug(peer)}"
        sample = take(bench, peer, site, peer.push(Task(site, location, tree.directory, tree.names)))
        checked(peer, sample, lambda: tree.check_pushed(bench.store, location))
        tree.delete_if_large(bench.store, location)
        return sample

    return measure_peer


def pulling(bench: Bench, site: Site, tree: Tree, location: str) -> MeasurePeer:
    """Return a function that pulls the objects at *location* of *site*, which have the content of *tree*."""

    def measure_peer(peer: Peer, number: int) -> Sample:
        with bench.temporary_path("pulled") as target:
            sample = take(bench, peer, site, peer.pull(Task(site, location, target, tree.names)))
            checked(peer, sample, lambda: tree.check_pulled(target))
        return sample

    return measure_peer


def checked(peer: Peer, sample: Sample, check: Callable[[], None]) -> None:
    """Raise the RuntimeError of *check* with the output of *peer*: an incomplete transfer has no valid time."""
    try:
        check()
    except RuntimeError as e:
        output = (sample.run.stderr or sample.run.stdout)[-2000:]
        raise RuntimeError(f"{peer.name}: {e}. Its output: {output}") from e


def slug(peer: Peer) -> str:
    """Return the name of *peer* in locations of the store and in paths."""
    return re.sub(r"\W+", "-", peer.name)
