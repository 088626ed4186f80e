"""The scheduler of jobs: order, end, cancellation, and the next process."""

from __future__ import annotations

import contextlib
import itertools
import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pfstorage.access.permissions import Permissions
from pfstorage.errors import (
    BusyError,
    NotFoundError,
    PfstorageError,
    SettingsError,
    StateFileError,
    StoppedError,
    UnavailableError,
    UnknownJobError,
)
from pfstorage.jobs import database, finished, running, scheduler, store
from pfstorage.jobs.model import CANCELLED, DONE, FAILED, QUEUED, RUNNING, JobLimits, JobRequest
from pfstorage.jobs.rows import pack_message
from pfstorage.jobs.scheduler import JobScheduler
from pfstorage.jobs.stored_reply import pack_reply
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer import Progress
from pfstorage.wire.packed import PackedStrings
from pfstorage.wire.reply import Reply
from pfstorage.wire.status import status_of
from tests.support.jobs import LONG, Worker


def job_request(number: int = 0, **more: Any) -> JobRequest:
    return JobRequest({"action": "objPull", "meta": {"path": str(number)}}, **more)


def set_in(jobs: JobScheduler, pragma: str) -> Any:
    """Change or read a setting of the writing connection."""
    with jobs._store._database._writer.borrow() as rows:
        return rows.execute(f"PRAGMA {pragma}").fetchone()


def test_some_run_at_once_in_the_order_of_arrival(worker: Worker) -> None:
    jobs = JobScheduler(worker, max_running=3)
    jobs.start()
    ids = [jobs.submit(job_request(number)) for number in range(20)]
    for _ in range(3):
        assert worker.is_busy.acquire(timeout=LONG)
    assert jobs.counts() == {"queued": 17, "running": 3, "done": 0, "failed": 0, "cancelled": 0}
    worker.free.set()
    assert {jobs.status(each, LONG).state for each in ids} == {"done"}
    assert worker.most_at_once <= 3
    assert sorted(worker.begun[:3]) == ["0", "1", "2"]
    assert sorted(map(int, worker.begun)) == list(range(20))
    jobs.close(LONG)


def test_single_jobs_run_in_the_order_of_arrival(worker: Worker) -> None:
    jobs = JobScheduler(worker, max_running=1)
    ids = [jobs.submit(job_request(number)) for number in range(20)]
    worker.free.set()
    jobs.start()
    jobs.status(ids[-1], LONG)
    assert worker.begun == [str(number) for number in range(20)]
    jobs.close(LONG)


