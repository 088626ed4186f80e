"""Rows of results, and how they are printed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

MARK = {True: "met", False: "NOT MET", None: ""}


@dataclass(frozen=True)
class Row:
    """One number of both versions. *met* is None where nothing is promised."""

    what: str
    old: str
    new: str
    ratio: str = ""
    bound: str = ""
    met: bool | None = None


def spread(values: Sequence[float], unit: str, digits: int = 1) -> str:
    """Return the median, and between what values it lies.

    >>> spread([1.0, 4.0, 2.0], "s")
    '2.0 s (1.0-4.0)'
    """
    middle, least, most = (f"{value:.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle} {unit}" + (f" ({least}-{most})" if len(values) > 1 else "")


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def compare(
    what: str, old: Sequence[float], new: Sequence[float], unit: str, most: float | None = None
) -> Row:
    """Make the row of a number of which the new version may need *most* times what the old one needs."""
    ratio = median(new) / median(old)
    bound = "" if most is None else f"<= {most} x old"
    met = None if most is None else ratio <= most
    return Row(what, spread(old, unit, 2), spread(new, unit, 2), f"{ratio:.2f}", bound, met)


def render(rows: Sequence[Row], old: str, new: str) -> str:
    """Return the table as text, its columns as wide as what stands in them."""
    lines: list[tuple[str, ...]] = [("what", old, new, "new/old", "bound", "")]
    lines += [(row.what, row.old, row.new, row.ratio, row.bound, MARK[row.met]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
