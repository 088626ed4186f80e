"""A damaged file of jobs, and the server."""

from __future__ import annotations

import os
from pathlib import Path

from tests.conftest import Command
from tests.support.exchange import answered, server_process
from tests.support.jobs import rows_of, ruined

STORE = ("--type", "filesystem", "--storeBase", "store", "--forever", "--stateDir", "state")


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


def test_a_file_that_turns_bad_while_the_server_runs_is_reported_with_503(tmp_path: Path) -> None:
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
            other.execute("PRAGMA user_version = 3")  # other connections must read the schema again
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
