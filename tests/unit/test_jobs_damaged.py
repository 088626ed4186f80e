"""A file of jobs in which something is wrong: in one row, in the file, at the start or while the server runs."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage.access.permissions import Permissions
from pfstorage.errors import JobConflictError, SettingsError, StateFileError
from pfstorage.jobs.model import JobRequest
from pfstorage.jobs.scheduler import JobScheduler
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer import Progress
from pfstorage.wire.reply import Reply
from tests.conftest import Command
from tests.support.exchange import answered, server_process
from tests.support.old_jobs import old_schema
from tests.support.waiting import LONG

ADMIN = '{"level": "admin", "prefix": ""}'
STORE = ("--type", "filesystem", "--storeBase", "store", "--forever", "--stateDir", "state")


def order(number: int = 0, **more: Any) -> JobRequest:
    return JobRequest({"action": "objPull", "meta": {"path": str(number)}}, **more)


def perform(
    given: JobRequest, cancellation: CancellationToken, progress: Callable[[Progress], None]
) -> Reply:
    return Reply({"status": True, "path": given.message["meta"]["path"]})


@contextlib.contextmanager
def working(state: Path, **options: Any) -> Iterator[JobScheduler]:
    jobs = JobScheduler(perform, str(state), **options)
    try:
        jobs.start()
        yield jobs
    finally:
        jobs.close(LONG)


def queued(state: Path, count: int, **more: Any) -> list[str]:
    """Leave so many queued jobs, as a process that has ended does; return their ids."""
    jobs = JobScheduler(perform, str(state))
    ids = [jobs.submit(order(number, **more)) for number in range(count)]
    jobs.close(LONG)
    return ids


@contextlib.contextmanager
def rows_of(state: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(state / "jobs.sqlite")) as rows, rows:
        yield rows


DAMAGES = {
    "message = '{'": "message",
    "message = '[]'": "message",
    "message = 'null'": "message",
    "message = NULL": "message",
    "message = 7": "message",
    "message = x'78'": "message",
    "message = zeroblob(1000)": "message",
    "message = zeroblob(30000000)": "message",
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
def test_a_row_that_can_not_be_read_is_a_failed_job_and_holds_up_no_other(
    tmp_path: Path, damage: str
) -> None:
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
def test_a_reply_that_can_not_be_read_fails_its_job_alone(tmp_path: Path, damage: str) -> None:
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


def test_four_damaged_jobs_hold_no_place(tmp_path: Path) -> None:
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


def test_a_damaged_job_is_seen_by_its_owner_and_not_by_who_may_touch_fewer_keys(tmp_path: Path) -> None:
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
            jobs.submit(order(owner="ann", jid="1"))


def test_a_job_of_a_damaged_owner_is_nobodys(tmp_path: Path) -> None:
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
def test_the_file_of_an_older_version_is_brought_to_the_present_form(
    tmp_path: Path, version: int, damage: str
) -> None:
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
        assert jobs.submit(order(owner="ann", jid="over")) == "over"
    with working(tmp_path / "state", ttl=1e10) as jobs:
        assert jobs.status("over").reply == {"status": True, "files": 3}


def flipped(content: bytes, seed: int) -> bytes:
    """Return *content* with 50 bytes changed, some of which SQLite looks at first."""
    chosen, changed = random.Random(seed), bytearray(content)
    for place in (*range(100, 110), *chosen.sample(range(len(content)), 40)):
        changed[place] ^= 1 << chosen.randrange(8)
    return bytes(changed)


RUINS: dict[str, Callable[[bytes], bytes]] = {
    "flipped bytes": lambda content: flipped(content, 1),
    "other flipped bytes": lambda content: flipped(content, 2),
    "cut": lambda content: content[:5000],
    "no database": lambda content: b"not a database " * 1000,
    "zeros": lambda content: bytes(len(content)),
    "another version": lambda content: content[:60] + b"\0\0\0\x63" + content[64:],
    "no table": lambda content: content.replace(b"CREATE TABLE", b"CREATE TABLX"),
}


def ruined(state: Path, ruin: str) -> bytes:
    queued(state, 30)
    path = state / "jobs.sqlite"
    path.write_bytes(RUINS[ruin](path.read_bytes()))
    return path.read_bytes()


@pytest.mark.parametrize("ruin", RUINS)
def test_a_file_that_can_not_be_read_is_refused_and_kept(tmp_path: Path, ruin: str) -> None:
    content = ruined(tmp_path / "state", ruin)
    for _ in range(2):
        with pytest.raises(SettingsError, match=r"jobs\.sqlite.*--repairState") as raised:
            JobScheduler(perform, str(tmp_path / "state"))
        assert "\n" not in str(raised.value)
    assert (tmp_path / "state" / "jobs.sqlite").read_bytes() == content


@pytest.mark.parametrize("ruin", RUINS)
def test_it_is_kept_aside_and_the_jobs_begin_anew_where_that_is_wanted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ruin: str
) -> None:
    content = ruined(tmp_path / "state", ruin)
    with working(tmp_path / "state", repairs=True) as jobs:
        [aside] = (tmp_path / "state").glob("jobs.damaged-*.sqlite")
        assert aside.read_bytes() == content
        assert aside.stat().st_mode & 0o777 == 0o600
        assert str(aside) in caplog.text
        assert jobs.list(10) == []
        job = jobs.submit(order())
        assert jobs.status(job, LONG).state == "done"
    with working(tmp_path / "state", repairs=True) as jobs:  # which has nothing to repair now
        assert [each.id for each in jobs.list(10)] == [job]
    assert list((tmp_path / "state").glob("jobs.damaged-*.sqlite")) == [aside]


def test_a_damaged_file_ends_the_server_with_one_line_and_the_status_that_systemd_does_not_try_again(
    tmp_path: Path, command: Command
) -> None:
    ruined(tmp_path / "state", "flipped bytes")
    done = command("--server", "--portSelf", "0", *STORE)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "--repairState" in done.stderr
    with server_process(tmp_path, *STORE, "--repairState") as served:
        assert answered(served.port, "jobList") == (200, {"status": True, "jobs": []})
    assert len(list((tmp_path / "state").glob("jobs.damaged-*"))) >= 1


def test_a_file_that_turns_bad_while_the_server_runs_is_told_with_503(tmp_path: Path) -> None:
    with server_process(tmp_path, *STORE) as served:
        _, begun = answered(served.port, "objPut", putSpec="nothing", **{"async": True})
        assert answered(served.port, "jobStatus", job=begun["job"], wait=30)[1]["state"] == "failed"
        with rows_of(tmp_path / "state") as other:
            other.execute("SELECT * FROM job").fetchall()
            assert other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
            path = tmp_path / "state" / "jobs.sqlite"
            descriptor = os.open(path, os.O_WRONLY)
            os.pwrite(descriptor, b"\xff" * (path.stat().st_size - 4096), 4096)
            os.close(descriptor)
            other.execute("PRAGMA user_version = 3")  # the others have to read again what they know
        for action, meta in (
            ("jobList", {}),
            ("jobStatus", {"job": begun["job"]}),
            ("objPut", {"putSpec": "nothing", "async": True}),
            ("jobCancel", {"job": begun["job"]}),
        ):
            status, reply = answered(served.port, action, **meta)
            assert (status, reply["error"]["type"]) == (503, "StateFileError"), reply
            assert "the jobs can't be read or written" in reply["msg"]
        assert answered(served.port, "hello")[0] == 200


@pytest.mark.parametrize("size", [0, 4096, 8192])
def test_a_file_that_is_cut_while_the_server_runs_takes_no_more_jobs(tmp_path: Path, size: int) -> None:
    with working(tmp_path / "state") as jobs:
        assert jobs.status(jobs.submit(order()), LONG).state == "done"
        assert jobs._store.truncate_log()
        jobs.submit(order())
        os.truncate(tmp_path / "state" / "jobs.sqlite", size)
        with pytest.raises(StateFileError, match="was cut while the server used it"):
            jobs.submit(order())


def test_a_file_that_is_only_busy_is_not_kept_aside(tmp_path: Path) -> None:
    queued(tmp_path / "state", 1)
    first = JobScheduler(perform, str(tmp_path / "state"))
    with pytest.raises(StateFileError, match="another pfstorage"):
        JobScheduler(perform, str(tmp_path / "state"), repairs=True)
    first.close(LONG)
    assert [path.name for path in (tmp_path / "state").glob("*.sqlite")] == ["jobs.sqlite"]
