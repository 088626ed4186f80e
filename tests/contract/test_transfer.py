"""Transfers over every backend."""

from __future__ import annotations

import random
from pathlib import Path

from pfstorage.backends import Storage
from pfstorage.errors import (
    NotFoundError,
)
from pfstorage.transfer import (
    Failure,
    Transfer,
    pull,
)
from tests.conftest import read_tree
from tests.support.transfers import context_on, failed_keys, filled, left_threads


def test_the_report_is_in_the_order_of_the_plan(storage: Storage, tmp_path: Path) -> None:
    plan: list[Transfer | Failure] = [*filled(storage, 200)]
    for number in (7, 150):
        storage.delete(f"{number:04}")
    plan[20] = Failure("0020", "out/0020", NotFoundError("not wanted"))
    random.Random(1).shuffle(plan)
    report = pull(plan, context_on(storage, 8))
    assert failed_keys(report) == [item.key for item in plan if item.key in ("0007", "0150", "0020")]
    done = [item for item in plan if item.key not in failed_keys(report)]
    assert report.keys == [item.key for item in done]
    assert report.paths == [item.path for item in done]
    assert (report.count, report.failed_count, report.size, report.skipped) == (197, 3, 197 * 4, 0)
    assert read_tree(tmp_path / "out") == {item.key: item.key.encode() for item in done}


def test_no_thread_is_left_when_a_run_ends(storage: Storage) -> None:
    plan = filled(storage, 50)
    pull(plan, context_on(storage, 8))
    assert not left_threads()
