"""Programs in a working directory that was removed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pfstorage import open_storage
from tests.conftest import ROOT, read_tree, write_tree


def run_in(directory: Path, *flags: str, removed: bool = False, **environ: str) -> dict[str, Any]:
    """Run the command in *directory*, *removed* before it starts. Return its reply, or its output on stderr."""
    script = f'cd {directory}; {f"rmdir {directory};" if removed else ""} exec "$@"'
    # not -m, for which Python looks into the working directory
    program = [sys.executable, "-c", "from pfstorage.cli.main import main; import sys; sys.exit(main())"]
    done = subprocess.run(
        ["sh", "-c", script, "sh", *program, *flags],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
    )
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout) if done.stdout else {"status": False, "msg": done.stderr}


def test_a_script_may_use_the_path_of_its_shell(linked: Path) -> None:
    meta = {"putSpec": "data", "inLocation": "s", "mapLocationOver": f"{linked}/data"}
    store = ("--type", "filesystem", "--storeBase", f"{linked.parent}/store")
    reply = run_in(linked, *store, "--msg", json.dumps({"action": "objPut", "meta": meta}))
    assert reply["objectFileList"] == ["s/a", "s/d/b"]


@pytest.fixture
def removed_directory(tmp_path: Path) -> Path:
    write_tree(tmp_path, {"data/a": b"aaa"})
    (tmp_path / "gone").mkdir()
    return tmp_path / "gone"


def test_absolute_paths_work_where_the_working_directory_was_removed(
    removed_directory: Path, tmp_path: Path
) -> None:
    store = ("--type", "filesystem", "--storeBase", f"{tmp_path}/store")
    put = {
        "putSpec": f"{tmp_path}/data",
        "inLocation": "s",
        "mapLocationOver": f"{tmp_path}/data",
        "audit": True,
    }
    pull = {"fromLocation": "s", "mapLocationOver": f"{tmp_path}/out", "audit": True}
    listed = {"fileList": [f"{tmp_path}/data/a"], "inLocation": "t", "mapLocationOver": f"{tmp_path}/data"}
    for action, meta in (("objPut", put), ("objPut", listed), ("objPull", pull), ("objVerify", pull)):
        removed_directory.mkdir(exist_ok=True)
        message = json.dumps({"action": action, "meta": meta})
        reply = run_in(removed_directory, *store, "--msg", message, removed=True)
        assert reply["status"] is True, reply
    assert read_tree(tmp_path / "out") == {"a": b"aaa"}
    assert sorted(read_tree(tmp_path / "store")) == ["s/a", "t/a"]


@pytest.mark.parametrize(
    ("action", "meta"),
    [
        ("objPut", {"putSpec": "data", "inLocation": "s"}),
        ("objPut", {"fileList": ["data/a"], "inLocation": "s"}),
        ("objPull", {"fromLocation": "s"}),
        ("objPull", {"fromLocation": "s", "mapLocationOver": "out"}),
    ],
)
def test_relative_paths_are_reported_as_missing(
    removed_directory: Path, tmp_path: Path, action: str, meta: dict[str, Any]
) -> None:
    with open_storage(type="filesystem", store_base=str(tmp_path / "store")) as storage:
        storage.put("s/a", io.BytesIO(b"aaa"), 3)
    store = ("--type", "filesystem", "--storeBase", f"{tmp_path}/store")
    reply = run_in(
        removed_directory, *store, "--msg", json.dumps({"action": action, "meta": meta}), removed=True
    )
    assert reply["status"] is False
    assert "No such file or directory" in reply["msg"]


def test_a_relative_store_is_reported_as_missing(removed_directory: Path) -> None:
    message = json.dumps({"action": "ls", "meta": {}})
    reply = run_in(
        removed_directory, "--type", "filesystem", "--storeBase", "store", "--msg", message, removed=True
    )
    assert "use absolute paths" in reply["msg"]


def test_a_server_is_not_started_where_there_is_no_directory(removed_directory: Path) -> None:
    reply = run_in(removed_directory, "--server", "--portSelf", "0", "--type", "memory", removed=True)
    assert "can't find the working directory" in reply["msg"]
