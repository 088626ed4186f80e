"""How long a series of files takes, by the command line, both ways; with what CPU time, and logins."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Run
from benchmarks.table import Row, compare
from benchmarks.versions import Version

FILES = 1000
SIZE = 128 * 1024
MOST = {"objPull": 0.65, "objPut": 0.75}
"""Of the time that the old version takes."""

Results = dict[tuple[str, str], list[tuple[Run, int]]]
"""By action and version: the runs, and how many logins the store saw during each."""


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
        before = bench.store.logins()
        run = bench.send(version, action, **meta)
        results[action, version.name].append((run, bench.store.logins() - before))

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
    what = f"{action} of {FILES} x {SIZE // 1024} KiB"
    logins = [max(count for _, count in runs) for runs in (old, new)]
    return [
        compare(what, [run.seconds for run, _ in old], [run.seconds for run, _ in new], "s", MOST[action]),
        compare(
            f"{what}, CPU of the client",
            [run.cpu_seconds for run, _ in old],
            [run.cpu_seconds for run, _ in new],
            "s",
        ),
        Row(f"{what}, logins", str(logins[0]), str(logins[1]), "", "1", logins[1] == 1),
    ]


def _write_series(directory: Path) -> None:
    for number in range(FILES):
        path = directory / f"study{number // 100}" / f"{number:04}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(SIZE))
