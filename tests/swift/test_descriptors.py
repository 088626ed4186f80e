"""The limit of open files bounds the concurrency, also a fixed one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pfstorage.devswift import DevSwift
from pfstorage.transfer.concurrency import (
    AUTO_MAX,
    AUTO_START,
    RESERVED_DESCRIPTORS,
    AdaptiveConcurrency,
    free_descriptors,
    max_workers,
)
from tests.conftest import ROOT, read_tree, swift_options, write_tree
from tests.support.exchange import answered, server_process

LIMIT = 128
FILES = {f"{number % 40:02}/{number:03}": bytes([number]) * 70_000 for number in range(80)}
PUT = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data", "audit": True}
PULL = {"fromLocation": "s", "mapLocationOver": "out", "audit": True}
WAYS = {
    "plain": (),
    "segments and ranges": ("--segmentSize", "64K", "--rangeSize", "64K"),
    "batches": ("--durable", "batch"),
}

LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))"


def limited(*command: str, limit: int = LIMIT) -> tuple[str, ...]:
    """Return *command* with that limit of open files, which it can't raise."""
    return ("bash", "-c", f'ulimit -n {limit}; exec "$@"', "bash", *command)


def run(*flags: str, **meta: Any) -> dict[str, Any]:
    command = limited(sys.executable, "-m", "pfstorage", *flags, "--args", json.dumps(meta))
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environ, timeout=120)
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("backend", ["swift", "filesystem"])
@pytest.mark.parametrize("workers", [256, "auto"])
def test_too_many_workers_for_the_descriptors_fail_no_file(
    backend: str, way: tuple[str, ...], workers: str, tmp_path: Path, swift: DevSwift
) -> None:
    write_tree(tmp_path / "data", FILES)
    container = swift_options(swift)["container_name"]
    store = {
        "swift": ("--swiftAuthUrl", swift.auth_url, "--swiftContainer", container),
        "filesystem": ("--type", "filesystem", "--storeBase", "store"),
    }[backend]
    flags = (*store, "--workers", str(workers), *way, "-v", "0")
    for action, meta in (("objPut", PUT), ("objPull", PULL)):
        reply = run(*flags, "--action", action, **meta)
        assert (reply["status"], reply["failed"], reply["skipped"]) == (True, [], 0), reply
        reported = [text for text in reply.get("warnings", []) if "ulimit -n" in text]
        assert len(reported) == (workers != "auto")
        assert all("files are moved at once, not 256" in text for text in reported)
    assert read_tree(tmp_path / "out") == FILES


def test_enough_descriptors_cause_no_warning(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", {"a": b"x"})
    reply = run("--type", "memory", "--workers", "4", "--action", "objPut", **PUT)
    assert (reply["status"], "warnings" in reply) == (True, False)


def test_open_descriptors_count() -> None:
    before = free_descriptors()
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
    try:
        assert free_descriptors() == before - 10
    finally:
        for descriptor in held:
            os.close(descriptor)
    assert max_workers(0) == max_workers(-RESERVED_DESCRIPTORS) == 1


def test_the_descriptors_bound_the_concurrency() -> None:
    assert (AdaptiveConcurrency(200, maximum=5).allowed, AdaptiveConcurrency(3, maximum=5).allowed) == (
        3 + 2,
        3,
    )
    assert (AdaptiveConcurrency(maximum=5).allowed, AdaptiveConcurrency(maximum=5).maximum) == (5, 5)
    assert (AdaptiveConcurrency(maximum=500).allowed, AdaptiveConcurrency(maximum=500).maximum) == (
        AUTO_START,
        AUTO_MAX,
    )


def test_a_server_keeps_descriptors_for_its_connections(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", FILES)
    program = f"{LIMITED}; import runpy; runpy.run_module('pfstorage', run_name='__main__')"
    flags = ("--type", "filesystem", "--storeBase", "store", "--forever", "--workers", "256")
    bounds = ("--maxWorkers", "200", "--maxConnections", "100")
    with server_process(tmp_path, *flags, *bounds, program=("-c", program)) as served:
        jobs = [
            answered(served.port, "objPush", **{**PUT, "inLocation": f"s{number}", "async": True})[1]["job"]
            for number in range(4)
        ]
        for job in jobs:
            over = answered(served.port, "jobStatus", job=job, wait=60)[1]
            assert (over["state"], over["reply"]["failed"]) == ("done", []), over
        served.process.terminate()
        status, _ = served.ends()
    assert status == 0


def test_a_server_says_that_it_has_fewer_workers(tmp_path: Path) -> None:
    program = f"{LIMITED}; import sys; from pfstorage.cli.main import main; sys.exit(main())"
    flags = ["--server", "--type", "memory", "--portSelf", "0", "--maxWorkers", "200", "--tokenPath", "none"]
    done = subprocess.run(
        [sys.executable, "-c", program, *flags, "--enableTokenAuth"], capture_output=True, text=True
    )
    assert " files are moved at once, not 200 (--maxWorkers): the limit of open files allows no more" in (
        done.stderr
    )
