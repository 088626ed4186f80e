"""Measure the time and the memory for a listing of a million objects, and the memory for a plan of their pull."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import rows
from benchmarks.bench import Bench, Run
from benchmarks.measurement import Measurement, Sample, peak_row, take
from benchmarks.moving import checked
from benchmarks.peers import OLD, RCLONE_DEFAULT, SWIFT, Peer, Task
from benchmarks.store import Store, running_store
from benchmarks.table import Row
from benchmarks.versions import REPOSITORY, message

ROWS = 1_000_000
ENDING = b".dcm"
BLOCK = 1024**2

BOUNDS = {SWIFT: 0.75, RCLONE_DEFAULT: 0.75}
MOST = 150
# The bounds of the memory for a plan, by the form of the reply, in megabytes (10^6 bytes).
DRY_RUN_MOST = {"full": 300, "summary": 100}


def measure(bench: Bench) -> list[Row]:
    with _filled_store(bench) as store:
        return [*_listing(bench, store), *_dry_run(bench, store)]


@contextlib.contextmanager
def _filled_store(bench: Bench) -> Iterator[Store]:
    """Run a separate store: the rows would slow down the store of the other benchmarks."""
    with bench.temporary_path("rows") as directory, running_store(directory, bench.processes) as store:
        command = [sys.executable, "-m", "benchmarks.rows", str(store.directory), str(ROWS)]
        # a separate process, because Swift's modules take much memory
        subprocess.run(command, cwd=REPOSITORY, check=True)
        yield store


def _listing(bench: Bench, store: Store) -> list[Row]:
    def measure_peer(peer: Peer, number: int) -> Sample:
        with bench.temporary_path("listing") as directory:
            directory.mkdir()
            printed = directory / "stdout"
            call = peer.listing(Task(store, "", directory))
            sample = take(bench, peer, store, call, printed)
            checked(peer, sample, lambda: _check_listing(printed))
        return sample

    measurement = Measurement.run(bench, f"ls of {ROWS:,} objects", BOUNDS, measure_peer)
    old = measure_peer(OLD, 0)  # once, because no bound of its time is checked
    samples = {**measurement.samples, OLD: [old]}
    return [*measurement.wall(BOUNDS), Measurement(measurement.work, samples).peak(OLD, MOST)]


def _check_listing(path: Path) -> None:
    """Raise RuntimeError if the file has fewer names than objects. 2.0.0.2 prints its reply twice."""
    count = _count(path)
    if count < ROWS:
        raise RuntimeError(f"{count} of {ROWS} objects were listed")


def _count(path: Path) -> int:
    """Return the number of names in the file. Read it in blocks."""
    count, tail = 0, b""
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            count += (tail + block).count(ENDING)
            tail = (tail + block)[1 - len(ENDING) :]  # too short to contain a name that was counted
    return count


def _dry_run(bench: Bench, store: Store) -> list[Row]:
    result = []
    for reply, most in DRY_RUN_MOST.items():
        what = f"dryRun of a pull of {ROWS:,} objects, {reply} reply: peak memory"
        if _knows_dry_run(bench, store, reply):
            result.append(peak_row(what, "", 0, _planned(bench, store, reply).peak_bytes, most))
        else:
            result.append(Row(what, "", "", "not known yet", "", f"<= {most} MB"))
    return result


def _planned(bench: Bench, store: Store, reply: str) -> Run:
    """Plan a pull of all objects. Raise RuntimeError if that fails, or if a full reply does not name all of them."""
    with bench.temporary_path("listing") as directory:
        directory.mkdir()
        printed = directory / "stdout"
        run = bench.run(*_plan(bench, store, reply, "", directory / "target"), stdout=printed)
        if run.status or (reply == "full" and _count(printed) < ROWS):
            raise RuntimeError(f"the plan failed: {run.stderr[-2000:]}")
    return run


def _knows_dry_run(bench: Bench, store: Store, reply: str) -> bool:
    """Return whether this version can plan a pull: a plan of a listed but missing object works, and its pull fails."""
    with bench.temporary_path("target") as target:
        run = bench.run(*_plan(bench, store, reply, rows.key(0), target))
    if run.status:
        return False
    return reply == "full" or not json.loads(run.stdout).get("localFileList")


def _plan(bench: Bench, store: Store, reply: str, path: str, target: Path) -> list[str]:
    meta = {"path": path, "mapLocationOver": str(target), "dryRun": True}
    if reply != "full":
        meta["reply"] = reply
    return bench.new.command(*message(store.port, "objPull", **meta))
