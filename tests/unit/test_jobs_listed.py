"""Lists of jobs."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from pfstorage.jobs import store
from pfstorage.jobs.model import DONE, FAILED, QUEUED, RUNNING
from pfstorage.jobs.rows import pack_message
from tests.support.jobs import Worker, job_request


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
