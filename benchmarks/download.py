"""Compare the download of a large object through the server with a download from the store itself."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.measurement import MB
from benchmarks.table import Row, median, spread

SIZE = 1024**3
KEY = "download/large.nii"
# The smallest allowed share of the store's own bytes per second.
LEAST = 0.6
# Megabytes (10^6 bytes).
MOST_MEMORY = 100

BUFFER = memoryview(bytearray(1024**2))


def measure(bench: Bench) -> list[Row]:
    _store(bench)
    through: list[float] = []
    direct: list[float] = []
    with bench.serving(bench.new) as server:
        ways: tuple[tuple[list[float], int, str, dict[str, str]], ...] = (
            (direct, bench.store.port, f"{bench.store.path}/{KEY}", {"X-Auth-Token": bench.store.token}),
            (through, server.port, f"/api/v1/objects/{KEY}", {}),
        )
        for _, (rates, port, path, headers) in bench.turns(ways):
            rates.append(SIZE / MB / _get(port, path, headers))
        peak = server.peak_bytes / MB
    bench.store.clear(KEY)
    ratio = median(through) / median(direct)
    cells = (spread(direct, "MB/s", 0), spread(through, "MB/s", 0), f"{ratio:.2f}")
    return [
        Row("GET of 1 GiB through the server", "the store", *cells, f">= {LEAST}", ratio >= LEAST),
        Row("memory of that server", "", "", f"{peak:.0f} MB", "", f"<= {MOST_MEMORY}", peak <= MOST_MEMORY),
    ]


def _store(bench: Bench) -> None:
    path = Path(bench.directory, "large.nii")
    with path.open("wb") as file:
        file.truncate(SIZE)
    bench.store.put(KEY, path)
    path.unlink()


def _get(port: int, path: str, headers: Mapping[str, str]) -> float:
    """Download *path*, and return the seconds that it took."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    started = time.perf_counter()
    connection.request("GET", path, headers=dict(headers))
    answer = connection.getresponse()
    size = 0
    while count := answer.readinto(BUFFER):
        size += count
    seconds = time.perf_counter() - started
    connection.close()
    if (answer.status, size) != (200, SIZE):
        raise RuntimeError(f"GET {path} gave {answer.status} and {size} bytes")
    return seconds
