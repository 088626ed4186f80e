"""The image: its packages are pinned and listed, and the examples run it with as few rights as possible."""

from __future__ import annotations

import json
import os
import re
import runpy
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import setuptools
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from pfstorage.cli.flags import build_parser
from pfstorage.server.server import seconds_to_end
from pfstorage.server.tokens import TokenFile, make_token
from pfstorage.settings.model import Settings
from tests.conftest import ROOT
from tests.support.image import instructions

LOCKS = ("requirements.lock", "requirements-build.lock")
IMAGE = {"python_version": "3.12", "python_full_version": "3.12.14", "sys_platform": "linux"}
"""The variables of requirement markers, with the values in the image."""
SHA256 = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def locked(name: str) -> dict[str, tuple[Version, list[str]]]:
    """Return the packages of a lock: for each, its version and its hashes."""
    text = (ROOT / name).read_text().replace("\\\n", "")
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        package, *hashes = line.split()
        title, _, version = package.partition("==")
        assert version, f"not one version: {line}"
        assert hashes, f"no hash: {package}"
        assert all(SHA256.fullmatch(each) for each in hashes), package
        assert title not in found
        found[title] = (Version(version), hashes)
    return found


def required(monkeypatch: pytest.MonkeyPatch) -> list[Requirement]:
    """Return the requirements of setup.py in the image: its own and those of the extra ``keystone``."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    runpy.run_path(str(ROOT / "setup.py"))
    [install] = [words for name, words in instructions() if name == "RUN" and "--no-deps" in words]
    assert "/src" in install.split()
    return [Requirement(each) for each in [*given["install_requires"], *given["extras_require"]["keystone"]]]


def test_the_lock_satisfies_the_ranges_of_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = locked("requirements.lock")
    needed = [each for each in required(monkeypatch) if not each.marker or each.marker.evaluate(IMAGE)]
    assert len(needed) > 10
    for each in needed:
        version, _ = packages[canonicalize_name(each.name)]
        assert each.specifier.contains(version), f"{each} is {version} in the lock: run .ci/lock"


def test_build_requirements_are_locked_too() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    [listed] = re.findall(r"^requires = \[(.*)\]$", text, re.MULTILINE)
    builders = [Requirement(each.strip().strip('"')) for each in listed.split(",")]
    packages = locked("requirements-build.lock")
    assert packages.keys() == {each.name for each in builders}
    for each in builders:
        assert each.specifier.contains(packages[each.name][0]), f"{each}: run .ci/lock"
        assert f"'{each}'" in (ROOT / ".ci" / "lock").read_text()
    installed = locked("requirements.lock")
    both = packages.keys() & installed.keys()
    assert {name: packages[name] for name in both} == {name: installed[name] for name in both}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_host(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert "index" not in text


def test_the_base_of_the_image_is_pinned_by_its_digest() -> None:
    bases = [words for name, words in instructions() if name == "FROM"]
    assert bases
    for base in bases:
        assert re.fullmatch(r"python:3\.12[.\w-]*@sha256:[0-9a-f]{64}( AS \w+)?", base), base


def test_the_image_installs_nothing_that_is_not_locked() -> None:
    commands = [
        command.strip()
        for name, words in instructions()
        if name == "RUN"
        for command in words.split("&&")
        if command.split()[:2] == ["pip", "install"]
    ]
    assert len(commands) == 3
    *downloads, own = [command.split() for command in commands]
    assert [command[-1] for command in downloads] == [
        "/src/requirements-build.lock",
        "/src/requirements.lock",
    ]
    assert all("--require-hashes" in command for command in downloads)
    assert "--no-build-isolation" in downloads[-1]  # isolation would download another setuptools
    assert {"--no-deps", "--no-index", "--no-build-isolation"} <= set(own)
    shipped = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in LOCKS} <= set(shipped)


def workflow() -> dict[Any, Any]:
    content: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    return content


def test_a_release_lists_the_packages_of_its_image() -> None:
    content = workflow()
    assert content[True] == {"release": {"types": ["published"]}}  # YAML 1.1 reads the key "on" as true
    [job] = content["jobs"].values()
    steps = job["steps"]
    build = next(at for at, step in enumerate(steps) if step.get("run", "").startswith("docker build "))
    sbom = next(at for at, step in enumerate(steps) if "sbom" in step.get("uses", ""))
    assert build < sbom
    given = steps[sbom]["with"]
    assert given["format"] == "cyclonedx-json"
    assert given["upload-release-assets"] is True
    assert job["permissions"]["contents"] == "write"
    assert f"``{given['output-file']}``" in (ROOT / "docs" / "deployment.rst").read_text()
    audit = next(step["run"] for step in steps if "pip-audit" in step.get("run", ""))
    assert audit.split()[-1] == "requirements.lock"


# the examples of docs/deployment.rst


def block(caption: str) -> str:
    """Return the code block of that caption."""
    text = (ROOT / "docs" / "deployment.rst").read_text()
    [found] = re.findall(rf"\n   :caption: {re.escape(caption)}\n\n((?:   .*\n|\n)+)", text)
    return textwrap.dedent(found)


def containers() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each container of the Kubernetes example, with the pod that it is in."""
    for document in yaml.safe_load_all(block("pfstorage.yaml")):
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            yield from ((each, pod) for each in [*pod["initContainers"], *pod["containers"]])


