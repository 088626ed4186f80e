"""Honest clients next to hostile ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import siege, soak
from benchmarks.hostile import KINDS


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="the test reads the resources of the server from Linux's /proc"
)
def test_honest_clients_see_no_error_while_others_attack(tmp_path: Path, record_property: Any) -> None:
    found = siege.besiege(tmp_path, clients=20, seconds=15, say=print, rows=3000, every=1, pause=0.1)
    print("\n".join(found.lines()))
    record_property("slower", found.slower)
    assert found.calm.errors == found.hostile.errors == Counter()
    assert found.attacks.keys() == KINDS.keys()
    assert all(found.attacks.values())  # requests of each kind were sent


def result(p99: float, errors: Sequence[str] = (), memory: Sequence[int] = (80, 80, 80)) -> soak.Result:
    samples = [soak.Sample(size * 1_000_000, 200, 100) for size in memory]
    return soak.Result(1000, Counter(errors), p99 / 10, p99, samples)


def complaints_of(calm: soak.Result, hostile: soak.Result, **attacks: dict[str, int]) -> list[str]:
    return siege.Siege(calm, hostile, attacks, 80_000_000, 120_000_000).complaints


def test_a_siege_that_nobody_feels_is_no_reason_to_complain() -> None:
    assert complaints_of(result(0.1), result(0.29), echoes={"503": 4}) == []


def test_a_siege_reports_slow_answers() -> None:
    assert complaints_of(result(0.1), result(0.31)) == [
        "the 99th percentile is 3.1 times as long as in peace"
    ]


def test_one_kind_of_attack_takes_a_bounded_memory() -> None:
    hostile = result(0.1)
    attacks = {"echoes": {"200": 1}}
    assert siege.Siege(hostile, hostile, attacks, 80 << 20, 140 << 20).complaints == []
    assert (
        siege.Siege(hostile, hostile, attacks | {"fields": {"200": 1}}, 80 << 20, 150 << 20).complaints == []
    )
    received = siege.Siege(hostile, hostile, attacks, 80 << 20, 150 << 20).complaints
    assert received == ["it takes 73 MB more than in peace"]


def test_a_siege_reports_errors_and_growth() -> None:
    received = complaints_of(result(0.1, ["ls: 503"]), result(0.1, ["ls: 504"], (80, 90, 100)), echoes={})
    assert received == [
        "in peace: 1 x ls: 503",
        "1 x ls: 504",
        "memory grew from 80000000 to 100000000 in the second half of the time",
        "nobody came to attack by echoes",
    ]
