"""The README: all names in it exist, and its commands work on a fresh copy in a fresh venv."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docutils.core
import docutils.nodes
import pytest

from pfstorage.actions import ACTIONS
from pfstorage.cli.flags import build_parser
from pfstorage.wire.fields import known_names
from tests.conftest import ROOT
from tests.support.replies import decoded, without_volatile

TEXT = (ROOT / "README.rst").read_text()


def blocks() -> dict[str, str]:
    """Return the code blocks of the README by their names."""
    found = re.findall(r"\.\. code-block:: \w+\n   :name: ([\w-]+)\n\n((?:   .*\n|\n)+)", TEXT)
    return {name: re.sub(r"(?m)^   ", "", text).strip() for name, text in found}


def test_the_readme_is_well_formed() -> None:
    plain = re.sub(r"(?m)^   :name: .*\n", "", TEXT)
    docutils.core.publish_doctree(plain, settings_overrides={"report_level": 2, "halt_level": 2})


def test_the_readme_names_every_flag_and_no_other() -> None:
    flags = {flag for action in build_parser()._actions for flag in action.option_strings}
    table = TEXT[TEXT.index("\nFlags\n") : TEXT.index("\nFrom 2.x to 3\n")]
    named = set(re.findall(r"(?<![\w-])--?[A-Za-z]+", table))
    assert named - {"-m"} == flags


def test_the_readme_names_every_action_with_every_meta() -> None:
    table = TEXT[TEXT.index("\nActions\n") : TEXT.index("\nFlags\n")]
    for name, action in ACTIONS.items():
        assert f"``{name}``" in table
        assert all(meta in table for meta in known_names(action.meta))


def test_every_document_that_the_readme_links_to_exists() -> None:
    for target in re.findall(r"<(docs/[\w./-]+)>`_", TEXT):
        assert (ROOT / target).is_file()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the tracked and new files of the repository, as a clone would have them."""
    target = tmp_path_factory.mktemp("clone")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((ROOT / name).read_bytes())
            (target / name).chmod((ROOT / name).stat().st_mode)
    return target


@pytest.fixture(scope="module")
def ports() -> dict[str, str]:
    """Free ports to stand in for those that the README names."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    free = {name: str(each.getsockname()[1]) for name, each in zip(("8080", "4055"), sockets, strict=True)}
    for each in sockets:
        each.close()
    return free


@dataclass
class Typed:
    """The output of a block, and its exit status."""

    stdout: str
    stderr: str
    returncode: int


class Shell:
    """Types blocks into a shell, as a person would, and ends the programs that they leave running."""

    def __init__(self, where: Path, ports: dict[str, str]) -> None:
        self._where = where
        self._ports = ports
        self._groups: list[int] = []

    def type_in(self, block: str, **more: str) -> Typed:
        text = blocks()[block]
        for named, free in self._ports.items():
            text = text.replace(named, free)
        environ = {
            each: os.environ[each] for each in os.environ if not each.startswith(("PYTHON", "COV", "PYTEST"))
        }
        # to files, not pipes: programs in the background would hold pipes open
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = subprocess.Popen(
                ["bash", "-c", text],
                cwd=self._where,
                env=environ | more,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            self._groups.append(process.pid)
            status = process.wait(timeout=1500)
            out.seek(0)
            err.seek(0)
            return Typed(out.read(), err.read(), status)

    def close(self) -> None:
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)


@pytest.fixture
def shell(fresh: Path, ports: dict[str, str]) -> Iterator[Shell]:
    shell = Shell(fresh, ports)
    yield shell
    shell.close()


@pytest.mark.slow
def test_the_quick_start_prints_the_output_of_the_readme(shell: Shell, fresh: Path) -> None:
    done = shell.type_in("quick-start")
    assert done.returncode == 0, done.stderr
    shown, received = decoded(blocks()["quick-start-output"]), decoded(done.stdout)
    received[2]["currentWorkingDir"] = shown[2]["currentWorkingDir"]
    assert without_volatile(received) == without_volatile(shown)
    assert (fresh / "pulled" / "pfstorage").read_bytes() == (fresh / "bin" / "pfstorage").read_bytes()


@pytest.mark.slow
def test_the_comparison_and_the_dry_run_print_the_output_of_the_readme(shell: Shell, fresh: Path) -> None:
    if not (fresh / "pulled" / "pfstorage").exists():
        shell.type_in("quick-start")
    done = shell.type_in("compare")
    assert done.returncode == 0, done.stderr
    shown, received = decoded(blocks()["compare-output"]), decoded(done.stdout)
    received[0]["currentWorkingDir"] = shown[0]["currentWorkingDir"]
    assert without_volatile(received) == without_volatile(shown)
    assert not (fresh / "store" / "chris" / "other").exists()


@pytest.mark.slow
def test_the_test_command_finds_all_that_it_needs(shell: Shell) -> None:
    """The command collects all tests, and runs those of the stores. ``.ci/run`` runs all of them with it."""
    done = shell.type_in("run-the-tests", PYTEST_ADDOPTS="-k test_storage.py")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert re.search(r"\d{3} passed", done.stdout)
    [called] = re.findall(r"python (-m pytest.*)", (ROOT / ".ci" / "run").read_text())
    assert blocks()["run-the-tests"].rstrip().endswith(f"python {called}")


@pytest.mark.slow
def test_the_main_job_runs_on_a_real_swift_and_over_http(
    shell: Shell, fresh: Path, ports: dict[str, str]
) -> None:
    if not (fresh / ".venv").exists():
        shell.type_in("quick-start")
    (fresh / "pulled" / "pfstorage").unlink(missing_ok=True)
    done = shell.type_in("devswift")
    put, pull = decoded(re.sub(r"(?m)^devswift: .*\n", "", done.stdout))
    assert put["objectFileList"] == pull["objectFileList"] == ["chris/sample/pfstorage"]
    assert (fresh / "pulled" / "pfstorage").read_bytes() == (fresh / "bin" / "pfstorage").read_bytes()
    replies = decoded(shell.type_in("server").stdout)
    shown = decoded(blocks()["server-output"])
    assert replies == [*shown * 3, {"msg": "Server shut down", "status": True}]
    assert library_names(fresh, ports) == ["chris/sample/pfstorage"]


def library_names(fresh: Path, ports: dict[str, str]) -> list[str]:
    code = (
        blocks()["library"].replace("8080", ports["8080"]) + "\nimport json\nprint(json.dumps(sorted(sizes)))"
    )
    done = subprocess.run([".venv/bin/python", "-c", code], cwd=fresh, capture_output=True, text=True)
    names: list[str] = json.loads(done.stdout)
    return names
