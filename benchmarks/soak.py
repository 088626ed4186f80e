"""Run many clients of a server in front of a Swift for hours: ``python -m benchmarks.soak --seconds 3600``.

Each client sends one random request after the other, and checks the replies. Every ten seconds, the program prints a
line of numbers. The last lines are the errors, and the resources that have grown.

With ``--hostile``, 50 clients work without attacks first, and then during those of `benchmarks.hostile`. With a single
``--kind`` of attack, the memory that it costs has a bound.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import ended, free_port, wait_until_up
from benchmarks.hostile import KINDS
from benchmarks.listing_memory import STORES
from benchmarks.soak_client import FOLDER, OBJECTS, Client, ClientCounts, content_of
from benchmarks.store import Store, running_store
from benchmarks.versions import REPOSITORY, clean_environment

# Seconds between two lines of the report.
EVERY = 10.0
# The minimum time for which the server may grow. It may also grow until each client has sent each kind of request.
WARM_SECONDS = 10.0
# The largest ratio of the length of a soak to the requested length.
MAX_LENGTH_RATIO = 4
# The largest allowed growth of a resource of the server during the second half of the time, as a share. In the first
# half, memory grows without a leak: each of many threads uses its stack, and the C library's arenas fill.
MOST_GROWTH = 0.06


@dataclass(frozen=True)
class Resources:
    """The resources of a process: bytes of memory, open descriptors, threads (proc(5))."""

    memory: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Resources:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        memory = int(status["VmRSS"].split()[0]) * 1024
        return cls(memory, len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]))


def trend(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and the last value of the line that fits *values* best (least squares).

    A single value may be high or low by chance, so all values count.
    """
    slope, start = statistics.linear_regression(range(len(values)), values)
    return start, start + slope * (len(values) - 1)


@dataclass(frozen=True)
class Result:
    """The result of a soak. *samples* are those of the server from the second half of the time, after its warm-up."""

    requests: int
    errors: Counter[str]
    p50: float
    p99: float
    samples: Sequence[Resources]

    @property
    def complaints(self) -> list[str]:
        """The errors, and the resources that have grown."""
        return [*(f"{count} x {error}" for error, count in self.errors.most_common()), *_growth(self.samples)]


def flags_of(store: Store) -> list[str]:
    """Return the flags of a server in front of *store*."""
    return ["--ipSwift", "127.0.0.1", "--portSwift", str(store.port)]


@contextlib.contextmanager
def serving(directory: Path, *flags: str) -> Iterator[tuple[int, int]]:
    """Run a server of this checkout in *directory*, with the log file ``log``. Yield its port and its process id."""
    port = free_port()
    command = [sys.executable, "-m", "pfstorage", "--server", "--forever", "--ipSelf", "127.0.0.1"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--portSelf", str(port), *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd=directory,
            env={**clean_environment(directory), "PYTHONPATH": str(REPOSITORY)},
        )
        with ended(process):
            wait_until_up(process, port)
            yield port, process.pid


def fill(store: Store, directory: Path) -> None:
    """Store the objects that the clients read."""
    path = directory / "content"
    for number in range(OBJECTS):
        key = f"{FOLDER}/{number:03}"
        path.write_bytes(content_of(key))
        store.put(key, path)


