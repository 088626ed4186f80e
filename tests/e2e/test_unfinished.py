"""Temporary files of killed processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pfstorage.local import LocalTree
from tests.conftest import ROOT, write_tree
from tests.support.local import begin_and_discard, parts_in

WRITER = """
import sys
from pfstorage.local import LocalTree
tree = LocalTree("out")
files = [tree.new_file(("d", "a")), tree.new_file(("e", "b"))]
for file in files:
    file.write(b"half")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is writing out/d/a and out/e/b."""
    command = [sys.executable, "-c", WRITER]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environ
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_the_next_writer_in_the_directory_removes_the_file_of_a_killed_one(
    tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    begin_and_discard("d")
    assert len(parts_in("out/d")) == 1  # it has a writer
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    begin_and_discard("d")
    assert (len(parts_in("out/d")), len(parts_in("out/e"))) == (0, 1)


def test_a_tree_sweeps_a_directory_once(
    tmp_path: Path, writer: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pfstorage.local.tree._MAX_SWEPT", 3)
    writer.kill()
    writer.wait()
    tree = LocalTree("out")
    with tree.new_file(("d", "a")):
        pass
    write_tree(tmp_path, {"out/d/.pfstorage-0a.part": b""})
    with tree.new_file(("d", "b")):
        assert len(parts_in("out/d")) == 2
    for name in "xyz":  # it remembers only so many
        tree.new_file((name, "file")).discard()
    tree.new_file(("d", "c")).discard()
    assert parts_in("out/d") == []
