"""Measure honest clients while others attack the same server: ``python -m benchmarks.soak --hostile``."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Server, ended
from benchmarks.listing_memory import STORES
from benchmarks.soak import EVERY, Result, serving, soak
from benchmarks.soak_client import FOLDER, OBJECTS, content_of
from benchmarks.versions import REPOSITORY

# The largest allowed ratio of the 99th percentiles of the answer times of honest clients, with and without attacks.
MOST_SLOWER = 3.0
# The largest allowed additional memory of the server, in bytes, under one kind of attack.
MOST_MEMORY = 60 << 20
# The share of the time without attacks, at the beginning.
CALM_SHARE = 0.2
# Seconds, on average, between two requests of an honest client, so that the server is not always busy.
PAUSE = 1.0
HONEST, HOSTILE = "honest-0123456789abcdef", "hostile-0123456789abcdef"
TOKENS = f"[AUTH TOKENS]\nhonest = {HONEST}\nhostile = {HOSTILE}\n[TOKEN RIGHTS]\nhonest = write\nhostile = write\n"
MB = 1e6


@dataclass(frozen=True)
class AttackResult:
    """The results of honest clients without and with attacks, and the outcomes of the attacks, by kind.

    *base* is the memory of the server without attacks, in bytes, and *peak* the maximum.
    """

    calm: Result
    hostile: Result
    attacks: dict[str, dict[str, int]]
    base: int
    peak: int

    @property
    def slower(self) -> float:
        return self.hostile.p99 / self.calm.p99 if self.calm.p99 else 0.0

    @property
    def complaints(self) -> list[str]:
        """The errors, and the bounds that were not met."""
        errors = [f"without attacks: {count} x {error}" for error, count in self.calm.errors.most_common()]
        found = [*errors, *self.hostile.complaints]
        if self.slower > MOST_SLOWER:
            found.append(f"the 99th percentile is {self.slower:.1f} times as long as without attacks")
        if len(self.attacks) == 1 and self.peak - self.base > MOST_MEMORY:
            found.append(f"it takes {(self.peak - self.base) / MB:.0f} MB more than without attacks")
        found += [f"no attack happened: {kind}" for kind, outcomes in self.attacks.items() if not outcomes]
        return found

    def lines(self) -> list[str]:
        """Return the lines of the report, without the complaints."""
        lines = [
            f"{name}: {result.requests} requests, p50 {result.p50:.3f} s, p99 {result.p99:.3f} s"
            for name, result in (("without attacks", self.calm), ("with attacks", self.hostile))
        ]
        lines += [f"{kind}: {outcomes}" for kind, outcomes in self.attacks.items()]
        memory = f"{self.base / MB:.0f} MB without attacks, {self.peak / MB:.0f} MB at most"
        return [*lines, f"the 99th percentile is {self.slower:.1f} times as long; memory {memory}"]


@contextlib.contextmanager
def attacking(port: int, kinds: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the hostile clients within a ``with`` block. `communicate` ends them earlier, and returns their outcomes."""
    command = [sys.executable, "-m", "benchmarks.hostile", str(port), HOSTILE, *kinds]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY)
    with process, ended(process):
        yield process


def measure_under_attack(
    directory: Path,
    clients: int,
    seconds: float,
    report: Callable[[str], object],
    *,
    store: str = "filesystem",
    kinds: Sequence[str] = (),
    rows: int = 150_000,
    every: float = EVERY,
    pause: float = PAUSE,
) -> AttackResult:
    """Run honest *clients* for *seconds*, first without attacks, and then with attacks of *kinds* (default: all).

    The *store* is one of `STORES`, with *rows* rows. Each listing slows down a development Swift. With a directory,
    only the server itself can become slow. *every* and *pause* are those of `soak`.
    """
    tokens = directory / "tokens.cfg"
    tokens.touch(0o600)
    tokens.write_text(TOKENS)
    files = directory / "files"
    files.mkdir()
    flags = ("--enableTokenAuth", "--tokenPath", str(tokens), "--fsRoot", str(files))
    calm_seconds = seconds * CALM_SHARE
    with (
        STORES[store](directory / "store", rows) as flags_of_store,
        serving(directory, *flags_of_store, *flags, "--stateDir", str(directory / "state")) as (port, pid),
    ):
        _fill(port)
        calm = soak(
            port,
            pid,
            clients,
            calm_seconds,
            report,
            every=every,
            token=HONEST,
            pause=pause,
            max_length_ratio=1,
        )
        with attacking(port, kinds) as hostile_clients:
            rest = seconds - calm_seconds
            hostile = soak(port, pid, clients, rest, report, every=every, token=HONEST, pause=pause)
            output, _ = hostile_clients.communicate()
        peak = Server(port, pid).peak_bytes
    return AttackResult(calm, hostile, json.loads(output), calm.samples[-1].memory, peak)


def _fill(port: int) -> None:
    """Store the objects that the clients read, through the server."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        for number in range(OBJECTS):
            key = f"{FOLDER}/{number:03}"
            headers = {"Authorization": f"Bearer {HONEST}"}
            connection.request("PUT", f"/api/v1/objects/{key}", content_of(key), headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 201:
                raise RuntimeError(f"a server did not store {key!r}: {answer.status}")
