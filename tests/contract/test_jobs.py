"""Jobs over every backend."""

from __future__ import annotations

from pathlib import Path

from pfstorage.backends import Storage
from tests.conftest import read_tree, write_tree
from tests.support.jobs import FILES, PULL, PUT, job_client_of


def test_a_job_gives_the_reply_that_the_message_would_have_got(storage: Storage, tmp_path: Path) -> None:
    write_tree(tmp_path / "data", FILES)
    with job_client_of(storage, str(tmp_path / "state")) as job_client:
        for action, meta in (("objPush", PUT), ("objPull", PULL), ("objVerify", PULL)):
            over = job_client.finish(action, **meta)
            assert over["state"] == "done", over
            now = job_client.ask(action, **meta)
            different = {"seconds", "bytes", "skipped"}
            assert {**over["reply"], **dict.fromkeys(different)} == {**now, **dict.fromkeys(different)}
    assert read_tree(tmp_path / "out") == FILES
