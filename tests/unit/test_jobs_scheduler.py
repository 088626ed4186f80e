"""The scheduler of jobs: their order, end and cancellation."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

from pfstorage.errors import BusyError, NotFoundError, StoppedError
from pfstorage.jobs.model import CANCELLED, DONE, JobLimits, JobRequest
from pfstorage.jobs.scheduler import JobScheduler
from pfstorage.jobs.stored_reply import pack_reply
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer import Progress
from pfstorage.wire.packed import PackedStrings
from pfstorage.wire.reply import Reply
from tests.support.jobs import LONG, Worker, job_request


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
