"""Rows of results, and their form as a table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

HEAD = ("work", "peer", "theirs", "ours", "ratio", "bound", "")
MARK = {True: "met", False: "NOT MET", None: ""}


@dataclass(frozen=True)
class Row:
    """One number of a peer and of this version. *met* is None without a bound, or if it was not judged."""

    work: str
    peer: str
    theirs: str
    ours: str
    ratio: str = ""
    bound: str = ""
    met: bool | None = None


def spread(values: Sequence[float], unit: str, digits: int = 1) -> str:
    """Format the median of *values*, with the smallest and the largest value.

    >>> spread([1.0, 4.0, 2.0], "s")
    '2.0 s (1.0-4.0)'
    """
    middle, least, most = (f"{value:.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} {unit}" + (f" ({least}-{most})" if len(values) > 1 else "")


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def render(rows: Sequence[Row]) -> str:
    """Format *rows* as a table. Each column is as wide as its longest cell."""
    lines: list[tuple[str, ...]] = [HEAD]
    lines += [(r.work, r.peer, r.theirs, r.ours, r.ratio, r.bound, MARK[r.met]) for r in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