def soak(
    port: int,
    pid: int,
    clients: int,
    seconds: float,
    report: Callable[[str], object],
    *,
    every: float = EVERY,
    token: str = "",
    pause: float = 0.0,
    max_length_ratio: float = MAX_LENGTH_RATIO,
) -> Result:
    """Run *clients* clients for *seconds*, or for twice their warm-up if that is longer.

    While the server grows, continue, up to *max_length_ratio* times *seconds*: a leak never ends, but on a slow
    machine, caches may take long to fill. Call *report* with a line *every* given seconds. *token* and *pause* are
    those of `Client`.
    """
    counts, is_over = ClientCounts(), threading.Event()
    samples: list[tuple[float, Resources]] = []
    warm_after = math.inf
    threads = [
        threading.Thread(target=Client(number, port, counts, token=token, pause=pause).run, args=(is_over,))
        for number in range(clients)
    ]
    started, most = time.monotonic(), max_length_ratio * seconds
    for thread in threads:
        thread.start()
    try:
        while (
            not samples
            or samples[-1][0] < max(seconds, 2 * warm_after)
            or (samples[-1][0] < most and _growth(_second_half(samples, every)))
        ):
            time.sleep(every)
            elapsed, sample = time.monotonic() - started, Resources.of(pid)
            report(_line(elapsed, counts, sample))
            samples.append((elapsed, sample))
            if elapsed >= min(WARM_SECONDS, every) and counts.warm == clients:
                warm_after = min(warm_after, elapsed)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    p50, p99 = quantiles(counts.seconds)
    return Result(len(counts.seconds), counts.errors, p50, p99, _second_half(samples, every))


def _second_half(samples: Sequence[tuple[float, Resources]], every: float) -> list[Resources]:
    return [sample for elapsed, sample in samples if elapsed > samples[-1][0] / 2 - every / 2]


def _growth(samples: Sequence[Resources]) -> list[str]:
    """Return a text for each resource in *samples* that grew by more than `MOST_GROWTH`."""
    found = []
    for name in ("memory", "descriptors"):
        first, last = trend([getattr(sample, name) for sample in samples])
        if last > (1 + MOST_GROWTH) * first:
            found.append(f"{name} grew from {first:.0f} to {last:.0f} in the second half of the time")
    return found


def _line(elapsed: float, counts: ClientCounts, sample: Resources) -> str:
    recent = counts.take_recent()
    p50, p99 = quantiles(recent)
    parts = (
        f"{elapsed:6.0f} s: {len(recent)} requests, p50 {p50:.3f} s, p99 {p99:.3f} s",
        f"{counts.warm} clients are warm",
        f"{sample.memory / 1e6:.1f} MB, {sample.descriptors} descriptors, {sample.threads} threads",
        f"errors {dict(counts.errors.most_common(5))}",
    )
    return "; ".join(parts)


def quantiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile of *seconds*."""
    ordered = sorted(seconds) or [0.0]
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]


def report(line: str) -> None:
    print(line, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    from benchmarks.under_attack import measure_under_attack  # here, because that module imports this one

    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--hostile", action="store_true", help="let others attack the server meanwhile")
    parser.add_argument(
        "--kind",
        action="append",
        choices=KINDS,
        metavar="KIND",
        help="of attacks, instead of all; may be repeated",
    )
    parser.add_argument(
        "--store", choices=STORES, default="filesystem", help="of --hostile (default %(default)s)"
    )
    parser.add_argument("--rows", type=int, default=150_000, help="of that store (default %(default)s)")
    parser.add_argument("--seconds", type=float, help="default 3600, or 1800 of attacks")
    parser.add_argument("--clients", type=int, help="default 200, or 50 with --hostile")
    parser.add_argument("--work", type=Path, help="where the files go, on ext4, XFS or Btrfs")
    options = parser.parse_args(argv)
    # an ordinary exit ends all processes and removes all files
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pfsoak-", dir=options.work)))
        if options.hostile:
            seconds = options.seconds or 1800.0
            attack_result = measure_under_attack(
                directory,
                options.clients or 50,
                seconds,
                report,
                store=options.store,
                kinds=options.kind or (),
                rows=options.rows,
            )
            report("\n".join(attack_result.lines()))
            complaints = attack_result.complaints
        else:
            store = stack.enter_context(running_store(directory / "swift", processes=2))
            fill(store, directory)
            port, pid = stack.enter_context(serving(directory, *flags_of(store)))
            result = soak(port, pid, options.clients or 200, options.seconds or 3600.0, report)
            report(f"{result.requests} requests, p50 {result.p50:.3f} s, p99 {result.p99:.3f} s")
            complaints = result.complaints
    report("\n".join(complaints) or "no error, and nothing grew")
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())
