"""Many clients of a real server in front of a real Swift, for hours: ``python -m benchmarks.soak --seconds 3600``.

Each client does one thing after the other, chosen at random, and looks at what comes back. A line
each ten seconds tells how it goes; the last one whether all went well.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bench import ended, free_port, wait_until_up
from benchmarks.store import Store, running_store
from benchmarks.versions import REPOSITORY, clean_environment

EVERY = 10.0
"""Seconds of a line of the report."""
WARM_SECONDS = 10.0
"""How long the server may take more and more at least, beside the time until each client has done each thing once."""
MOST_GROWTH = 0.06
"""How much more, as a share, the server may hold at the end of the second half of the time than at its beginning.

In the first half, memory grows without a leak: each of many threads touches its stack, and the C library's arenas fill.
"""
OBJECTS = 100
SIZE = 4096
FOLDER = "soak/files"


@dataclass(frozen=True)
class Sample:
    """What a process holds: bytes of memory, open descriptors, threads (proc(5))."""

    memory: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Sample:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        memory = int(status["VmRSS"].split()[0]) * 1024
        return cls(memory, len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]))


@dataclass
class Tally:
    """What all clients have seen. *seconds* are those of all requests, *recent* those since the last line.

    *warm* are the clients that have done each thing once.
    """

    warm: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    seconds: array[float] = field(default_factory=lambda: array("f"))
    recent: array[float] = field(default_factory=lambda: array("f"))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, seconds: float, error: str = "") -> None:
        with self.lock:
            self.seconds.append(seconds)
            self.recent.append(seconds)
            if error:
                self.errors[error] += 1

    def note_warm(self) -> None:
        with self.lock:
            self.warm += 1

    def take_recent(self) -> array[float]:
        with self.lock:
            recent, self.recent = self.recent, array("f")
            return recent


def trend(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and the last value of the straight line that is nearest to *values* (least squares).

    A single value may be high or low by chance; each of them counts here.
    """
    slope, start = statistics.linear_regression(range(len(values)), values)
    return start, start + slope * (len(values) - 1)


@dataclass(frozen=True)
class Result:
    """What came of it all. *samples* are of the server, from the second half of the time, in which it was warm."""

    requests: int
    errors: Counter[str]
    p50: float
    p99: float
    samples: Sequence[Sample]

    @property
    def complaints(self) -> list[str]:
        """What did not go well; nothing, if all did."""
        found = [f"{count} x {error}" for error, count in self.errors.most_common()]
        for name in ("memory", "descriptors"):
            first, last = trend([getattr(sample, name) for sample in self.samples])
            if last > (1 + MOST_GROWTH) * first:
                found.append(f"{name} grew from {first:.0f} to {last:.0f} in the second half of the time")
        return found


class UnexpectedError(Exception):
    """An answer is not what it should be."""


class Client:
    """One of many: it keeps its connection, and makes another one when that has broken."""

    def __init__(self, number: int, port: int, tally: Tally) -> None:
        self._number = number
        self._random = random.Random(number)
        self._tally = tally
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._put = b""

    def run(self, is_over: threading.Event) -> None:
        """Do each thing once, and then what comes."""
        kinds = (self._hello, self._ls, self._exists, self._get, self._pull, self._replace)
        begin = self._random.sample(kinds, len(kinds))
        while begin and not is_over.is_set():
            self._do(begin.pop())
        self._tally.note_warm()
        while not is_over.is_set():
            self._do(*self._random.choices(kinds, (4, 4, 4, 4, 1, 1)))
        self._connection.close()

    def _do(self, kind: Callable[[], None]) -> None:
        started = time.perf_counter()
        error = ""
        try:
            kind()
        except UnexpectedError as e:
            error = f"{kind.__name__[1:]}: {e}"
        except (OSError, http.client.HTTPException, ValueError) as e:
            error = f"{kind.__name__[1:]}: {type(e).__name__}"
            self._connection.close()
        self._tally.note(time.perf_counter() - started, error)

    def _ask(self, method: str, path: str, body: bytes = b"", wanted: int = 200) -> bytes:
        self._connection.request(method, path, body, {"Content-Type": "application/octet-stream"})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != wanted:
            raise UnexpectedError(f"{answer.status} {content[:200]!r}")
        return content

    def _send(self, action: str, **meta: Any) -> Any:
        message = json.dumps({"action": action, "meta": meta}).encode()
        reply = json.loads(self._ask("POST", "/api/v1/cmd", message))
        _expect(reply["status"] is True, str(reply)[:200])
        return reply

    def _key(self) -> str:
        return f"{FOLDER}/{self._random.randrange(OBJECTS):03}"

    def _hello(self) -> None:
        self._send("hello", askAbout="timestamp")

    def _ls(self) -> None:
        _expect(len(self._send("ls", path=FOLDER)["ls"]) == OBJECTS, "rows are missing")

    def _exists(self) -> None:
        self._send("objExists", obj=self._key())

    def _get(self) -> None:
        key = self._key()
        _expect(self._ask("GET", f"/api/v1/objects/{key}") == content_of(key), "another content")

    def _pull(self) -> None:
        """Pull a file where each pull replaces another one."""
        key, target = self._key(), f"pulled/{self._number}"
        reply = self._send("objPull", path=key, fromLocation=key, mapLocationOver=target)
        _expect(len(reply["localFileList"]) == 1, "no file")

    def _replace(self) -> None:
        """Replace an object that is this client's alone, and read it."""
        path = f"/api/v1/objects/soak/own/{self._number}"
        content = self._random.randbytes(SIZE)
        self._ask("PUT", path, content, 201)
        _expect(self._ask("GET", path) == content, "not what was put")


