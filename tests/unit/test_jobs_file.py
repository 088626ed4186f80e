"""The file of jobs: other programs that use it, and its loss."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from pfstorage.errors import PfstorageError, SettingsError, StateFileError
from pfstorage.jobs import database, scheduler, store
from pfstorage.jobs.model import CANCELLED, DONE
from pfstorage.jobs.scheduler import JobScheduler
from pfstorage.transfer import Progress
from pfstorage.wire.status import status_of
from tests.support.jobs import LONG, Worker, job_request, set_pragma


def test_a_job_waits_until_the_file_is_writable(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scheduler, "FIRST_RETRY_PAUSE", 0.02)
    jobs = JobScheduler(worker, str(tmp_path / "state"), max_running=1)
    set_pragma(jobs, "busy_timeout = 20")
    jobs.start()
    first, second, third = [jobs.submit(job_request(number)) for number in range(3)]
    assert worker.is_busy.acquire(timeout=LONG)
    with contextlib.closing(
        sqlite3.connect(tmp_path / "state" / "jobs.sqlite", isolation_level=None)
    ) as other:
        other.execute("BEGIN IMMEDIATE")  # nothing can be written meanwhile
        worker.free.set()
        while second not in jobs._running:
            time.sleep(0.01)
        time.sleep(0.2)
        with pytest.raises(StateFileError) as raised:
            jobs.cancel(second)
        assert status_of(raised.value) == 503
        other.execute("ROLLBACK")
    assert jobs.status(second, LONG).state == CANCELLED
    assert jobs.status(third, LONG).state == DONE
    assert jobs.status(first).state == DONE
    assert jobs._finished.unsaved == {}
    assert jobs.counts() == {"queued": 0, "running": 0, "done": 2, "failed": 0, "cancelled": 1}
    jobs.close(LONG)
    with contextlib.closing(store.JobStore(str(tmp_path / "state"))) as kept_jobs:
        assert [job.state for job in kept_jobs.latest(3, None)] == [DONE, CANCELLED, DONE]


def test_a_job_damaged_by_another_program_has_failed(worker: Worker, tmp_path: Path) -> None:
    jobs = JobScheduler(worker, str(tmp_path / "state"))
    job = jobs.submit(job_request())
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "jobs.sqlite")) as other, other:
        other.execute("UPDATE job SET message = '{'")
    for found in (jobs.status(job), *jobs.list(10)):
        assert (found.id, found.state, found.reply) == (job, "failed", None)
        assert "damaged: its message can't be read" in found.reason
    jobs.start()
    assert jobs.status(job, LONG).state == "failed"
    assert worker.begun == []
    jobs.close(LONG)


def test_jobs_are_readable_while_another_program_writes(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "BUSY_MILLISECONDS", 1000)
    jobs = JobScheduler(worker, str(tmp_path / "state"), ttl=0.0)
    jobs.start()
    job = jobs.submit(job_request(jid="mine"))
    assert worker.is_busy.acquire(timeout=LONG)
    file = tmp_path / "state" / "jobs.sqlite"
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        for _ in range(30):
            assert (
                jobs.status(job).state == "running"
            )  # the removal of finished jobs can wait, their age limit is 0
            assert [each.id for each in jobs.list(10)] == [jobs.find("mine", "")] == [job]
            assert jobs.counts()["running"] == 1
            with pytest.raises(StateFileError, match="locked"):
                jobs.submit(job_request(1))
            worker.tell(Progress(1, 0, 0, 1, 1.0))
        assert time.monotonic() - started < 20
        assert "can't be removed yet" in caplog.text
        other.execute("ROLLBACK")
        jobs.submit(job_request(1))
        assert set_pragma(jobs, "busy_timeout") == (1000,)
    worker.free.set()
    jobs.close(LONG)


def test_a_read_only_file_is_reported_at_the_start(worker: Worker, tmp_path: Path) -> None:
    jobs = JobScheduler(worker, str(tmp_path / "state"))
    set_pragma(jobs, "busy_timeout = 20")
    with contextlib.closing(
        sqlite3.connect(tmp_path / "state" / "jobs.sqlite", isolation_level=None)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateFileError, match="locked"):
            jobs.start()
    jobs.close(LONG)


def test_a_locked_file_may_be_free_at_the_next_start(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_MILLISECONDS", 20)
    directory = tmp_path / "state"
    directory.mkdir(0o700)
    with contextlib.closing(sqlite3.connect(directory / "jobs.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StateFileError, match="locked"):
            JobScheduler(worker, str(directory))
    JobScheduler(worker, str(directory)).close(0)


def test_a_foreign_file_is_refused(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"no database, but something long enough " * 100)
    with pytest.raises(SettingsError, match=r"jobs\.sqlite"):
        JobScheduler(worker, str(tmp_path))


def test_a_file_of_another_version_is_refused(worker: Worker, tmp_path: Path) -> None:
    JobScheduler(worker, str(tmp_path)).close(0)
    rows = sqlite3.connect(tmp_path / "jobs.sqlite")
    rows.execute("PRAGMA user_version = 99")
    rows.close()
    with pytest.raises(SettingsError, match="another version"):
        JobScheduler(worker, str(tmp_path))


def test_an_unsafe_directory_is_refused(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "file").write_text("")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "jobs.sqlite").symlink_to(tmp_path / "file")
    for name in ("open", "file", "linked"):
        with pytest.raises(SettingsError, match=name):
            JobScheduler(worker, str(tmp_path / name))


@pytest.mark.parametrize(
    "way", ["removed", "replaced", "without its lock", "without its log", "with another file"]
)
def test_a_removed_state_directory_takes_no_jobs(worker: Worker, tmp_path: Path, way: str) -> None:
    directory, kept_apart = tmp_path / "state", tmp_path / "apart"
    jobs = JobScheduler(worker, str(directory))
    jobs.start()
    before = jobs.submit(job_request())
    assert worker.is_busy.acquire(timeout=LONG)
    if way == "without its lock":
        (directory / "jobs.lock").unlink()
    elif way == "without its log":
        (directory / "jobs.sqlite-wal").unlink()
    elif way == "with another file":
        shutil.copy(directory / "jobs.sqlite", kept_apart)
        kept_apart.rename(directory / "jobs.sqlite")
    else:
        directory.rename(kept_apart)
    if way == "replaced":
        JobScheduler(worker, str(directory)).close(0)
    with pytest.raises(StateFileError, match="put it back, or restart the server"):
        jobs.submit(job_request(2))
    worker.free.set()
    assert jobs.status(before, LONG).state == "done"
    assert jobs.list(10)[0].state == "done"
    if way == "removed":
        kept_apart.rename(directory)
        assert jobs.status(jobs.submit(job_request(2)), LONG).state == "done"
    jobs.close(LONG)
    if way == "removed":
        with contextlib.closing(store.JobStore(str(directory))) as rows:
            assert [job.state for job in rows.latest(10, None)] == ["done", "done"]


def test_an_unsaved_final_state_is_read_from_memory(
    worker: Worker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = JobScheduler(worker, str(tmp_path))
    jobs.start()
    job = jobs.submit(job_request())
    assert worker.is_busy.acquire(timeout=LONG)
    set_pragma(jobs, "query_only = ON")
    worker.free.set()
    with caplog.at_level(logging.CRITICAL):
        over = jobs.status(job, LONG)
    assert (over.state, over.reply) == ("done", {"status": True, "bytes": 10})
    assert [(each.id, each.state) for each in jobs.list(10)] == [(job, "done")]
    assert {state: count for state, count in jobs.counts().items() if count} == {"done": 1}
    with pytest.raises(
        PfstorageError, match=r"the jobs can't be read or written: .* see the directory of --stateDir"
    ):
        jobs.submit(job_request(2))
    jobs.close(LONG)
    again = JobScheduler(worker, str(tmp_path))
    again.start()
    assert again.status(job, LONG).state == "done"
    assert worker.begun == ["0", "0"]
    again.close(LONG)
