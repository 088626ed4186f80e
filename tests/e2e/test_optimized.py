"""``python -OO``: the programs work and print the same without docstrings and asserts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pfstorage import open_storage
from pfstorage.actions import ACTIONS
from pfstorage.devswift import running
from tests.conftest import ROOT, Command, read_tree, run, swift_options, write_tree
from tests.support.exchange import answer, answered, request, server_process

STORE = ("--type", "filesystem", "--storeBase", "store", "-v", "0")
CHANGING = re.compile(r'"(seconds|last_modified|timestamp|now)": [^,\n]+')


def both(run: Callable[..., Any]) -> list[Any]:
    """Return the results of *run* with plain Python and with optimized Python."""
    return [run(PYTHONOPTIMIZE=level) for level in ("", "2")]


@pytest.mark.parametrize("flag", ["--help", "--desc", "--synopsis", "--version", "--nonsense"])
def test_the_program_says_the_same_of_itself(command: Command, flag: str) -> None:
    plain, optimized = both(lambda **environ: command(flag, **environ))
    assert (plain.returncode, plain.stdout, plain.stderr) == (
        optimized.returncode,
        optimized.stdout,
        optimized.stderr,
    )


MESSAGES: dict[str, dict[str, Any]] = {
    "ls": {"path": "s/", "retSpec": []},
    "objExists": {"obj": "s/a"},
    "objStat": {"obj": "s/none"},
    "objPut": {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data", "audit": True},
    "objPull": {"fromLocation": "s", "mapLocationOver": "out", "audit": True},
    "objVerify": {"fromLocation": "s", "mapLocationOver": "data"},
    "internalctl": {"var": "/", "get": "x"},
    "hello": {"askAbout": "echoBack", "echoBack": "x"},
    "jobList": {},
    "fly": {},
}


@pytest.mark.parametrize("action", MESSAGES)
def test_each_action_replies_the_same(command: Command, tmp_path: Path, action: str) -> None:
    write_tree(tmp_path, {"store/s/a": b"a", "data/d/b": b"b", "data/a": b"a"})
    flags = (*STORE, "--durable", "batch", "--rangeSize", "64K")

    def run(**environ: str) -> tuple[int, str, str]:
        meta = {**MESSAGES[action], "dryRun": True} if action in ("objPut", "objPull") else MESSAGES[action]
        done = command(*flags, "--action", action, "--args", json.dumps(meta), **environ)
        return done.returncode, CHANGING.sub("", done.stdout), done.stderr

    plain, optimized = both(run)
    assert plain == optimized
    assert "Traceback" not in plain[2]


def test_transfers_move_the_same(command: Command, tmp_path: Path) -> None:
    files = {"a": b"a", "d/large": b"x" * 300_000, "d/empty": b""}
    write_tree(tmp_path / "data", files)
    flags = (*STORE, "--rangeSize", "64K", "--segmentSize", "64K")
    for action in ("objPut", "objPull"):
        done = command(*flags, "--action", action, "--args", json.dumps(MESSAGES[action]), PYTHONOPTIMIZE="2")
        assert json.loads(done.stdout)["audit"]["status"] is True
    assert read_tree(tmp_path / "out") == files


def test_a_server_describes_itself_and_answers_in_the_same_words(tmp_path: Path) -> None:
    write_tree(tmp_path, {"store/s/a": b"a"})

    def run(**environ: str) -> list[Any]:
        with server_process(tmp_path, *STORE[:-2], "--forever", **environ) as served:
            paths = ("/api/v1/openapi.json", "/", "/healthz", "/readyz", "/api/v1/objects", "/none")
            received = [answer(served.port, request("GET", path)).body for path in paths]
            job = answered(served.port, "objVerify", **MESSAGES["objVerify"], **{"async": True})[1]["job"]
            over = answered(served.port, "jobStatus", job=job, wait=30)[1]
            return [*received, over["state"], answered(served.port, "fly")]

    plain, optimized = both(run)
    assert plain == optimized
    document = json.loads(plain[0])["components"]["schemas"]
    texts = [
        schema.get("description", "")
        for name, schema in document.items()
        if name.endswith("Message") and name != "Message"
    ]
    assert texts
    assert all(texts)


def test_a_server_is_asked_by_an_optimized_client(tmp_path: Path, command: Command) -> None:
    write_tree(tmp_path, {"store/s/a": b"a"})
    with server_process(tmp_path, *STORE[:-2], "--forever") as served:
        address = ("--remote", f"127.0.0.1:{served.port}", "-v", "0")
        plain, optimized = both(lambda **environ: command(*address, "--action", "ls", **environ))
    assert plain.stdout == optimized.stdout
    assert json.loads(plain.stdout)["ls"] == [{"name": "s/a"}]


def test_all_of_the_package_can_be_imported() -> None:
    code = (
        "import importlib, pkgutil, pfstorage\n"
        "for each in pkgutil.walk_packages(pfstorage.__path__, 'pfstorage.'):\n"
        "    each.name.endswith('__main__') or importlib.import_module(each.name)\n"
    )
    subprocess.run([sys.executable, "-OO", "-c", code], check=True, cwd=ROOT)


def test_each_action_says_what_it_does_without_a_docstring() -> None:
    assert all(action.text.endswith(".") for action in ACTIONS.values())


def test_devswift_serves_without_asserts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    write_tree(tmp_path, {"data/a": b"a"})
    with running() as swift, open_storage(**swift_options(swift)) as storage:
        assert run(storage, "objPut", **MESSAGES["objPut"])["status"] is True
        assert run(storage, "ls", path="s/")["ls"] == [{"name": "s/a"}]
