"""Memory that jobs take, measured in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import ROOT
from tests.support.exchange import answered, server_process


def test_jobs_that_wait_are_not_in_memory(tmp_path: Path) -> None:
    code = """if True:
        import os, random, sys
        from pfstorage.jobs.model import JobRequest
        from pfstorage.jobs.scheduler import JobScheduler

        def resident():
            return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

        def submit(count):
            for number in range(count):
                names = [random.randbytes(50).hex() for _ in range(10000)]
                jobs.submit(JobRequest({"action": "objPull", "meta": {"fileList": names}}))

        jobs = JobScheduler(None)
        submit(3)
        before = resident()
        submit(60)
        print(resident() - before, jobs.counts()["queued"])
        jobs.close(0)
    """
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, timeout=60
    )
    growth, count = map(int, run.stdout.split())
    assert count == 63, run.stderr
    assert growth < 12 * 1024**2  # their messages have 30 MiB, compressed
    assert list(tmp_path.iterdir()) == []


def test_the_threads_of_a_server_share_freed_memory(tmp_path: Path) -> None:
    """An arena of glibc's for some threads shows as 64 MiB of addresses, most of which are not in use yet."""
    store = ("--type", "memory", "--forever")
    with server_process(tmp_path, *store) as served, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: answered(served.port, "hello"), range(32)))
        assert {status for status, _ in answers} == {200}
        lines = Path(f"/proc/{served.process.pid}/maps").read_text().splitlines()
    unused = [line.split()[0].split("-") for line in lines if " ---p " in line]
    sizes = [int(end, 16) - int(start, 16) for start, end in unused]
    assert [size for size in sizes if 48 * 1024**2 < size <= 64 * 1024**2] == []