def _expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise UnexpectedError(otherwise)


def content_of(key: str) -> bytes:
    return hashlib.sha512(key.encode()).digest() * (SIZE // 64)


@contextlib.contextmanager
def serving(store: Store, directory: Path, *flags: str) -> Iterator[tuple[int, int]]:
    """Run a server of this checkout in *directory*; yield its port and its process id. Its log is ``log`` there."""
    port = free_port()
    command = [sys.executable, "-m", "pfstorage", "--server", "--forever", "--ipSelf", "127.0.0.1"]
    swift = ["--portSelf", str(port), "--ipSwift", "127.0.0.1", "--portSwift", str(store.port)]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *swift, *flags],
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
    """Store what the clients read."""
    path = directory / "content"
    for number in range(OBJECTS):
        key = f"{FOLDER}/{number:03}"
        path.write_bytes(content_of(key))
        store.put(key, path)


def soak(port: int, pid: int, clients: int, seconds: float, say: Callable[[str], object]) -> Result:
    """Let so many *clients* work for *seconds*, or twice as long as they take to get warm; *say* a line at times."""
    tally, is_over = Tally(), threading.Event()
    samples: list[tuple[float, Sample]] = []
    warm_after = math.inf
    threads = [
        threading.Thread(target=Client(number, port, tally).run, args=(is_over,)) for number in range(clients)
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    try:
        while not samples or samples[-1][0] < max(seconds, 2 * warm_after):
            time.sleep(EVERY)
            elapsed, sample = time.monotonic() - started, Sample.of(pid)
            say(_line(elapsed, tally, sample))
            samples.append((elapsed, sample))
            if elapsed >= WARM_SECONDS and tally.warm == clients:
                warm_after = min(warm_after, elapsed)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    p50, p99 = quantiles(tally.seconds)
    second_half = [sample for elapsed, sample in samples if elapsed > samples[-1][0] / 2 - EVERY / 2]
    return Result(len(tally.seconds), tally.errors, p50, p99, second_half)


def _line(elapsed: float, tally: Tally, sample: Sample) -> str:
    recent = tally.take_recent()
    p50, p99 = quantiles(recent)
    parts = (
        f"{elapsed:6.0f} s: {len(recent)} requests, p50 {p50:.3f} s, p99 {p99:.3f} s",
        f"{tally.warm} clients are warm",
        f"{sample.memory / 1e6:.1f} MB, {sample.descriptors} descriptors, {sample.threads} threads",
        f"errors {dict(tally.errors.most_common(5))}",
    )
    return "; ".join(parts)


def quantiles(seconds: Sequence[float]) -> tuple[float, float]:
    """Return the time within which half of the requests were answered, and 99 of 100."""
    ordered = sorted(seconds) or [0.0]
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0, help="default %(default)s")
    parser.add_argument("--clients", type=int, default=200, help="default %(default)s")
    parser.add_argument("--work", type=Path, help="where the files go, on ext4, XFS or Btrfs")
    options = parser.parse_args(argv)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pfsoak-", dir=options.work)))
        store = stack.enter_context(running_store(directory / "swift", processes=2))
        fill(store, directory)
        port, pid = stack.enter_context(serving(store, directory))
        result = soak(port, pid, options.clients, options.seconds, lambda line: print(line, flush=True))
    print(f"{result.requests} requests, p50 {result.p50:.3f} s, p99 {result.p99:.3f} s")
    print("\n".join(result.complaints) or "no error, and nothing grew")
    return bool(result.complaints)


if __name__ == "__main__":
    sys.exit(main())
