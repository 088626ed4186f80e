"""Run the benchmarks that are asked for, and print one table."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import hello, logins, memory, startup, store_down, transfers
from benchmarks.bench import Bench
from benchmarks.store import Store
from benchmarks.table import render
from benchmarks.versions import new_version, old_version
from pfstorage.devswift import running

BENCHMARKS = {
    "startup": startup.measure,
    "memory": memory.measure,
    "transfers": transfers.measure,
    "logins": logins.measure,
    "hello": hello.measure,
    "store-down": store_down.measure,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default all")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each version (default %(default)s)")
    parser.add_argument("--cache", type=Path, help="keep both environments here, for the next time")
    parser.add_argument("--work", type=Path, help="where the files go, some 5 GB on ext4, XFS or Btrfs")
    parser.add_argument(
        "--processes", type=int, choices=(1, 2), default=2, help="those of the store (default %(default)s)"
    )
    options = parser.parse_args(argv)
    unknown = set(options.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    run(options.names or list(BENCHMARKS), options.rounds, options.cache, options.work, options.processes)
    return 0


def run(names: Sequence[str], rounds: int, cache: Path | None, work: Path | None, processes: int) -> None:
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pfbench-", dir=work)))
        old, new = old_version(cache or directory), new_version(cache or directory)
        log = directory / "swift.log"
        swift = stack.enter_context(running(0, directory / "swift", log, processes))
        bench = Bench(old, new, Store.of(swift, log), directory, rounds)
        rows = []
        for name in names:
            started = time.monotonic()
            print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
            rows += BENCHMARKS[name](bench)
            print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    print(render(rows, old.name, new.name))


if __name__ == "__main__":
    sys.exit(main())
