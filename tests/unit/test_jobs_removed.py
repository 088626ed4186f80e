"""The removal of finished jobs."""

from __future__ import annotations

import contextlib
import itertools
import logging
import sqlite3
import time
from pathlib import Path

import pytest

from pfstorage.errors import UnknownJobError
from pfstorage.jobs import finished
from pfstorage.jobs.model import JobRequest
from pfstorage.jobs.rows import pack_message
from pfstorage.jobs.scheduler import JobScheduler
from tests.support.jobs import LONG, Worker, job_request


def test_finished_jobs_are_removed(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = itertools.count(1000)
    time = [0.0]
    worker.free.set()
    jobs = JobScheduler(worker, ttl=3600, clock=lambda: time[0] + next(now) * 1e-6)
    jobs.start()
    early = jobs.submit(job_request(1))
    jobs.status(early, LONG)
    time[0] = 1800
    late = jobs.submit(job_request(2))
    jobs.status(late, LONG)
    time[0] = 3700
    jobs.submit(job_request(3))
    assert early not in [each.id for each in jobs.list(10)]
    assert "old jobs removed: 1, see --jobTtl" in caplog.messages
    with pytest.raises(UnknownJobError):
        jobs.status(early)
    assert jobs.status(late).state == "done"
    time[0] = 6000
    jobs.submit(job_request(4))
    with pytest.raises(UnknownJobError):
        jobs.status(late)
    jobs.close(LONG)


def test_finished_jobs_are_removed_without_requests(worker: Worker, tmp_path: Path) -> None:
    worker.free.set()
    jobs = JobScheduler(worker, str(tmp_path / "state"), ttl=1.0)
    jobs.start()
    jobs.status(jobs.submit(job_request()), LONG)
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "jobs.sqlite")) as other:

        def count() -> object:
            return other.execute("SELECT count(*) FROM job").fetchone()[0]

        assert count() == 1
        deadline = time.monotonic() + LONG
        while count():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    jobs.close(LONG)


def test_removed_jobs_leave_no_bytes_on_the_disk(worker: Worker, tmp_path: Path) -> None:
    worker.free.set()
    now = [0.0]
    jobs = JobScheduler(worker, str(tmp_path / "state"), ttl=60.0, clock=lambda: now[0])
    jobs.start()
    orders = [
        JobRequest({"action": "objPull", "meta": {"path": f"DOE-JANE/{number}"}}) for number in range(20)
    ]
    for each in orders:
        jobs.status(jobs.submit(each), LONG)

    def kept_bytes() -> bytes:
        return b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())

    texts = [pack_message(each.message).data for each in orders]
    assert all(text in kept_bytes() for text in texts)
    now[0] = 1000.0
    jobs._sweep()
    assert jobs.list(10) == []
    assert not any(text in kept_bytes() for text in texts)
    jobs.close(LONG)


def test_unfinished_jobs_are_never_removed(worker: Worker) -> None:
    jobs = JobScheduler(worker, ttl=0, max_running=1)
    jobs.start()
    ids = [jobs.submit(job_request(number)) for number in range(3)]
    assert {each.id for each in jobs.list(10)} == set(ids)
    jobs.close(LONG)


def test_the_number_of_finished_jobs_is_bounded(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "SWEEP_INTERVAL", 0)
    worker.free.set()
    jobs = JobScheduler(worker, max_running=1, max_finished=3)
    jobs.start()
    ids = [jobs.submit(job_request(number)) for number in range(6)]
    jobs.status(ids[-1], LONG)
    assert [each.id for each in jobs.list(10)] == ids[:2:-1]
    jobs.close(LONG)
