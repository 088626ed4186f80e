"""Jobs in several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pfstorage.errors import (
    StateFileError,
)
from pfstorage.jobs.scheduler import JobScheduler
from tests.conftest import ROOT
from tests.support.jobs import LONG, Worker


def test_a_cancelled_job_is_not_resumed_though_the_process_died_before_it_ended(tmp_path: Path) -> None:
    code = """if True:
        import os, sys, threading
        from pfstorage.jobs.model import JobRequest
        from pfstorage.jobs.scheduler import JobScheduler
        begun = threading.Semaphore(0)
        def perform(order, stop, progress):
            begun.release()
            threading.Event().wait()
        jobs = JobScheduler(perform, sys.argv[1])
        jobs.start()
        ids = [jobs.submit(JobRequest({"action": "a", "meta": {"path": each}})) for each in "12"]
        begun.acquire(), begun.acquire()
        jobs.cancel(ids[0])
        print(*ids, flush=True)
        os._exit(9)
    """
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(tmp_path / "state")]
    died = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60)
    cancelled, running = died.stdout.split()
    worker = Worker()
    worker.free.set()
    jobs = JobScheduler(worker, str(tmp_path / "state"))
    jobs.start()
    assert jobs.status(running, LONG).state == "done"
    assert jobs.status(cancelled).state == "cancelled"
    assert worker.begun == ["2"]
    jobs.close(LONG)


def test_two_processes_do_not_share_a_directory(worker: Worker, tmp_path: Path) -> None:
    jobs = JobScheduler(worker, str(tmp_path))
    code = "import sys; from pfstorage.jobs.scheduler import JobScheduler; JobScheduler(None, sys.argv[1])"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    second = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60)
    assert second.stderr.splitlines()[-1].startswith(
        "pfstorage.errors.StateFileError: another pfstorage uses"
    )
    with pytest.raises(StateFileError, match="another pfstorage uses the state directory"):
        JobScheduler(worker, str(tmp_path))
    jobs.close(0)
    JobScheduler(worker, str(tmp_path)).close(0)
