"""How long a series of files takes, by the command line, both ways; with what CPU time, and logins.

Once several requests are under way at a time, it is the store that takes the time:
no client can be faster than the CPU time of a store that is one process.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Run, busy_seconds
from benchmarks.table import Row, compare
from benchmarks.versions import Version

FILES = 1000
SIZE = 128 * 1024
DISTURBING = 0.2
"""Of one processor: runs in which other processes took more are left out. If all are such, no bound is judged."""

MOST = {"objPull": 0.65, "objPut": 0.75}
"""Of the time that the old version takes."""


@dataclass(frozen=True)
class Transfer:
    """One run. *store_seconds* and *other_seconds* are the CPU time of the store and of others meanwhile.

    *logins* are those that the store saw.
    """

    run: Run
    store_seconds: float
    other_seconds: float
    logins: int

    @property
    def is_disturbed(self) -> bool:
        """Tell whether others took so much of the processors that the run tells little."""
        return self.other_seconds > DISTURBING * self.run.seconds


Results = dict[tuple[str, str], list[Transfer]]
"""By action and version."""


def measure(bench: Bench) -> list[Row]:
    results: Results = defaultdict(list)
    with bench.place("series") as source:
        _write_series(source)
        for number, version in bench.turns():
            _put_and_pull(bench, version, source, f"series-{version.name}-{number}", results)
    return [row for action in MOST for row in _rows(bench, action, results)]


def _put_and_pull(bench: Bench, version: Version, source: Path, location: str, results: Results) -> None:
    """Move the series to a new place in the store, and from there to a new directory."""

    def send(action: str, **meta: Any) -> None:
        logins, store, all_of_them = bench.store.logins(), bench.store.cpu_seconds(), busy_seconds()
        run = bench.send(version, action, **meta)
        store, all_of_them = bench.store.cpu_seconds() - store, busy_seconds() - all_of_them
        others = all_of_them - store - run.cpu_seconds
        results[action, version.name].append(Transfer(run, store, others, bench.store.logins() - logins))

    with bench.place("pulled") as target:
        send("objPut", putSpec=str(source), inLocation=location, mapLocationOver=str(source))
        send("objPull", path=location, fromLocation=location, mapLocationOver=str(target))
        keys = bench.store.keys(location)
        sizes = [path.stat().st_size for path in target.rglob("*") if path.is_file()]
        if len(keys) != FILES or sizes != [SIZE] * FILES:
            raise RuntimeError(f"{version.name} moved {len(keys)} files there, {len(sizes)} back")
    bench.store.delete(keys)


def _rows(bench: Bench, action: str, results: Results) -> list[Row]:
    old, new = results[action, bench.old.name], results[action, bench.new.name]
    logins = [max(each.logins for each in transfers) for transfers in (old, new)]
    calm = [[each for each in transfers if not each.is_disturbed] for transfers in (old, new)]
    if all(calm):
        old, new = calm
    counts = [f"{len(transfers)} of {bench.rounds}" for transfers in calm]

    def row(what: str, seconds: Callable[[Transfer], float], most: float | None = None) -> Row:
        return compare(what, [seconds(each) for each in old], [seconds(each) for each in new], "s", most)

    wall = row(f"{action} of {FILES} x {SIZE // 1024} KiB", lambda each: each.run.seconds, MOST[action])
    return [
        wall if all(calm) else replace(wall, bound=f"{wall.bound}, but disturbed", met=None),
        row("  CPU of the client", lambda each: each.run.cpu_seconds),
        row("  CPU of the store", lambda each: each.store_seconds),
        Row("  runs that others did not disturb", counts[0], counts[1]),
        Row("  logins", str(logins[0]), str(logins[1]), "", "1", logins[1] == 1),
    ]


def _write_series(directory: Path) -> None:
    for number in range(FILES):
        path = directory / f"study{number // 100}" / f"{number:04}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(SIZE))
