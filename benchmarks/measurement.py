"""Measure one kind of work, which this version and its peers do in turns, and compare the results."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench, Run, busy_seconds
from benchmarks.peers import OURS, Call, NotInstalledError, Peer
from benchmarks.store import Site
from benchmarks.table import Row, median, spread

# The share of one processor above which the load of other processes excludes a run. Without runs, no bound is judged.
DISTURBING = 0.2

MB = 1_000_000

# By peer: the largest allowed ratio of the need of this version to the need of the peer.
Bounds = Mapping[Peer, float]


@dataclass(frozen=True)
class Sample:
    """One run, and the CPU time of the store and of other processes during the run.

    *logins* is the number of logins at the store during the run.
    """

    run: Run
    store_seconds: float
    other_seconds: float
    logins: int

    @property
    def is_disturbed(self) -> bool:
        """Whether other processes have used so much CPU time that the result is not reliable."""
        return self.other_seconds > DISTURBING * self.run.seconds


# Makes a peer do the work once. The second argument is the number of the round.
MeasurePeer = Callable[[Peer, int], Sample]


def take(bench: Bench, peer: Peer, site: Site, call: Call, stdout: Path | None = None) -> Sample:
    """Run *call* of *peer*, which sends requests to *site*."""
    command = (*peer.install(bench.cache), *call.arguments)
    logins, store, everyone = bench.store.logins(), site.cpu_seconds(), busy_seconds()
    run = bench.run(*command, cwd=call.cwd, stdin=call.stdin, stdout=stdout)
    store, everyone = site.cpu_seconds() - store, busy_seconds() - everyone
    return Sample(run, store, everyone - store - run.cpu_seconds, bench.store.logins() - logins)


@dataclass(frozen=True)
class Measurement:
    """The samples of all installed peers, from the same rounds."""

    work: str
    samples: Mapping[Peer, list[Sample]]
    ours: Peer = OURS

    @classmethod
    def run(
        cls, bench: Bench, work: str, peers: Iterable[Peer], measure_peer: MeasurePeer, ours: Peer = OURS
    ) -> Measurement:
        samples: dict[Peer, list[Sample]] = defaultdict(list)
        present = [peer for peer in (ours, *peers) if _is_installed(peer, bench.cache)]
        for number, peer in bench.turns(present):
            samples[peer].append(measure_peer(peer, number))
        return cls(work, samples, ours)

    def wall(self, bounds: Bounds) -> list[Row]:
        return self._compared(self.work, bounds, lambda sample: sample.run.seconds, "s")

    def client_cpu(self, bounds: Bounds, files: int) -> list[Row]:
        """Compare the user and system time of the whole process, per file of *files*."""
        what = f"{self.work}: client CPU a file"
        return self._compared(what, bounds, lambda sample: sample.run.cpu_seconds / files * 1e3, "ms")

    def logins(self, peer: Peer, most: int) -> Row:
        theirs, ours = (max(each.logins for each in self.samples[one]) for one in (peer, self.ours))
        return Row(f"{self.work}: logins", peer.name, str(theirs), str(ours), "", str(most), ours <= most)

    def peak(self, peer: Peer, most: float) -> Row:
        """Compare the peak memory. The bound for this version is *most* megabytes (10^6 bytes)."""
        theirs, ours = (max(each.run.peak_bytes for each in self.samples[one]) for one in (peer, self.ours))
        return peak_row(f"{self.work}: peak memory", peer.name, theirs, ours, most)

    def _compared(self, what: str, bounds: Bounds, of: Callable[[Sample], float], unit: str) -> list[Row]:
        return [self._row(what, peer, most, of, unit) for peer, most in bounds.items()]

    def _row(self, what: str, peer: Peer, most: float, of: Callable[[Sample], float], unit: str) -> Row:
        ours = self.samples[self.ours]
        if peer not in self.samples:
            return Row(what, peer.name, "not installed", _cell(ours, of, unit))
        theirs = self.samples[peer]
        ratio = median([of(each) for each in _calm(ours)]) / median([of(each) for each in _calm(theirs)])
        disturbed = any(all(each.is_disturbed for each in samples) for samples in (theirs, ours))
        bound = f"<= {most:.2f}" + (", but disturbed" if disturbed else "")
        cells = (_cell(theirs, of, unit), _cell(ours, of, unit))
        return Row(what, peer.name, *cells, f"{ratio:.3g}", bound, None if disturbed else ratio <= most)


def peak_row(work: str, peer: str, theirs: float, ours: float, most: float) -> Row:
    """Return the row of two peaks in bytes. The bound for *ours* is *most* megabytes (10^6 bytes)."""
    cells = (f"{theirs / MB:.0f} MB" if theirs else "", f"{ours / MB:.0f} MB")
    return Row(work, peer, *cells, "", f"<= {most:.0f} MB", ours <= most * MB)


def _calm(samples: list[Sample]) -> list[Sample]:
    return [each for each in samples if not each.is_disturbed] or samples


def _cell(samples: list[Sample], of: Callable[[Sample], float], unit: str) -> str:
    calm = _calm(samples)
    left_out = f", {len(calm)} of {len(samples)}" if len(calm) < len(samples) else ""
    return spread([of(each) for each in calm], unit, 2) + left_out


def _is_installed(peer: Peer, cache: Path) -> bool:
    try:
        peer.install(cache)
    except NotInstalledError as e:
        print(f"\n  left out: {e}", file=sys.stderr)
        return False
    return True
