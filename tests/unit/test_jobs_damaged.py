"""Damage of the file of the jobs: in one row or in the whole file, at the start or while the server runs."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage.access.permissions import Permissions
from pfstorage.errors import JobConflictError, SettingsError, StateFileError
from pfstorage.jobs.scheduler import JobScheduler
from tests.support.jobs import RUINS, job_request, perform, queued, rows_of, ruined
from tests.support.old_jobs import old_schema
from tests.support.waiting import LONG

ADMIN = '{"level": "admin", "prefix": ""}'


@contextlib.contextmanager
def working(state: Path, **options: Any) -> Iterator[JobScheduler]:
    jobs = JobScheduler(perform, str(state), **options)
    try:
        jobs.start()
        yield jobs
    finally:
        jobs.close(LONG)


DAMAGES = {
    "message = '{'": "message",
    "message = '[]'": "message",
    "message = 'null'": "message",
    "message = NULL": "message",
    "message = 7": "message",
    "message = x'78'": "message",
    "message = zeroblob(1000)": "message",
    "message = zeroblob(17000000)": "message",
    "message = substr(message, 1, length(message) - 3)": "message",
    """message = '{"action": 5, "meta": {}}'""": "message",
    """message = '{"action": "objPull"}'""": "message",
    "message = replace(hex(zeroblob(50000)), '0', '[')": "message",
    "rights = '{'": "rights",
    "rights = NULL": "rights",
    """rights = '{"level": "god"}'""": "rights",
    """rights = '{"level": "admin", "prefix": 5}'""": "rights",
    "origin = '{'": "origin",
    """origin = '{"store": 5, "roots": []}'""": "origin",
    "origin = NULL": "origin",
    "progress = '['": "progress",
    "progress = replace(hex(zeroblob(100000)), '0', '1')": "progress",
    "created = -5": "created",
    "created = 'yesterday'": "created",
    "created = 1e300": "created",
    "created = NULL": "created",
    "started = 'x'": "started",
    "finished = -1": "finished",
    "owner = NULL": "owner",
    "owner = x'ff'": "owner",
    "owner = CAST(x'ff' AS TEXT)": "",
    "jid = x'00'": "jid",
    "state = 'odd'": "state",
    "state = NULL": "state",
    "state = 7": "state",
    "action = x'07'": "action",
    "id = NULL": "id",
    "id = x'01'": "id",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_row_is_a_failed_job(tmp_path: Path, damage: str) -> None:
    _, bad, last = queued(tmp_path / "state", 3)
    with rows_of(tmp_path / "state") as rows:
        rows.execute(f"UPDATE job SET {damage} WHERE id = ?", (bad,))
    with working(tmp_path / "state", max_running=1) as jobs:
        assert jobs.status(last, LONG).state == "done"
        listed = jobs.list(10)
        states = [job.state for job in listed]
        name = DAMAGES[damage]
        assert states == (["done", "failed", "done"] if name else ["done"] * 3)
        json.dumps([job.as_body() for job in listed])
        if name:
            assert "damaged: its " + name in listed[1].reason
            assert jobs.status(listed[1].id).state == "failed"
        assert sum(jobs.counts().values()) == 3
    with working(tmp_path / "state") as jobs:
        assert [job.as_body() for job in jobs.list(10)] == [job.as_body() for job in listed]


@pytest.mark.parametrize(
    "damage", ["reply = 'x'", "reply = x'789c'", "reply = zeroblob(9000000)", "reply = 5"]
)
def test_a_damaged_reply_fails_its_job_only(tmp_path: Path, damage: str) -> None:
    bad, good = queued(tmp_path / "state", 2)
    with working(tmp_path / "state") as jobs:
        assert [jobs.status(each, LONG).state for each in (bad, good)] == ["done", "done"]
        with rows_of(tmp_path / "state") as rows:
            rows.execute(f"UPDATE job SET {damage} WHERE id = ?", (bad,))
        found = jobs.status(bad)
        assert (found.state, found.reply) == ("failed", None)
        assert "damaged: its reply" in found.reason
        assert jobs.status(good).reply == {"status": True, "path": "1"}
        assert [event["state"] for event in jobs.events(bad)] == ["failed"]


def test_damaged_jobs_use_no_place(tmp_path: Path) -> None:
    *bad, good = queued(tmp_path / "state", 5)
    jobs = JobScheduler(perform, str(tmp_path / "state"), max_running=4)
    with rows_of(tmp_path / "state") as rows:  # while they wait for the start
        rows.execute("UPDATE job SET message = '{' WHERE id <> ?", (good,))
    jobs.start()
    assert jobs.status(good, LONG).state == "done"
    assert [jobs.status(each, LONG).state for each in bad] == ["failed"] * 4
    jobs.close(LONG)
    with working(tmp_path / "state") as jobs:
        assert {jobs.status(each).state for each in bad} == {"failed"}


def test_a_damaged_job_is_hidden_from_tokens_with_a_prefix(tmp_path: Path) -> None:
    [bad] = queued(tmp_path / "state", 1, owner="ann", permissions=Permissions("write", "chris/"), jid="1")
    with rows_of(tmp_path / "state") as rows:
        rows.execute("UPDATE job SET rights = '{'")
    with working(tmp_path / "state") as jobs:
        found = jobs.status(bad)
        assert (found.owner, found.jid, found.action) == ("ann", "1", "objPull")
        assert [job.id for job in jobs.list(10, "ann")] == [bad]
        assert jobs.list(10, "ann", "chris/") == []
        assert jobs.list(10, "bob") == []
        with pytest.raises(JobConflictError, match="take another"):
            jobs.submit(job_request(owner="ann", jid="1"))


def test_a_job_with_a_damaged_owner_belongs_to_no_token(tmp_path: Path) -> None:
    queued(tmp_path / "state", 1, owner="ann")
    with rows_of(tmp_path / "state") as rows:
        rows.execute("UPDATE job SET owner = NULL")
    with working(tmp_path / "state") as jobs:
        [found] = jobs.list(10)
        assert (found.state, "owner" in found.as_body()) == ("failed", False)
        assert jobs.list(10, "") == []
        assert found.owner != ""


def old_rows(state: Path, version: int, damage: str) -> None:
    """Leave a file as an older version made it, with a job that is over, one that failed, and two that wait."""
    state.mkdir(0o700)
    with rows_of(state) as rows:
        rows.executescript(old_schema(version))
        for job_id, job_state, reply in (
            ("over", "done", '{"status": true, "files": 3}'),
            ("failed", "failed", json.dumps({"status": False, "msg": "the disk is full"}, indent=4)),
            ("bad", "queued", None),
            ("good", "running", None),
        ):
            values = {
                "id": job_id,
                "owner": "ann",
                "jid": job_id,
                "rights": ADMIN,
                "message": json.dumps({"action": "objPull", "meta": {"path": "0"}}),
                "state": job_state,
                "created": 1e9,
                "finished": 2e9 if reply else None,
                "reply": reply,
                **({"origin": '{"store": "", "roots": []}'} if version == 2 else {}),
            }
            marks = ", ".join("?" * len(values))
            rows.execute(f"INSERT INTO job ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))
        rows.execute(f"UPDATE job SET {damage} WHERE id = 'bad'")


@pytest.mark.parametrize("damage", ["message = '{'", "rights = ''", "created = 'x'", "progress = x'ff'"])
@pytest.mark.parametrize("version", [1, 2])
def test_the_file_of_an_older_version_is_upgraded(tmp_path: Path, version: int, damage: str) -> None:
    old_rows(tmp_path / "state", version, damage)
    with working(tmp_path / "state", ttl=1e10) as jobs:
        assert jobs.status("over").reply == {"status": True, "files": 3}
        failed = jobs.status("failed")
        assert (failed.reason, failed.reply) == (
            "the disk is full",
            {"status": False, "msg": "the disk is full"},
        )
        assert jobs.status("good", LONG).state == "done"
        assert (jobs.status("bad").state, "damaged" in jobs.status("bad").reason) == ("failed", True)
        assert [job.id for job in jobs.list(10)] == ["good", "bad", "failed", "over"]
        assert jobs.submit(job_request(owner="ann", jid="over")) == "over"
    with working(tmp_path / "state", ttl=1e10) as jobs:
        assert jobs.status("over").reply == {"status": True, "files": 3}


@pytest.mark.parametrize("ruin", RUINS)
def test_a_damaged_file_is_refused_and_not_changed(tmp_path: Path, ruin: str) -> None:
    content = ruined(tmp_path / "state", ruin)
    for _ in range(2):
        with pytest.raises(SettingsError, match=r"jobs\.sqlite.*--repairState") as raised:
            JobScheduler(perform, str(tmp_path / "state"))
        assert "\n" not in str(raised.value)
    assert (tmp_path / "state" / "jobs.sqlite").read_bytes() == content


@pytest.mark.parametrize("ruin", RUINS)
def test_a_repair_renames_the_file_and_makes_a_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ruin: str
) -> None:
    content = ruined(tmp_path / "state", ruin)
    with working(tmp_path / "state", repairs=True) as jobs:
        [aside] = (tmp_path / "state").glob("jobs.damaged-*.sqlite")
        assert aside.read_bytes() == content
        assert aside.stat().st_mode & 0o777 == 0o600
        assert str(aside) in caplog.text
        assert jobs.list(10) == []
        job = jobs.submit(job_request())
        assert jobs.status(job, LONG).state == "done"
    with working(tmp_path / "state", repairs=True) as jobs:  # which has nothing to repair now
        assert [each.id for each in jobs.list(10)] == [job]
    assert list((tmp_path / "state").glob("jobs.damaged-*.sqlite")) == [aside]


@pytest.mark.parametrize("size", [0, 4096, 8192])
def test_a_truncated_file_takes_no_more_jobs(tmp_path: Path, size: int) -> None:
    with working(tmp_path / "state") as jobs:
        assert jobs.status(jobs.submit(job_request()), LONG).state == "done"
        assert jobs._store.truncate_log()
        jobs.submit(job_request())
        os.truncate(tmp_path / "state" / "jobs.sqlite", size)
        with pytest.raises(StateFileError, match="was cut while the server used it"):
            jobs.submit(job_request())


def test_a_busy_file_is_not_renamed(tmp_path: Path) -> None:
    queued(tmp_path / "state", 1)
    first = JobScheduler(perform, str(tmp_path / "state"))
    with pytest.raises(StateFileError, match="another pfstorage"):
        JobScheduler(perform, str(tmp_path / "state"), repairs=True)
    first.close(LONG)
    assert [path.name for path in (tmp_path / "state").glob("*.sqlite")] == ["jobs.sqlite"]
