"""The files of the project that other tools read: they parse, and they agree with the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pfstorage._version import __version__
from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
YAML_FILES = [
    *WORKFLOWS,
    *sorted((ROOT / ".github").rglob("*.yml")),
    *(ROOT / name for name in (".pre-commit-config.yaml", ".readthedocs.yaml", "CITATION.cff")),
]


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_a_yaml_file_is_a_mapping(path: Path) -> None:
    assert isinstance(loaded(path), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_pins_its_actions_and_tools_and_has_no_permission_by_default(path: Path) -> None:
    workflow = loaded(path)
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step.get("uses", "a/b@" + 40 * "0")), step
            for tool in re.findall(r"pipx run (\S+)", step.get("run", "")):
                assert re.fullmatch(r"[\w-]+==[\d.]+", tool)


def test_ci_runs_on_each_python_that_the_package_names() -> None:
    job = loaded(ROOT / ".github" / "workflows" / "test.yml")["jobs"]["test"]
    [minors] = re.findall(r"for minor in \((.*?)\)", (ROOT / "setup.py").read_text())
    assert job["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in minors.split(", ")]
    assert job["steps"][-1]["run"] == ".ci/run"


def test_the_citation_names_the_version() -> None:
    assert loaded(ROOT / "CITATION.cff")["version"] == __version__


@pytest.mark.parametrize("name", ["README", "CONTRIBUTING", "SECURITY", "CODE_OF_CONDUCT"])
def test_a_page_at_the_top_links_to_files_that_exist(name: str) -> None:
    text = (ROOT / f"{name}.rst").read_text()
    for target in re.findall(r"<([\w./-]+\.\w+)>`_", text):
        assert (ROOT / target).is_file(), target
