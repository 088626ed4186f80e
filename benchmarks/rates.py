"""Measure the requests per second that several servers answer, in turns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from benchmarks import load
from benchmarks.bench import Bench
from benchmarks.table import Row, median, spread

# The length of each turn.
SECONDS = 2.0
WARM_SECONDS = 0.3
OURS = "ours"


def request_of(message: object) -> str:
    """Return the whole HTTP request with *message*."""
    body = json.dumps(message)
    head = ("POST /api/v1/cmd HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json")
    return "\r\n".join((*head, f"Content-Length: {len(body)}", "", body))


def rate(bench: Bench, port: int, clients: int, request: str, expected: str = '"status": true') -> float:
    """Return the answers per second to *clients* clients, each of which sends *request* again and again.

    If *request* has several requests, separated by NUL, the clients take them in turn.
    """

    def ask(seconds: float) -> str:
        rest = (str(port), str(clients), str(seconds), expected)
        run = bench.run(bench.new.python, load.__file__, *rest, stdin=request)
        if run.status:
            raise RuntimeError(run.stderr[-1000:])
        return run.stdout

    ask(WARM_SECONDS)
    return per_second(ask(SECONDS))


def per_second(output: str) -> float:
    """Return the rate in *output*, the output of `load`."""
    result = json.loads(output)
    return float(result["answers"] / result["seconds"])


def compare(
    bench: Bench, work: str, each: Mapping[str, Callable[[], float]], bounds: Mapping[str, float | None]
) -> list[Row]:
    """Measure *each* in turns, and return a row for each of *bounds*, the smallest allowed ratios of `OURS` to it."""
    found: dict[str, list[float]] = {name: [] for name in each}
    for _, name in bench.turns(list(each)):
        found[name].append(each[name]())
    return [_row(work, name, found[name], found[OURS], bound) for name, bound in bounds.items()]


def _row(work: str, peer: str, theirs: Sequence[float], ours: Sequence[float], least: float | None) -> Row:
    ratio = median(ours) / median(theirs)
    shown = (f"{work}, requests/s", peer, spread(theirs, "/s", 0), spread(ours, "/s", 0), f"{ratio:.2f}")
    return Row(*shown) if least is None else Row(*shown, f">= {least:g}", ratio >= least)
