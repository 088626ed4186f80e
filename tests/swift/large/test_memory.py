"""The memory for large objects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from tests.conftest import ROOT
from tests.support.large import KIB, PULL, PUT, container_of

MEASURED = """
import sys
from pfstorage.cli.main import main
status = main(sys.argv[1:])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak.split()[1], file=sys.stderr)
sys.exit(status)
"""


def test_memory_is_bounded_for_a_file_of_any_size(swift: DevSwift, store: Storage, tmp_path: Path) -> None:
    size = 200 * KIB**2
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "large").open("wb") as file:
        file.truncate(size)
    flags = ["--swiftAuthUrl", swift.auth_url, "--swiftContainer", container_of(store), "--verbosity", "0"]
    flags += ["--segmentSize", "24M", "--rangeSize", "24M"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    for action, meta in (("objPut", PUT), ("objPut", PUT), ("objPull", PULL), ("objPull", PULL)):
        command = [sys.executable, "-c", MEASURED, *flags, "--action", action, "--args", json.dumps(meta)]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120)
        assert done.returncode == 0, done
        assert int(done.stderr) < 100_000  # KiB
    assert (tmp_path / "out" / "large").stat().st_size == size
