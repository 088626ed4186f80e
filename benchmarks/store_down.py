"""Measure the time until a user gets an error for a store that is down, and print the error."""

from __future__ import annotations

import json
import sys

from benchmarks.bench import Bench, Run, free_port
from benchmarks.table import Row, spread

# The bound in seconds.
MOST = 5.0


def measure(bench: Bench) -> list[Row]:
    port = free_port()
    old = [bench.send(bench.old, "ls", port, path="")]  # it waits half a minute
    new = [bench.send(bench.new, "ls", port, path="") for _ in range(bench.rounds)]
    times = [[run.seconds for run in runs] for runs in (old, new)]
    for version, runs in ((bench.old, old), (bench.new, new)):
        print(f"\n  {version.name} reports of a store that is down: {_message_of(runs[0])}", file=sys.stderr)
    return [
        Row(
            "ls while nothing listens, until the reply",
            bench.old.name,
            spread(times[0], "s"),
            spread(times[1], "s"),
            "",
            f"<= {MOST:.0f} s",
            max(times[1]) <= MOST,
        )
    ]


def _message_of(run: Run) -> str:
    """Return the reply's ``msg``. 2.0.0.2 prints its log before the reply, to the same place."""
    try:
        message: str = json.loads(run.stdout[run.stdout.rfind('{\n    "') :])["msg"]
    except (ValueError, KeyError):
        return run.stdout[-500:]
    return message
