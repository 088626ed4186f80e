"""The turns of pushing a tree to a new place, and of pulling one into a new directory."""

from __future__ import annotations

import re
from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.contest import Permit, Sample, take
from benchmarks.peers import Peer, Task
from benchmarks.store import Site
from benchmarks.trees import Tree


def pushing(bench: Bench, site: Site, tree: Tree) -> Permit:
    """Push *tree* to *site*, which is the store of *bench* or a way to it."""

    def permit(peer: Peer, number: int) -> Sample:
        location = f"pushed-{number}-{slug(peer)}"
        sample = take(bench, peer, site, peer.push(Task(site, location, tree.directory, tree.names)))
        checked(peer, sample, lambda: tree.check_pushed(bench.store, location))
        tree.dropped(bench.store, location)
        return sample

    return permit


def pulling(bench: Bench, site: Site, tree: Tree, location: str) -> Permit:
    """Pull from *site* what is the same as *tree*. All pull the same objects."""

    def permit(peer: Peer, number: int) -> Sample:
        with bench.place("pulled") as target:
            sample = take(bench, peer, site, peer.pull(Task(site, location, target, tree.names)))
            checked(peer, sample, lambda: tree.check_pulled(target))
        return sample

    return permit


def checked(peer: Peer, sample: Sample, check: Callable[[], None]) -> None:
    """Raise RuntimeError, with what *peer* had to say, if *check* does: what was not done has taken no time."""
    try:
        check()
    except RuntimeError as e:
        said = (sample.run.stderr or sample.run.stdout)[-2000:]
        raise RuntimeError(f"{peer.name}: {e}. It said: {said}") from e


def slug(peer: Peer) -> str:
    """Return a name for what is of *peer*, in the store and on the disk."""
    return re.sub(r"\W+", "-", peer.name)
