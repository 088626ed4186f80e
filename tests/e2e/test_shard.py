"""Many processes that transfer one tree with the commands of the documentation: each file is in one share."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import open_storage
from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from tests.conftest import ROOT, Command, read_tree, swift_options, write_tree
from tests.support.replies import decoded

PAGE = (ROOT / "docs" / "transfers.rst").read_text()
FILES = {f"series-{number % 7}/{number:03}.dcm": b"%d" % number for number in range(60)}
LOCATION = "chris/study"


def example(caption: str) -> str:
    """Return the block of the page that has *caption*, for 2 processes instead of 16."""
    [text] = re.findall(
        rf"\.\. code-block:: \w+\n   :caption: {re.escape(caption)}\n\n((?:   .*\n|\n)+)", PAGE
    )
    assert "16" in text
    return re.sub(r"\b16\b", "2", textwrap.dedent(text))


@dataclasses.dataclass
class Site:
    """A directory to work in, the command ``pfstorage`` in its PATH, and an empty container."""

    directory: Path
    storage: Storage
    environ: dict[str, str]

    def start(self, *command: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env={**os.environ, **self.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def keys(self) -> list[str]:
        return [row.key for row in self.storage.list()]


@pytest.fixture
def site(swift: DevSwift, tmp_path: Path) -> Iterator[Site]:
    options = swift_options(swift)
    wrapper = tmp_path / "bin" / "pfstorage"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -m pfstorage --verbosity 0 "$@"\n')
    wrapper.chmod(0o755)
    with open_storage(**options) as storage:
        environ = {
            "PATH": f"{wrapper.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "SWIFT_AUTH_URL": options["auth_url"],
            "SWIFT_USERNAME": storage.settings.swift.username,
            "SWIFT_KEY": storage.settings.swift.key,
            "SWIFT_CONTAINER_NAME": options["container_name"],
        }
        yield Site(tmp_path, storage, environ)


@pytest.fixture
def pushed(site: Site) -> Site:
    """The site with all files in the store."""
    tree = write_tree(site.directory / "data", FILES)
    meta = {"putSpec": "data", "inLocation": LOCATION, "mapLocationOver": "data"}
    pushing = site.start("pfstorage", "--action", "objPut", "--args", json.dumps(meta))
    assert len(reply_of(pushing)["objectFileList"]) == len(FILES)
    shutil.rmtree(tree)
    return site


def reply_of(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    return json.loads(out)


def assert_divided(replies: list[Any]) -> None:
    """All objects exist in the end. If the counts add up to their number, no object was in two shares."""
    assert len(replies) == 2
    assert all(reply["status"] and reply["files"] and not reply["skipped"] for reply in replies)
    assert sum(reply["files"] for reply in replies) == len(FILES)
    assert sum(reply["bytes"] for reply in replies) == sum(map(len, FILES.values()))


def in_a_slurm_array(site: Site) -> list[Any]:
    script = example("push.sbatch")
    assert "--array=1-2\n" in script
    running = [site.start("bash", "-c", script, SLURM_ARRAY_TASK_ID=str(task)) for task in (1, 2)]
    return [reply_of(process) for process in running]


def in_an_indexed_job(site: Site) -> list[Any]:
    manifest = example("pull.yaml")
    assert "completions: 2\n" in manifest
    [shell] = re.findall(r"command: (\[.*\])", manifest)
    [(_, script)] = re.findall(r"args:\n( +)- \|\n((?:\1  .*\n)+)", manifest)
    command = (*json.loads(shell), textwrap.dedent(script))
    running = [site.start(*command, JOB_COMPLETION_INDEX=str(index)) for index in (0, 1)]
    return [reply_of(process) for process in running]


def in_a_function(site: Site) -> list[Any]:
    code = example("pull.py") + "\nimport json, sys\nprint(json.dumps(pull(int(sys.argv[1]))))\n"
    running = [site.start(sys.executable, "-c", code, str(number)) for number in (1, 2)]
    return [reply_of(process) for process in running]


def in_gnu_parallel(site: Site) -> list[Any]:
    if not shutil.which("parallel"):
        pytest.skip("there is no GNU parallel here")
    process = site.start("bash", "-c", example("pull with GNU parallel"))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return decoded(out)


def test_a_divided_push_stores_each_file_once(site: Site) -> None:
    write_tree(site.directory / "data", FILES)
    assert_divided(in_a_slurm_array(site))
    assert site.keys == sorted(f"{LOCATION}/{name}" for name in FILES)


@pytest.mark.parametrize("divided", [in_an_indexed_job, in_a_function, in_gnu_parallel])
def test_a_divided_pull_writes_each_file_once(pushed: Site, divided: Callable[[Site], list[Any]]) -> None:
    assert_divided(divided(pushed))
    assert read_tree(pushed.directory / "back") == dict(sorted(FILES.items()))


@pytest.mark.parametrize("count", [2, 3])
def test_each_file_is_in_exactly_one_share(command: Command, tmp_path: Path, count: int) -> None:
    write_tree(tmp_path / "data", FILES)
    store = ("--type", "filesystem", "--storeBase", "store")
    push = {"putSpec": "data", "inLocation": LOCATION, "mapLocationOver": "data"}
    pull = {"fromLocation": LOCATION, "mapLocationOver": "back"}
    for action, meta in (("objPut", push), ("objPull", pull)):
        shares = []
        for number in range(1, count + 1):
            args = json.dumps({**meta, "shard": f"{number}/{count}"})
            shares.append(json.loads(command(*store, "--action", action, "--args", args).stdout))
        keys = [key for share in shares for key in share["objectFileList"]]
        assert sorted(keys) == sorted(f"{LOCATION}/{name}" for name in FILES)
        assert all(share["objectFileList"] for share in shares)


def test_push_pull_and_verify_divide_alike(command: Command, tmp_path: Path) -> None:
    write_tree(tmp_path / "data", FILES)
    store = ("--type", "filesystem", "--storeBase", "store")
    push = {"putSpec": "data", "inLocation": LOCATION, "mapLocationOver": "data", "shard": "2/3"}
    pull = {"fromLocation": LOCATION, "mapLocationOver": "data", "shard": "2/3"}
    stored = json.loads(command(*store, "--action", "objPut", "--args", json.dumps(push)).stdout)
    seen = json.loads(command(*store, "--action", "objVerify", "--args", json.dumps(pull)).stdout)
    assert (seen["same"], seen["missing"], seen["extra"]) == (len(stored["objectFileList"]), [], [])
