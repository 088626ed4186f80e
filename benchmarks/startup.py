"""Measure the time of ``pfstorage --version``, and list the SDKs that it imports."""

from __future__ import annotations

import re

from benchmarks.bench import Bench
from benchmarks.table import Row, median, spread
from benchmarks.versions import Version

TIMES = 15
# The largest allowed ratio to the time of the interpreter alone: 80 ms on a machine where that needs 15 ms.
BOUND = 80.0 / 15.0

SDKS = ("keystoneclient", "pfmisc", "pfurl", "psutil", "pycurl", "requests", "swiftclient", "urllib3")


def measure(bench: Bench) -> list[Row]:
    """Measure whole processes, also of the interpreter alone. Times are medians in milliseconds."""
    interpreter: list[float] = []
    times: dict[str, list[float]] = {bench.old.name: [], bench.new.name: []}
    for _, version in bench.turns(bench.versions, TIMES):
        interpreter.append(bench.run(bench.new.python, "-c", "pass").seconds * 1e3)
        times[version.name].append(bench.run(*version.command("--version")).seconds * 1e3)
    old, new = times[bench.old.name], times[bench.new.name]
    most = median(interpreter) * BOUND
    sdks = {version: _sdks(bench, version) for version in (bench.old, bench.new)}
    return [
        Row(
            "--version, whole process",
            bench.old.name,
            spread(old, "ms", 0),
            spread(new, "ms", 0),
            f"{median(new) / median(old):.2f}",
            f"<= {most:.0f} ms",
            median(new) <= most,
        ),
        Row("python -c pass", "", "", spread(interpreter, "ms", 0)),
        Row(
            "SDKs that --version imports",
            bench.old.name,
            f"{len(sdks[bench.old])} of {len(SDKS)}",
            ", ".join(sdks[bench.new]) or "none",
            "",
            "none",
            not sdks[bench.new],
        ),
    ]


def _sdks(bench: Bench, version: Version) -> list[str]:
    python, *rest = version.command("--version")
    trace = bench.run(python, "-X", "importtime", *rest).stderr
    imported = set(re.findall(r"^import time:.*\| +([\w.]+)$", trace, re.MULTILINE))
    return [name for name in SDKS if name in imported]