def test_the_services_of_docker_gain_no_rights() -> None:
    services = yaml.safe_load(block("docker-compose.yml"))["services"]
    assert all(each["security_opt"] == ["no-new-privileges:true"] for each in services.values())
    server = services["pfstorage"]
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    assert server["user"] == dict(instructions())["USER"]
    assert not server.keys() & {"privileged", "cap_add", "network_mode", "pid"}
    assert server["environment"]["TMPDIR"] in [volume.split(":")[1] for volume in server["volumes"]]


def test_no_container_of_kubernetes_gains_rights() -> None:
    found = list(containers())
    assert len(found) == 2
    for container, pod in found:
        context = pod["securityContext"] | container["securityContext"]
        assert context["runAsNonRoot"] is True
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == dict(instructions())["USER"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        writable = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
        assert writable <= {"/data", "/spool"}


def test_the_server_in_kubernetes_writes_to_its_volumes_alone() -> None:
    [(container, pod)] = [(each, pod) for each, pod in containers() if "args" in each]
    options = build_parser().parse_args(container["args"])
    assert (options.server, options.b_forever, options.b_enableTokenAuth) == (True, True, True)
    assert pod["terminationGracePeriodSeconds"] > seconds_to_end(options.graceSeconds)
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment["TMPDIR"] == mounts["spool"]
    made = next(each["command"] for each in pod["initContainers"])
    assert {*options.fsRoot, options.stateDir} <= set(made)
    assert all(path.startswith(f"{mounts['data']}/") for path in (*options.fsRoot, options.stateDir))
    secrets = {options.tokenPath, options.swiftKey.removeprefix("@")}
    assert {os.path.dirname(path) for path in secrets} == {mounts["secrets"]}
    assert {each["name"] for each in pod["volumes"]} == mounts.keys()
    assert container["readinessProbe"]["timeoutSeconds"] > 5  # the time limit of /readyz
    assert (
        container["livenessProbe"]["httpGet"]["path"],
        container["readinessProbe"]["httpGet"]["path"],
    ) == (
        "/healthz",
        "/readyz",
    )


def test_the_server_reads_tokens_as_kubernetes_mounts_them(tmp_path: Path) -> None:
    [(_, pod)] = [(each, pod) for each, pod in containers() if "args" in each]
    mode = next(each["secret"]["defaultMode"] for each in pod["volumes"] if "secret" in each)
    for number in (1, 2):  # a secret is a link to a link to a file, and a change replaces the middle one
        token = make_token()
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "tokens").write_text(token + "\n")
        (tmp_path / f"..{number}" / "tokens").chmod(mode)
        (tmp_path / "new").symlink_to(f"..{number}")
        (tmp_path / "new").rename(tmp_path / "..data")
        if number == 1:
            (tmp_path / "tokens").symlink_to("..data/tokens")
            tokens = TokenFile(str(tmp_path / "tokens"))
        assert tokens.grant(f"Bearer {token}").name


def test_the_image_copies_files_that_exist_and_starts_a_server() -> None:
    found = instructions()
    copied = [words.split()[:-1] for name, words in found if name == "COPY"]
    assert all((ROOT / path).exists() for paths in copied for path in paths)
    by_name = dict(found)
    assert json.loads(by_name["ENTRYPOINT"]) == ["pfstorage"]
    options = build_parser().parse_args(json.loads(by_name["CMD"]))
    assert (options.server, options.b_forever, options.ipSelf) == (True, True, "0.0.0.0")
    assert by_name["EXPOSE"] == str(Settings().port_self)
    assert by_name["USER"] == "1000:1000"
