"""Replies on stdout."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import Command, write_tree
from tests.support.replies import as_2x


def test_the_command_line_streams(command: Command, tmp_path: Path) -> None:
    write_tree(tmp_path / "store", {f"{number:03}": b"" for number in range(600)})
    done = command("--type", "filesystem", "--storeBase", "store", "--action", "ls")
    received = json.loads(done.stdout)
    assert list(received) == ["ls", "status"]
    assert [row["name"] for row in received["ls"]] == [f"{number:03}" for number in range(600)]
    assert (done.returncode, done.stdout) == (0, as_2x(received) + "\n")
