"""``--durable`` and power cuts: the disk has each object that a reply reported, and no incomplete object."""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path

import pytest

from pfstorage import open_storage
from tests.conftest import ROOT
from tests.support.crashes import ABSENT, Disk, traced

pytestmark = pytest.mark.skipif(
    shutil.which("strace") is None and not os.environ.get("PFSTORAGE_NEEDS_STRACE"),
    reason="there is no strace",
)

OPENED = "storage = open_storage(type='filesystem', store_base='store', durable={durable!r})"
PROGRAM = """
import io, os, sys
from pfstorage import StoreHandler, open_storage
def put(key, size, **more):
    storage.put(key, io.BytesIO(bytes([size % 251 + 1]) * size), size, **more)
def say(text):
    os.write(2, (text + "\\n").encode())
"""

STEPS = {
    "put('a/b/k', 1000)": {"a/b/k": 1000},
    "put('a/b/k', 300_000)": {"a/b/k": 300_000},
    "put('a/c/new', 7, if_absent=True)": {"a/c/new": 7},
    "put('typed', 0)": {"typed": 0},
    "storage.copy('a/b/k', 'z/copy')": {"z/copy": 300_000},
    "put('a/b/k', 20)": {"a/b/k": 20},
    "storage.delete('a/b/k')": {"a/b/k": ABSENT},
    "put('a/b/k/below', 33)": {"a/b/k/below": 33},
    "storage.delete('a/c/new')": {"a/c/new": ABSENT},
}
"""The steps of a program with a store, and the sizes of the objects afterwards."""
KEYS = sorted({key for changes in STEPS.values() for key in changes})


def trace(tmp_path: Path, *lines: str) -> list[str]:
    program = PROGRAM + "\n".join(lines)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return traced([sys.executable, "-B", "-c", program], tmp_path.parent / "trace", cwd=tmp_path, env=environ)


def violations(disk: Disk, lines: list[str], steps: dict[str, dict[str, int]], said: int = 0) -> list[str]:
    """Return the objects after a power cut that are neither as before a step nor as after it."""
    done = dict.fromkeys(KEYS, ABSENT)
    left, found, states = list(steps.items()), [], 0
    for call in disk.replay(lines):
        while len(disk.said) > said + len(steps) - len(left):
            done |= left.pop(0)[1]
            assert not disk.unsynced()
        to_come = left[0][1] if left else {}
        for state in disk.after_power_cuts([f"store/{key}" for key in KEYS]):
            states += 1
            for key in KEYS:
                size = state[f"store/{key}"]
                if size not in (done[key], to_come.get(key, done[key])):
                    found.append(f"after {call} in {left[0][0] if left else 'the end'}: {key} has {size}")
        if found:
            break
    assert found or (states > 100 and not left)
    return found


@pytest.mark.parametrize("durable", ["file", "batch"])
def test_a_store_of_files_has_each_reported_object_whole_after_a_power_cut(
    tmp_path: Path, durable: str
) -> None:
    steps = [line for step in STEPS for line in (step, f"say({step!r})")]
    lines = trace(tmp_path, OPENED.format(durable=durable), *steps)
    assert violations(Disk(tmp_path), lines, STEPS) == []


def test_a_store_that_syncs_nothing_loses_reported_objects(tmp_path: Path) -> None:
    """So the check above can fail."""
    steps = [line for step in STEPS for line in (step, f"say({step!r})")]
    lines = trace(tmp_path, OPENED.format(durable="none"), *steps)
    assert not any("sync(" in line for line in lines)
    assert violations(Disk(tmp_path), lines, STEPS)


def test_directories_made_by_others_without_a_sync_are_on_the_disk_with_their_objects(
    tmp_path: Path,
) -> None:
    lines = trace(
        tmp_path,
        OPENED.format(durable="none"),
        "storage._tree.make_directory(('a', 'b'))",
        OPENED.format(durable="file"),
        "put('a/b/k', 1000)",
        "say('stored')",
    )
    disk = Disk(tmp_path)
    for _ in disk.replay(lines):
        for state in disk.after_power_cuts(["store/a/b/k"]):
            assert state["store/a/b/k"] in ((1000,) if disk.said else (ABSENT, 1000))
    assert disk.said == ["stored"]


PULL = """
storage = open_storage(type='memory', durable={durable!r}, workers=1)
for number in range(4):
    put(f's/d{{number % 2}}/{{number}}', 1000 + number)
reply = StoreHandler(storage).run({{'action': 'objPull', 'meta': {{'fromLocation': 's', 'mapLocationOver': 'out/in'}}}})
assert len(reply['localFileList']) == 4, reply
say('pulled')
"""


@pytest.mark.parametrize("durable", ["file", "batch"])
def test_pulled_files_and_the_directories_that_they_are_in_are_on_the_disk_before_the_reply(
    tmp_path: Path, durable: str
) -> None:
    lines = trace(tmp_path, PULL.format(durable=durable))
    disk = Disk(tmp_path)
    sizes = {f"out/in/d{number % 2}/{number}": 1000 + number for number in range(4)}
    for _ in disk.replay(lines):
        if disk.said:
            assert list(disk.after_power_cuts([*sizes])) == [sizes]
    assert disk.said == ["pulled"]


def test_an_empty_directory_that_marks_a_prefix_is_on_the_disk_before_the_reply(tmp_path: Path) -> None:
    lines = trace(tmp_path, OPENED.format(durable="file"), "put('a/b/', 0)", "say('stored')")
    last = {name: number for number, line in enumerate(lines) for name in ("mkdir", "fsync(") if name in line}
    assert last["mkdir"] < last["fsync("]
    for above in (tmp_path, tmp_path / "store", tmp_path / "store" / "a"):
        assert any("fsync(" in line and f"<{above}>" in line for line in lines)


def test_a_store_of_files_that_nobody_wants_to_be_durable_waits_for_no_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise AssertionError("it waits for the disk")

    monkeypatch.setattr(os, "fsync", fail)
    with open_storage(type="filesystem", store_base="store") as storage:
        storage.put("a/b", io.BytesIO(b"x"), 1)
        storage.copy("a/b", "c/d")
        storage.delete("a/b")
