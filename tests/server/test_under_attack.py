"""Honest clients next to hostile ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import soak
from benchmarks.hostile import KINDS
from benchmarks.under_attack import AttackResult, measure_under_attack


@pytest.mark.slow
@pytest.mark.no_cover
@pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="the test reads the resources of the server from Linux's /proc"
)
def test_honest_clients_see_no_error_while_others_attack(tmp_path: Path, record_property: Any) -> None:
    found = measure_under_attack(
        tmp_path, clients=20, seconds=15, report=print, rows=3000, every=1, pause=0.1
    )
    print("\n".join(found.lines()))
    record_property("slower", found.slower)
    assert found.calm.errors == found.hostile.errors == Counter()
    assert found.attacks.keys() == KINDS.keys()
    assert all(found.attacks.values())  # requests of each kind were sent


def result(p99: float, errors: Sequence[str] = (), memory: Sequence[int] = (80, 80, 80)) -> soak.Result:
    samples = [soak.Resources(size * 1_000_000, 200, 100) for size in memory]
    return soak.Result(1000, Counter(errors), p99 / 10, p99, samples)


def complaints_of(calm: soak.Result, hostile: soak.Result, **attacks: dict[str, int]) -> list[str]:
    return AttackResult(calm, hostile, attacks, 80_000_000, 120_000_000).complaints


def test_attacks_that_no_client_notices_cause_no_complaint() -> None:
    assert complaints_of(result(0.1), result(0.29), echoes={"503": 4}) == []


def test_slow_answers_during_attacks_are_reported() -> None:
    assert complaints_of(result(0.1), result(0.31)) == [
        "the 99th percentile is 3.1 times as long as without attacks"
    ]


def test_one_kind_of_attack_takes_a_bounded_memory() -> None:
    hostile = result(0.1)
    attacks = {"echoes": {"200": 1}}
    assert AttackResult(hostile, hostile, attacks, 80 << 20, 140 << 20).complaints == []
    assert (
        AttackResult(hostile, hostile, attacks | {"fields": {"200": 1}}, 80 << 20, 150 << 20).complaints == []
    )
    received = AttackResult(hostile, hostile, attacks, 80 << 20, 150 << 20).complaints
    assert received == ["it takes 73 MB more than without attacks"]


def test_errors_and_growth_during_attacks_are_reported() -> None:
    received = complaints_of(result(0.1, ["ls: 503"]), result(0.1, ["ls: 504"], (80, 90, 100)), echoes={})
    assert received == [
        "without attacks: 1 x ls: 503",
        "1 x ls: 504",
        "memory grew from 80000000 to 100000000 in the second half of the time",
        "no attack happened: echoes",
    ]
