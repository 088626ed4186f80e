"""How many requests a second each of several servers answers, in turns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from benchmarks import load
from benchmarks.bench import Bench
from benchmarks.table import Row, median, spread

SECONDS = 2.0
"""What each turn takes."""
WARM_SECONDS = 0.3
OURS = "ours"


def request_of(message: object) -> str:
    """Return the whole request that brings *message*."""
    body = json.dumps(message)
    head = ("POST /api/v1/cmd HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json")
    return "\r\n".join((*head, f"Content-Length: {len(body)}", "", body))


def rate(bench: Bench, port: int, clients: int, request: str, expected: str = '"status": true') -> float:
    """Return the answers a second that so many *clients* get who do nothing but send *request*.

    Where it is several, with a NUL between them, each sends one of them.
    """

    def ask(seconds: float) -> str:
        rest = (str(port), str(clients), str(seconds), expected)
        run = bench.run(bench.new.python, load.__file__, *rest, stdin=request)
        if run.status:
            raise RuntimeError(run.stderr[-1000:])
        return run.stdout

    ask(WARM_SECONDS)
    return per_second(ask(SECONDS))


def per_second(said: str) -> float:
    """Read what `load` prints."""
    result = json.loads(said)
    return float(result["answers"] / result["seconds"])


def compare(
    bench: Bench, work: str, each: Mapping[str, Callable[[], float]], bounds: Mapping[str, float | None]
) -> list[Row]:
    """Measure *each* in turns; return a row for each of *bounds*: so many times as fast is `OURS` to be."""
    found: dict[str, list[float]] = {name: [] for name in each}
    for _, name in bench.turns(list(each)):
        found[name].append(each[name]())
    return [_row(work, name, found[name], found[OURS], bound) for name, bound in bounds.items()]


def _row(work: str, peer: str, theirs: Sequence[float], ours: Sequence[float], least: float | None) -> Row:
    ratio = median(ours) / median(theirs)
    shown = (f"{work}, requests/s", peer, spread(theirs, "/s", 0), spread(ours, "/s", 0), f"{ratio:.2f}")
    return Row(*shown) if least is None else Row(*shown, f">= {least:g}", ratio >= least)
