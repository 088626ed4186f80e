"""How many requests a second the server answers to one client, when it has nothing to do for them."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.client import Client
from benchmarks.table import Row, median, spread

MESSAGE = {"action": "hello", "meta": {"askAbout": "timestamp"}}
LEAST = 10
"""Times the requests of the old version."""

SECONDS = 2.0
"""About what each turn takes."""


def measure(bench: Bench) -> list[Row]:
    rates: dict[str, list[float]] = {bench.old.name: [], bench.new.name: []}
    with bench.serving(bench.old) as old_port, bench.serving(bench.new) as new_port:
        ports = {bench.old.name: old_port, bench.new.name: new_port}
        for _, version in bench.turns(bench.versions):
            rates[version.name].append(_rate(ports[version.name]))
    old, new = rates[bench.old.name], rates[bench.new.name]
    ratio = median(new) / median(old)
    what = "HTTP hello, one client, requests/s"
    return [
        Row(
            what,
            bench.old.name,
            spread(old, "/s", 0),
            spread(new, "/s", 0),
            f"{ratio:.1f}",
            f">= {LEAST}",
            ratio >= LEAST,
        )
    ]


def _rate(port: int) -> float:
    with Client(port) as client:
        warm = 50
        count = max(warm, round(warm / client.send(MESSAGE, warm) * SECONDS))
        return count / client.send(MESSAGE, count)