def test_a_wait_ends_with_the_job_and_reads_the_file_once(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = JobScheduler(worker)
    jobs.start()
    job = jobs.submit(job_request())
    assert worker.is_busy.acquire(timeout=LONG)
    assert jobs.status(job, 0.01).state == "running"
    reads: list[str] = []
    read = jobs._store.read
    monkeypatch.setattr(jobs._store, "read", lambda each: reads.append(each) or read(each))
    found: list[str] = []
    waiter = threading.Thread(target=lambda: found.append(jobs.status(job, LONG).state))
    waiter.start()
    for _ in range(5):
        worker.tell(Progress(1, 0, 0, 1, 1.0))
    worker.free.set()
    waiter.join(LONG)
    assert (found, reads) == (["done"], [job])
    jobs.close(LONG)


def test_a_cancelled_queued_job_never_starts(worker: Worker) -> None:
    jobs = JobScheduler(worker, max_running=1)
    jobs.start()
    first, second = jobs.submit(job_request(1)), jobs.submit(job_request(2))
    assert jobs.cancel(second).state == "cancelled"
    worker.free.set()
    assert jobs.status(first, LONG).state == "done"
    assert jobs.status(second).reply is None
    assert worker.begun == ["1"]
    jobs.close(LONG)


def test_a_cancelled_running_job_keeps_its_reply(worker: Worker) -> None:
    jobs = JobScheduler(worker)
    jobs.start()
    job = jobs.submit(job_request())
    assert worker.is_busy.acquire(timeout=LONG)
    assert jobs.cancel(job).state == "running"
    over = jobs.status(job, LONG)
    assert (over.state, over.reply["bytes"]) == ("cancelled", 5)
    assert jobs.cancel(job).state == "cancelled"
    jobs.close(LONG)


def test_a_finished_job_can_not_be_cancelled(worker: Worker) -> None:
    worker.free.set()
    jobs = JobScheduler(worker)
    jobs.start()
    job = jobs.submit(job_request())
    jobs.status(job, LONG)
    assert jobs.cancel(job).state == "done"
    jobs.close(LONG)


def test_an_unexpected_error_fails_one_job_only(caplog: pytest.LogCaptureFixture) -> None:
    def perform(
        given: JobRequest, cancellation: CancellationToken, progress: Callable[[Progress], None]
    ) -> Reply:
        if given.message["meta"]["path"] == "0":
            raise ZeroDivisionError
        return Reply({"status": True})

    jobs = JobScheduler(perform, max_running=1)
    jobs.start()
    ids = [jobs.submit(job_request(number)) for number in range(2)]
    with caplog.at_level(logging.CRITICAL):
        assert [jobs.status(each, LONG).state for each in ids] == ["failed", "done"]
    reason = "unexpected ZeroDivisionError; the log has the details"
    assert jobs.status(ids[0]).reply["msg"] == reason
    assert [(job.id, job.reason, job.reply) for job in jobs.list(2)] == [
        (ids[1], "", None),
        (ids[0], reason, None),
    ]
    jobs.close(LONG)


def test_the_log_has_the_end_of_a_job_and_no_file_names(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def perform(
        given: JobRequest, cancellation: CancellationToken, progress: Callable[[Progress], None]
    ) -> Reply:
        progress(Progress(2, 1, 0, 3000, 1.0, 3, is_last=True))
        return Reply.from_error(NotFoundError("there is no object 'DOE-JANE/1.dcm'"))

    jobs = JobScheduler(perform)
    jobs.start()
    with caplog.at_level(logging.INFO):
        job = jobs.submit(job_request())
        assert jobs.status(job, LONG).state == "failed"
    assert [record.getMessage() for record in caplog.records] == [
        f"job {job} begins: objPull",
        f"job {job} is failed: 2 files, 3000 bytes, NotFoundError",
    ]
    jobs.close(LONG)


def test_the_next_process_resumes_running_jobs(tmp_path: Path) -> None:
    first = Worker()
    jobs = JobScheduler(first, str(tmp_path), max_running=2)
    jobs.start()
    given = JobRequest(
        {"action": "objPull", "meta": {"path": "x"}}, "ann", Permissions("write", "chris/"), "jid"
    )
    ids = [jobs.submit(given), *(jobs.submit(job_request(number)) for number in range(4))]
    for _ in range(2):
        assert first.is_busy.acquire(timeout=LONG)
    jobs.close(LONG)
    second = Worker()
    second.free.set()
    jobs = JobScheduler(second, str(tmp_path), max_running=1)
    assert {jobs.status(each).state for each in ids} == {"queued"}
    jobs.start()
    assert {jobs.status(each, LONG).state for each in ids} == {"done"}
    assert second.begun == ["x", "0", "1", "2", "3"]
    assert jobs.submit(given) == ids[0]
    jobs.close(LONG)


def test_a_job_that_does_not_end_in_time_is_queued_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun, end = threading.Event(), threading.Event()

    def stubborn(
        given: JobRequest, cancellation: CancellationToken, progress: Callable[[Progress], None]
    ) -> Reply:
        begun.set()
        end.wait(LONG)
        progress(Progress(1, 0, 0, 1, 1.0, is_last=True))
        return Reply({"status": True})

    jobs = JobScheduler(stubborn, str(tmp_path))
    jobs.start()
    job = jobs.submit(job_request())
    assert begun.wait(LONG)
    [thread] = [each for each in threading.enumerate() if each.name == f"job {job}"]
    jobs.close(0)
    end.set()
    thread.join(LONG)
    with pytest.raises(StoppedError):
        jobs.status(job)
    assert [each.message for each in caplog.records if each.levelno >= logging.WARNING] == []
    again = JobScheduler(stubborn, str(tmp_path))
    assert again.status(job).state == "queued"
    again.close(0)


def test_a_wait_for_a_running_job_ends_with_the_process(worker: Worker) -> None:
    jobs = JobScheduler(worker, max_running=1)
    jobs.start()
    job, queued = jobs.submit(job_request(1)), jobs.submit(job_request(2))
    assert worker.is_busy.acquire(timeout=LONG)
    seen: list[str] = []
    events = jobs.events(job)

    def wait() -> None:
        try:
            jobs.status(queued, LONG)
        except StoppedError:
            seen.append("status")

    threads = [
        threading.Thread(target=wait),
        threading.Thread(target=lambda: seen.append(f"{len(list(events))} events")),
    ]
    for each in threads:
        each.start()
    jobs.close(LONG)
    for each in threads:
        each.join(LONG)
    with pytest.raises(StoppedError):
        jobs.submit(job_request(3))
    with pytest.raises(StoppedError):
        jobs.status(job)
    assert len(seen) == 2
    jobs.close(LONG)


def test_a_wait_for_a_queued_job_ends_with_the_process(worker: Worker) -> None:
    jobs = JobScheduler(worker)
    job, waits = jobs.submit(job_request()), threading.Event()

    def wait() -> None:
        waits.set()
        with pytest.raises(StoppedError):
            jobs.status(job, 10 * LONG)

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert waits.wait(LONG)
    waiter.join(0.1)  # the waiter sleeps now
    jobs.close(LONG)
    waiter.join(LONG)
    assert not waiter.is_alive()


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


def test_a_queued_again_job_has_no_start_time(tmp_path: Path) -> None:
    rows = store.JobStore(str(tmp_path))
    job_id, _ = rows.add(job_request(), pack_message(job_request().message), 1.0)
    assert rows.begin(job_id, 2.0)[0].started == 2.0
    rows.close()  # as the death of the process leaves it
    again = store.JobStore(str(tmp_path))
    assert [place.job_id for place in again.resume(3.0)] == [job_id]
    found = again.read(job_id)
    assert found
    assert (found.state, found.started) == ("queued", None)
    again.close()


def test_unfinished_jobs_are_never_removed(worker: Worker) -> None:
    jobs = JobScheduler(worker, ttl=0, max_running=1)
    jobs.start()
    ids = [jobs.submit(job_request(number)) for number in range(3)]
    assert {each.id for each in jobs.list(10)} == set(ids)
    jobs.close(LONG)


def test_a_list_reads_a_finished_job_once(worker: Worker, tmp_path: Path) -> None:
    with contextlib.closing(store.JobStore(str(tmp_path))) as rows:

        def over(number: int) -> str:
            job_id, _ = rows.add(job_request(number), pack_message(job_request(number).message), 1.0)
            rows.finish(job_id, DONE, 3.0, {})
            return job_id

        first, second = over(1), over(2)
        old = rows.latest(9, None)
        assert [(job.id, job.state) for job in old] == [(second, DONE), (first, DONE)]
        third = over(3)
        new, *known = rows.latest(9, None)
        assert (new.id, new.state) == (third, DONE)
        assert [mine is its for mine, its in zip(known, old, strict=True)] == [True, True]
        assert rows.latest(1, None) == [new]
        assert rows.latest(9, "another") == rows.latest(9, None, "chris/") == []


def test_a_list_has_each_job_as_it_is_now(worker: Worker, tmp_path: Path) -> None:
    with contextlib.closing(store.JobStore(str(tmp_path))) as rows:
        message = pack_message(job_request(1).message)
        kept_id, _ = rows.add(job_request(1), message, 1.0)
        seen = [rows.latest(9, None)[0].state]
        rows.begin(kept_id, 2.0)
        seen.append(rows.latest(9, None)[0].state)
        rows.finish(kept_id, FAILED, 3.0, {}, reason="it is so")
        seen.append(rows.latest(9, None)[0].state)
        assert seen == [QUEUED, RUNNING, FAILED]
        assert rows.remove_finished(9.0, 9, 10**6, 10**6) == 1
        assert rows.latest(9, None) == []
        again, _ = rows.add(job_request(1), message, 4.0)
        assert [(job.id, job.state) for job in rows.latest(9, None)] == [(again, QUEUED)]


def test_a_list_may_be_longer_than_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_LISTED", 3)
    with contextlib.closing(store.JobStore(str(tmp_path))) as rows:
        ids = [rows.add(job_request(number), pack_message({}), float(number))[0] for number in range(20)]
        for job_id in ids:
            rows.finish(job_id, DONE, 3.0, {})
        for limit in (2, 9, 20, 1, 20):
            assert [job.id for job in rows.latest(limit, None)] == ids[::-1][:limit]
        rows.latest(3, None)
        assert len(rows._list_cache) <= 20


def test_the_number_of_finished_jobs_is_bounded(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "SWEEP_INTERVAL", 0)
    worker.free.set()
    jobs = JobScheduler(worker, max_running=1, max_finished=3)
    jobs.start()
    ids = [jobs.submit(job_request(number)) for number in range(6)]
    jobs.status(ids[-1], LONG)
    assert [each.id for each in jobs.list(10)] == ids[:2:-1]
    jobs.close(LONG)


def test_the_number_of_queued_jobs_is_bounded(worker: Worker) -> None:
    jobs = JobScheduler(worker, max_queued=2)
    jobs.submit(job_request(1, jid="a"))
    jobs.submit(job_request(2))
    with pytest.raises(BusyError):
        jobs.submit(job_request(3))
    jobs.close(LONG)


def test_the_number_of_queued_jobs_of_one_owner_is_bounded(worker: Worker) -> None:
    jobs = JobScheduler(worker, max_running=1, max_queued_per_owner=3)
    first = [jobs.submit(job_request(number, owner="a")) for number in range(3)]
    with pytest.raises(BusyError, match="3 of your jobs"):
        jobs.submit(job_request(3, owner="a"))
    jobs.submit(job_request(4, owner="b"))
    jobs.submit(job_request(5, owner="b"))
    jobs.start()
    assert worker.is_busy.acquire(timeout=LONG)
    jobs._limits = JobLimits(max_running=2)  # one more job begins, of an owner without a running job
    jobs.submit(job_request(6, owner="a"))
    assert worker.is_busy.acquire(timeout=LONG)
    assert worker.begun == ["0", "4"]
    worker.free.set()
    assert jobs.status(first[-1], LONG).state == DONE
    jobs.close(LONG)


def test_a_job_waits_until_the_file_is_writable(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scheduler, "FIRST_RETRY_PAUSE", 0.02)
    jobs = JobScheduler(worker, str(tmp_path / "state"), max_running=1)
    set_in(jobs, "busy_timeout = 20")
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


@pytest.mark.parametrize("grace", [0.1, LONG])
def test_a_cancelled_job_stays_cancelled_in_the_next_process(tmp_path: Path, grace: float) -> None:
    begun, end = threading.Event(), threading.Event()

    def perform(
        given: JobRequest, cancellation: CancellationToken, progress: Callable[[Progress], None]
    ) -> Reply:
        begun.set()
        while not (end.is_set() or (grace == LONG and cancellation.is_cancelled)):
            time.sleep(0.01)
        return Reply({"status": False, "msg": "stopped"})

    jobs = JobScheduler(perform, str(tmp_path / "state"))
    jobs.start()
    job = jobs.submit(job_request())
    assert begun.wait(LONG)
    jobs.cancel(job)
    jobs.close(grace)
    begun.clear()
    again = JobScheduler(perform, str(tmp_path / "state"))
    again.start()
    assert again.status(job).state == CANCELLED
    assert not begun.wait(0.2)
    end.set()
    again.close(LONG)


def test_a_wait_for_a_queued_job_ends_with_its_cancellation(worker: Worker) -> None:
    jobs = JobScheduler(worker, max_running=1)
    jobs.start()
    _, second = jobs.submit(job_request(1)), jobs.submit(job_request(2))
    found: list[str] = []
    waiter = threading.Thread(target=lambda: found.append(jobs.status(second, LONG).state))
    waiter.start()
    time.sleep(0.1)
    jobs.cancel(second)
    waiter.join(LONG / 2)
    assert found == [CANCELLED]
    worker.free.set()
    jobs.close(LONG)


def test_a_job_that_overwrites_always_does_not_wait_for_its_store() -> None:
    perform = Interrupted(3)
    jobs = JobScheduler(perform)
    jobs.start()
    meta = {"path": "a", "overwrite": "always"}
    job = jobs.submit(JobRequest({"action": "objPull", "meta": meta}))
    assert (jobs.status(job, LONG).state, perform.count) == ("failed", 1)
    jobs.close(LONG)


def test_a_full_queue_still_finds_a_known_jid(worker: Worker) -> None:
    jobs = JobScheduler(worker, max_queued_per_owner=2)
    job = jobs.submit(job_request(1, jid="a"))
    jobs.submit(job_request(2))
    assert jobs.submit(job_request(1, jid="a")) == job
    with pytest.raises(BusyError):
        jobs.submit(job_request(3))
    jobs.close(0)
    for ask in (lambda: jobs.list(10), lambda: jobs.find("a", ""), jobs.counts, lambda: jobs.cancel(job)):
        with pytest.raises(StoppedError):
            ask()


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
        assert set_in(jobs, "busy_timeout") == (1000,)
    worker.free.set()
    jobs.close(LONG)


def test_a_read_only_file_is_reported_at_the_start(worker: Worker, tmp_path: Path) -> None:
    jobs = JobScheduler(worker, str(tmp_path / "state"))
    set_in(jobs, "busy_timeout = 20")
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


def test_events_have_each_state_and_end_with_the_reply(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "PROGRESS_INTERVAL", 0)
    jobs = JobScheduler(worker)
    job = jobs.submit(job_request())
    events = jobs.events(job)
    assert next(events)["state"] == "queued"
    jobs.start()
    event = next(events)
    while event["state"] == "queued":  # it is taken before it has begun
        event = next(events)
    assert (event["state"], event["progress"]["files"]) == ("running", 0)
    assert worker.is_busy.acquire(timeout=LONG)
    worker.tell(Progress(3, 1, 2, 500, 2.0))
    event = next(events)
    assert event["progress"] == {
        "files": 3, "bytes": 500, "failed": 1, "skipped": 2, "total": None, "seconds": 2.0, "bytesPerSecond": 250
    }  # fmt: skip
    worker.free.set()
    [last] = events
    assert (last["state"], last["reply"]) == ("done", {"status": True, "bytes": 10})
    assert [each["state"] for each in jobs.events(job)] == ["done"]
    with pytest.raises(UnknownJobError):
        jobs.events("none")
    jobs.close(LONG)


def test_the_progress_is_published_once_a_second(worker: Worker) -> None:
    jobs = JobScheduler(worker)
    jobs.start()
    job = jobs.submit(job_request())
    assert worker.is_busy.acquire(timeout=LONG)
    written: list[Any] = []
    note = jobs._store.note_progress
    jobs._store.note_progress = lambda *given: written.append(given) or note(*given)  # type: ignore[method-assign]
    for number in range(100):
        worker.tell(Progress(number, 0, 0, number, 1.0))
    assert len(written) <= 2
    assert jobs.status(job).progress["files"] == 99
    assert jobs.list(1)[0].progress["files"] == 99
    jobs.close(LONG)


def test_an_event_is_repeated_without_a_change(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "HEARTBEAT", 0.01)
    jobs = JobScheduler(worker)
    events = jobs.events(jobs.submit(job_request()))
    assert [next(events)["state"] for _ in range(3)] == ["queued"] * 3
    jobs.close(LONG)


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
    set_in(jobs, "query_only = ON")
    worker.free.set()
    with caplog.at_level(logging.CRITICAL):
        over = jobs.status(job, LONG)
    assert (over.state, over.reply) == ("done", {"status": True, "bytes": 10})
    assert [(each.id, each.state) for each in jobs.list(10)] == [(job, "done")]
    assert {state: count for state, count in jobs.counts().items() if count} == {"done": 1}
    with pytest.raises(PfstorageError, match="the jobs can't be read or written"):
        jobs.submit(job_request(2))
    jobs.close(LONG)
    again = JobScheduler(worker, str(tmp_path))
    again.start()
    assert again.status(job, LONG).state == "done"
    assert worker.begun == ["0", "0"]
    again.close(LONG)


def test_a_long_reply_is_stored_without_its_long_lists() -> None:
    names = PackedStrings(f"chris/uploads/DICOM/{number:09}.dcm" for number in range(5000))
    failed = [{"object": "a", "local": "b", "msg": "c"}]
    body = {"status": False, "localFileList": names, "objectFileList": names, "failed": failed, "bytes": 7}
    whole = Reply({**body, "audit": {"status": False, "changed": list(names)}})
    assert pack_reply(whole).text == whole.to_json()
    summary = pack_reply(whole, 100_000)
    assert summary == {
        "status": False, "failed": failed, "bytes": 7, "audit": {"status": False}, "files": 5000, "reply": "summary"
    }  # fmt: skip
    assert "failed" not in pack_reply(whole, 180)


class Interrupted:
    """Performs job requests, the first *times* without a store. Each time, it moves *files* more, of *size* bytes."""

    def __init__(self, times: int, files: int = 0, size: int = 0) -> None:
        self.left = times
        self.count = 0
        self._files = files
        self._size = size

    def __call__(
        self, given: JobRequest, cancellation: CancellationToken, progress: Callable[[Progress], None]
    ) -> Reply:
        self.count += 1
        progress(Progress(self.count, 0, self.count - self._files, self._size, 1.0, is_last=True))
        self.left -= 1
        if self.left >= 0:
            return Reply.from_error(UnavailableError("the store does not answer"))
        return Reply({"status": True})


def test_a_job_continues_when_its_store_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "FIRST_RETRY_PAUSE", 0.01)
    perform = Interrupted(3)
    jobs = JobScheduler(perform)
    jobs.start()
    done = jobs.status(jobs.submit(job_request()), LONG)
    assert (done.state, perform.count) == ("done", 4)
    assert (done.progress["files"], done.progress.get("waiting")) == (4, None)
    jobs.close(LONG)


def test_the_log_reports_a_wait_for_the_store_without_file_names(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(running, "FIRST_RETRY_PAUSE", 0.01)
    replies = [UnavailableError("the store answered 503 about 'DOE-JANE/1.dcm'"), None]
    jobs = JobScheduler(
        lambda *_: Reply.from_error(error) if (error := replies.pop(0)) else Reply({"status": True})
    )
    jobs.start()
    with caplog.at_level(logging.INFO):
        job = jobs.submit(job_request())
        assert jobs.status(job, LONG).state == "done"
    assert [record.getMessage() for record in caplog.records] == [
        f"job {job} begins: objPull",
        f"job {job} waits for its store",
        f"job {job} is done: 0 files, 0 bytes",
    ]
    jobs.close(LONG)


def test_the_pauses_of_a_waiting_job_grow_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(CancellationToken, "sleep", lambda _, seconds: pauses.append(seconds))
    jobs = JobScheduler(Interrupted(8))
    jobs.start()
    assert jobs.status(jobs.submit(job_request()), LONG).state == "done"
    assert pauses == [2, 4, 8, 16, 30, 30, 30, 30]
    jobs.close(LONG)


def test_a_job_that_waits_for_its_store_can_be_cancelled() -> None:
    jobs = JobScheduler(Interrupted(10**6))
    jobs.start()
    job = jobs.submit(job_request())
    seen = next(each for each in jobs.events(job) if "waiting" in each["progress"])
    assert (seen["state"], seen["progress"]["waiting"]) == ("running", "the store does not answer")
    jobs.cancel(job)
    assert jobs.status(job, LONG).state == "cancelled"
    jobs.close(LONG)


def test_a_job_that_waits_for_its_store_keeps_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "FIRST_RETRY_PAUSE", 0.01)
    tries: list[int] = []

    def perform(
        given: JobRequest, cancellation: CancellationToken, progress: Callable[[Progress], None]
    ) -> Reply:
        tries.append(1)
        if len(tries) == 1:
            progress(Progress(40, 0, 0, 6000, 1.0, total=1408))
            progress(Progress(41, 0, 0, 6100, 1.0, total=1408, is_last=True))
        elif len(tries) < 5:
            progress(Progress(0, 0, 0, 0, 0.0, is_last=True))
        else:
            while not cancellation.is_cancelled:
                time.sleep(0.01)
            return Reply({"status": False, "msg": "stopped"})
        return Reply.from_error(UnavailableError("the store does not answer"))

    jobs = JobScheduler(perform)
    jobs.start()
    job = jobs.submit(job_request())
    while len(tries) < 5:
        time.sleep(0.01)
    seen = jobs.status(job).progress
    assert (seen["files"], seen["bytes"], seen["total"]) == (41, 6100, 1408)
    assert seen["waiting"] == "the store does not answer"
    jobs.cancel(job)
    jobs.close(LONG)


def test_a_job_that_waits_for_its_store_is_queued_again(tmp_path: Path) -> None:
    jobs = JobScheduler(Interrupted(10**6), str(tmp_path / "state"))
    jobs.start()
    job = jobs.submit(job_request())
    next(each for each in jobs.events(job) if "waiting" in each["progress"])
    jobs.close(LONG)
    after = JobScheduler(Interrupted(0), str(tmp_path / "state"))
    assert after.status(job).state == "queued"
    after.start()
    assert after.status(job, LONG).state == "done"
    after.close(LONG)


def test_a_long_outage_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "STORE_TIMEOUT", 0.05)
    monkeypatch.setattr(running, "FIRST_RETRY_PAUSE", 0.02)
    jobs = JobScheduler(Interrupted(10**6))
    jobs.start()
    failed = jobs.status(jobs.submit(job_request()), LONG)
    assert failed.state == "failed"
    assert failed.reply is not None
    assert failed.reply["error"] == {"type": "UnavailableError"}
    jobs.close(LONG)


