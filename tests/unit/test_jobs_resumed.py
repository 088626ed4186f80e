"""Jobs that the next process resumes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pfstorage.access.permissions import Permissions
from pfstorage.errors import StoppedError
from pfstorage.jobs import store
from pfstorage.jobs.model import CANCELLED, JobRequest
from pfstorage.jobs.rows import pack_message
from pfstorage.jobs.scheduler import JobScheduler
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer import Progress
from pfstorage.wire.reply import Reply
from tests.support.jobs import LONG, Worker, job_request


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
