"""Measure the peak memory for a push and a pull of one large object."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.measurement import MB
from benchmarks.table import Row
from benchmarks.versions import Version

SIZE = 1024**3
# The size for 2.0.0.2, which holds the whole object in memory: a larger one would give the same result.
OLD_SIZE = 256 * 1024**2

# The bound in megabytes (10^6 bytes), for an object of any size.
MOST = 80


def measure(bench: Bench) -> list[Row]:
    old = _put_and_pull(bench, bench.old, OLD_SIZE)
    new = _put_and_pull(bench, bench.new, SIZE)
    return [
        Row(
            f"peak memory, {action} of 1 GiB (theirs: {OLD_SIZE // 1024**2} MiB)",
            bench.old.name,
            f"object + {(old_peak - OLD_SIZE) / MB:.0f} MB",
            f"{new_peak / MB:.0f} MB",
            "",
            f"<= {MOST} MB",
            new_peak <= MOST * MB,
        )
        for action, old_peak, new_peak in zip(("objPut", "objPull"), old, new, strict=True)
    ]


def _put_and_pull(bench: Bench, version: Version, size: int) -> tuple[int, int]:
    """Return the peaks of a push and of a pull, in bytes."""
    location = f"memory-{version.name}"
    with bench.temporary_path("large") as source, bench.temporary_path("pulled") as target:
        _write_file(source / "object", size)
        put = bench.send(
            version, "objPut", putSpec=str(source), inLocation=location, mapLocationOver=str(source)
        )
        pull = bench.send(
            version, "objPull", path=location, fromLocation=location, mapLocationOver=str(target)
        )
        if (target / "object").stat().st_size != size:
            raise RuntimeError(f"{version.name} did not move the object: {pull.stdout[-2000:]}")
    bench.store.clear(f"{location}/")
    return put.peak_bytes, pull.peak_bytes


def _write_file(path: Path, size: int) -> None:
    path.parent.mkdir()
    block = os.urandom(1024**2)
    with path.open("wb") as file:
        for _ in range(size // len(block)):
            file.write(block)
