"""Importing and using pfstorage does not change the importing program."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pfstorage
from tests.conftest import ROOT

SDKS = {
    "swiftclient",
    "requests",
    "urllib3",
    "pfmisc",
    "pfurl",
    "pycurl",
    "pudb",
    "psutil",
    "multipart",
    "swift",
}

WATCHED = """
import logging, sys
before = (logging.root.level, list(logging.root.handlers), logging.root.manager.disable, sys.stdout, sys.excepthook)
{code}
after = (logging.root.level, list(logging.root.handlers), logging.root.manager.disable, sys.stdout, sys.excepthook)
assert before == after, (before, after)
"""

COLOURED = """
import io, sys
stderr, sys.stderr = sys.stderr, type("Terminal", (io.StringIO,), {"isatty": lambda self: True})()
from pfstorage.cli.main import main
main(["--type", "memory", "--action", "hello"])
shown, sys.stderr = sys.stderr.getvalue(), stderr
assert chr(27) + "[" in shown
"""

SERVER = """
import pfstorage
server = pfstorage.ThreadedHTTPServer(("127.0.0.1", 0), pfstorage.StoreHandler)
server.setup(args={"str_type": "memory"})
server.handler.run("{}")
server.server_close()
"""

LIBRARY = """
import pfstorage
with pfstorage.open_storage(type="swift", auth_url="http://127.0.0.1:9/", retries=0) as storage:
    pfstorage.StoreHandler(storage).run('{"action": "ls"}')
"""

INTERFACES = {
    "import": "import pfstorage",
    "command line": "from pfstorage.cli.main import main; main(['--type', 'memory', '--action', 'hello'])",
    "coloured console": COLOURED,
    "remote": "from pfstorage.cli.main import main; main(['--remote', '127.0.0.1:9', '--action', 'hello'])",
    "server": SERVER,
    "library": LIBRARY,
    "2.x": "from pfstorage import swiftStorage; swiftStorage(args={'portSwift': '9', 'verbosity': '0'})",
}


def run_python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, cwd=cwd)


@pytest.mark.parametrize("interface", INTERFACES)
def test_no_interface_changes_the_logging_of_the_host_program(interface: str, tmp_path: Path) -> None:
    done = run_python(WATCHED.replace("{code}", INTERFACES[interface]), tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "code", ["import pfstorage; dir(pfstorage)", "from pfstorage.cli.main import main; main(['--version'])"]
)
def test_no_sdk_is_imported_before_it_is_needed(code: str, tmp_path: Path) -> None:
    done = run_python(f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))", tmp_path)
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert not loaded & SDKS


def test_a_directory_store_needs_no_sdk(tmp_path: Path) -> None:
    code = (
        "from pfstorage.cli.main import main; main(['--type', 'filesystem', '--storeBase', 's', '--action', 'ls'])\n"
        "import sys, json; print(json.dumps(sorted(sys.modules)))"
    )
    loaded = {
        name.partition(".")[0] for name in json.loads(run_python(code, tmp_path).stdout.splitlines()[-1])
    }
    assert not loaded & SDKS


HOME_OF_SDK = {
    "swiftclient": {"backends/swift/sdk.py"},
    "keystoneauth1": {"backends/swift/sdk.py"},
    "requests": {"backends/swift/sdk.py"},
    "urllib3": {"backends/swift/sdk.py"},
    "pfmisc": {"logs/console.py"},
    "pfurl": {"cli/remote.py"},
    "pycurl": {"cli/remote.py"},
    "psutil": {"actions/service.py"},
    "multipart": {"server/endpoints/form.py"},
    "prometheus_client": {"server/endpoints/metrics.py"},
}


@pytest.mark.parametrize("sdk", HOME_OF_SDK)
def test_an_sdk_is_imported_in_one_file(sdk: str) -> None:
    package = ROOT / "pfstorage"
    pattern = re.compile(rf"""^\s*(import|from) {sdk}\b|import_tidily\("{sdk}"\)""", re.MULTILINE)
    found = {
        str(path.relative_to(package)) for path in package.rglob("*.py") if pattern.search(path.read_text())
    }
    assert found == HOME_OF_SDK[sdk]


def test_the_public_names_are_these() -> None:
    assert pfstorage.__all__ == [
        "D",
        "FL2dict",
        "ObjectInfo",
        "PfStorage",
        "PfstorageError",
        "Settings",
        "Storage",
        "StoreHandler",
        "ThreadedHTTPServer",
        "__version__",
        "open_storage",
        "swiftStorage",
    ]
    assert all(getattr(pfstorage, name) is not None for name in pfstorage.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pfstorage.nothing


def test_the_module_path_of_2_x_has_the_same_names() -> None:
    old = importlib.import_module("pfstorage.pfstorage")
    names = ("D", "FL2dict", "PfStorage", "StoreHandler", "ThreadedHTTPServer", "swiftStorage")
    assert all(getattr(old, name) is getattr(pfstorage, name) for name in names)
