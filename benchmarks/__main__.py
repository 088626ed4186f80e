"""Run the benchmarks that the arguments name, and print one table."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import (
    download,
    fast_server,
    first_answer,
    hello,
    large,
    latency,
    listing,
    logins,
    memory,
    million_rows,
    startup,
    store_down,
    transfers,
    unchanged,
)
from benchmarks.bench import Bench
from benchmarks.store import running_store
from benchmarks.table import render
from benchmarks.versions import new_version, old_version

BENCHMARKS = {
    "startup": startup.measure,
    "memory": memory.measure,
    "transfers": transfers.measure,
    "unchanged": unchanged.measure,
    "latency": latency.measure,
    "fast-server": fast_server.measure,
    "large": large.measure,
    "million-rows": million_rows.measure,
    "logins": logins.measure,
    "hello": hello.measure,
    "listing": listing.measure,
    "download": download.measure,
    "first-answer": first_answer.measure,
    "store-down": store_down.measure,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default all")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each client (default %(default)s)")
    parser.add_argument("--cache", type=Path, help="keep the environments of all here, for the next time")
    parser.add_argument("--work", type=Path, help="where the files go, some 10 GB on ext4, XFS or Btrfs")
    parser.add_argument(
        "--processes", type=int, choices=(1, 2), default=2, help="those of the store (default %(default)s)"
    )
    options = parser.parse_args(argv)
    unknown = set(options.names) - BENCHMARKS.keys()
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    # an ordinary exit ends all processes and removes all files
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    run(options.names or list(BENCHMARKS), options.rounds, options.cache, options.work, options.processes)
    return 0


def run(names: Sequence[str], rounds: int, cache: Path | None, work: Path | None, processes: int) -> None:
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pfbench-", dir=work)))
        cache = cache or directory
        old, new = old_version(cache), new_version(cache)
        store = stack.enter_context(running_store(directory / "swift", processes))
        bench = Bench(old, new, store, directory, rounds, cache, processes)
        rows = []
        for name in names:
            started = time.monotonic()
            print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
            rows += BENCHMARKS[name](bench)
            print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    print(render(rows))


if __name__ == "__main__":
    sys.exit(main())