def test_a_job_without_further_progress_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "STORE_TIMEOUT", 0.05)
    monkeypatch.setattr(running, "FIRST_RETRY_PAUSE", 0.02)
    first = Interrupted(1, files=1)

    def perform(
        given: JobRequest, cancellation: CancellationToken, progress: Callable[[Progress], None]
    ) -> Reply:
        if first.left > 0:
            return first(given, cancellation, progress)
        return Reply.from_error(UnavailableError("the store does not answer"))  # not even a listing

    jobs = JobScheduler(perform)
    jobs.start()
    assert jobs.status(jobs.submit(job_request()), LONG).state == "failed"
    jobs.close(LONG)


def test_a_job_fails_if_no_file_is_complete_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(running, "PARTIAL_PROGRESS_TIMEOUT", 0.05)
    monkeypatch.setattr(running, "FIRST_RETRY_PAUSE", 0.02)
    jobs = JobScheduler(Interrupted(10**6, files=0, size=1))
    jobs.start()
    assert jobs.status(jobs.submit(job_request()), LONG).state == "failed"
    jobs.close(LONG)


@pytest.mark.parametrize(("files", "size"), [(1, 0), (0, 1)], ids=["empty files", "parts of a file"])
def test_a_job_with_progress_each_time_continues(
    monkeypatch: pytest.MonkeyPatch, files: int, size: int
) -> None:
    monkeypatch.setattr(running, "STORE_TIMEOUT", 0.05)
    monkeypatch.setattr(running, "FIRST_RETRY_PAUSE", 0.02)
    jobs = JobScheduler(Interrupted(10, files, size))
    jobs.start()
    assert jobs.status(jobs.submit(job_request()), LONG).state == "done"
    jobs.close(LONG)
