"""Jobs that wait for their store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pfstorage.errors import UnavailableError
from pfstorage.jobs import running
from pfstorage.jobs.model import JobRequest
from pfstorage.jobs.scheduler import JobScheduler
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer import Progress
from pfstorage.wire.reply import Reply
from tests.support.jobs import LONG, job_request


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


def test_a_job_that_overwrites_always_does_not_wait_for_its_store() -> None:
    perform = Interrupted(3)
    jobs = JobScheduler(perform)
    jobs.start()
    meta = {"path": "a", "overwrite": "always"}
    job = jobs.submit(JobRequest({"action": "objPull", "meta": meta}))
    assert (jobs.status(job, LONG).state, perform.count) == ("failed", 1)
    jobs.close(LONG)


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
