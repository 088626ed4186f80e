"""The events of jobs, and their progress."""

from __future__ import annotations

from typing import Any

import pytest

from pfstorage.errors import UnknownJobError
from pfstorage.jobs import running, scheduler
from pfstorage.jobs.scheduler import JobScheduler
from pfstorage.transfer import Progress
from tests.support.jobs import LONG, Worker, job_request


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
