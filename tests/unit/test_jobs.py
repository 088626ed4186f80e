"""Asynchronous messages to the dispatcher: it checks and answers them as other messages."""

from __future__ import annotations

import contextlib
import json
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.access.permissions import Permissions
from pfstorage.access.principal import Principal
from pfstorage.actions import RequestContext, Upload
from pfstorage.errors import UnauthorizedError
from pfstorage.handler import TRUSTED
from pfstorage.jobs.scheduler import JobScheduler
from pfstorage.wire.reply import Reply
from pfstorage.wire.status import http_status
from tests.conftest import write_tree
from tests.support.jobs import FILES, PULL, PUT, JobClient, job_client_of
from tests.support.old_jobs import unpacked


def test_the_reply_to_an_asynchronous_message_names_the_job_and_is_202(job_client: JobClient) -> None:
    reply = job_client.answer("objPush", **PUT, **{"async": True})
    assert list(reply.body) == ["status", "job"]
    assert (reply.body["status"], http_status(reply)) == (True, 202)
    assert http_status(job_client.answer("jobStatus", job=reply.body["job"])) == 200


def test_the_status_shows_progress(job_client: JobClient) -> None:
    over = job_client.finish("objPush", **PUT, jid="feed 12")
    assert over["status"] is True
    assert (over["jid"], over["action"]) == ("feed 12", "objPush")
    progress = over["progress"]
    assert progress.pop("seconds") > 0
    assert progress.pop("bytesPerSecond") > 0
    size = sum(map(len, FILES.values()))
    assert progress == {"files": 12, "bytes": size, "failed": 0, "skipped": 0, "total": 12}
    assert job_client.ask("jobStatus", jid="feed 12")["job"] == over["job"]


def test_an_audit_does_not_take_back_the_progress(job_client: JobClient) -> None:
    over = job_client.finish("objPush", **PUT, audit=True)
    assert over["reply"]["audit"]["status"] is True
    assert over["progress"]["bytes"] == sum(map(len, FILES.values()))


def test_a_job_with_a_false_status_has_failed(job_client: JobClient) -> None:
    over = job_client.finish("objPush", putSpec="nowhere")
    assert (over["status"], over["state"]) == (True, "failed")
    assert over["reply"]["error"]["type"] == "LocalFileError"
    assert over["msg"] == over["reply"]["msg"]


def test_without_a_server_there_are_no_jobs() -> None:
    with open_storage("memory") as storage:
        handler = StoreHandler(storage)
        for action, meta in (
            ("objPush", {**PUT, "async": True}),
            ("jobList", {}),
            ("jobCancel", {"job": "x"}),
        ):
            reply = handler.run({"action": action, "meta": meta})
            assert (reply["status"], reply["error"]["type"]) == (False, "MessageError")
            assert "only a server takes 'async'" in reply["msg"]


@pytest.mark.parametrize(
    "meta",
    [
        {"jid": "x" * 201},
        {"jid": "a\nb"},
        {"jid": "\ud800"},
        {"overwrite": "perhaps"},
        {"reply": "short"},
        {"shard": "4/3"},
        {"async": "perhaps"},
    ],
    ids=str,
)
def test_an_invalid_message_is_refused_at_once(job_client: JobClient, meta: dict[str, Any]) -> None:
    reply = job_client.ask("objPush", **{**PUT, "async": True, **meta})
    assert (reply["status"], reply["error"]["type"]) == (False, "MessageError")
    assert job_client.ask("jobList")["jobs"] == []


def test_an_upload_cannot_be_a_job(job_client: JobClient, tmp_path: Path) -> None:
    with (tmp_path / "data" / "00.dcm").open("rb") as body:
        context = replace(job_client.context, upload=Upload(body, 1000))
        message = {"action": "objPut", "meta": {"toObject": "a", "async": True}}
        reply = job_client.handler.run(message, context)
    assert (reply["status"], reply["error"]["type"]) == (False, "MessageError")


def test_a_job_does_not_keep_unknown_keys(job_client: JobClient, tmp_path: Path) -> None:
    reply = job_client.ask("objPush", **PUT, swiftKey="canary-of-a-secret", **{"async": True})
    assert len(reply["warnings"]) == 1
    job_client.ask("jobStatus", job=reply["job"], wait=30)
    kept = b"".join(map(unpacked, (tmp_path / "state").iterdir()))
    assert b"00.dcm" in kept
    assert b"canary" not in kept


def test_the_same_jid_is_one_job_for_any_number_of_simultaneous_callers(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", FILES)
    with open_storage("memory") as storage, job_client_of(storage, starts=False) as job_client:
        together = threading.Barrier(16)

        def ask(_: int) -> str:
            together.wait(10)
            return str(job_client.ask("objPush", **PUT, jid="once", **{"async": True})["job"])

        with ThreadPoolExecutor(16) as pool:
            jobs = set(pool.map(ask, range(16)))
        assert len(jobs) == len(job_client.ask("jobList")["jobs"]) == 1
        job_client.jobs.start()
        assert job_client.ask("jobStatus", jid="once", wait=30)["state"] == "done"
        again = job_client.answer("objPush", **dict(reversed(PUT.items())), jid="once", **{"async": "true"})
        assert ({again.body["job"]}, http_status(again)) == (jobs, 202)


def test_a_jid_with_another_message_is_refused(job_client: JobClient) -> None:
    job_client.finish("objPush", **PUT, jid="once")
    for action, meta in (("objPut", PUT), ("objPush", {**PUT, "inLocation": "t"})):
        reply = job_client.answer(action, **meta, jid="once", **{"async": True})
        assert (reply.body["error"]["type"], http_status(reply)) == ("JobConflictError", 409)
    assert len(job_client.ask("jobList")["jobs"]) == 1


def test_two_owners_may_use_the_same_jid(job_client: JobClient) -> None:
    ann = job_client.ask("objPush", "ann", "write", **PUT, jid="1", **{"async": True})["job"]
    bob = job_client.ask("objPush", "bob", "write", **{**PUT, "inLocation": "t"}, jid="1", **{"async": True})[
        "job"
    ]
    assert ann != bob
    assert job_client.ask("jobStatus", "ann", "write", jid="1")["job"] == ann
    assert job_client.ask("jobStatus", "bob", "write", jid="1")["job"] == bob
    assert job_client.ask("jobStatus", "ann", "admin", jid="1")["job"] == ann
    assert job_client.ask("jobStatus", "root", "admin", jid="1")["job"] == bob


def asked_each_way(job_client: JobClient, owner: str, permissions: str, job: str, jid: str) -> list[Reply]:
    """Return the replies to *owner* for each way to name a job."""
    ways = (("jobStatus", {"job": job}), ("jobStatus", {"jid": jid}), ("jobCancel", {"job": job}))
    return [job_client.answer(action, owner, permissions, **named) for action, named in ways]


@pytest.mark.parametrize("permissions", ["write", "admin chris/feed_1/"])
def test_only_an_admin_of_all_sees_the_jobs_of_others(job_client: JobClient, permissions: str) -> None:
    ann = job_client.ask("objPush", "ann", "write", **PUT, jid="1", **{"async": True})["job"]
    for reply in asked_each_way(job_client, "bob", permissions, ann, "1"):
        assert (reply.body["error"]["type"], http_status(reply)) == ("UnknownJobError", 404)
    assert job_client.ask("jobList", "bob", permissions)["jobs"] == []
    for owner, level in (("ann", "write"), ("ann", "read"), ("root", "admin")):
        assert [(each["job"], each["owner"]) for each in job_client.ask("jobList", owner, level)["jobs"]] == [
            (ann, "ann")
        ]
        assert job_client.ask("jobStatus", owner, level, jid="1", wait=30)["state"] == "done"


def refused() -> Principal:
    raise UnauthorizedError("the server does not know this token")


def test_jobs_of_more_keys_than_a_token_is_for_now_are_not_shown(job_client: JobClient) -> None:
    narrow, wide = "write chris/feed_1/", "write chris/"
    meta = {**PUT, "inLocation": "chris/feed_1/x", "async": True}
    other = job_client.ask(
        "objPush", "ann", "write chris/feed_10/", **{**meta, "inLocation": "chris/feed_10/x"}
    )["job"]
    job_client.ask("objPush", "ann", "write d", **{**meta, "inLocation": "d"})
    old = job_client.ask("objPush", "ann", wide, **meta, jid="old")["job"]
    new = job_client.ask("objPush", "ann", narrow, **meta, jid="new")["job"]
    for each in (old, new):
        job_client.ask("jobStatus", "ann", "write", job=each, wait=30)
    for reply in asked_each_way(job_client, "ann", narrow, old, "old"):
        assert (reply.body["error"]["type"], http_status(reply)) == ("ForbiddenError", 403)
        assert "feed_1" not in str(reply.body)
    assert [each["job"] for each in job_client.ask("jobList", "ann", narrow)["jobs"]] == [new]
    assert job_client.ask("jobList", "ann", "write chris/feed_2/")["jobs"] == []
    assert [each["job"] for each in job_client.ask("jobList", "ann", wide)["jobs"]] == [new, old, other]
    assert job_client.ask("jobStatus", "ann", "read chris/feed_1/", job=new)["state"] == "done"
    ann = Principal(Permissions.parse(wide), "ann", is_trusted=False, renew=refused)
    revoked = replace(job_client.context, principal=ann)
    waiting = {"action": "jobStatus", "meta": {"job": new, "wait": 1}}
    assert job_client.handler.run(waiting, revoked)["error"]["type"] == "UnauthorizedError"


def test_a_token_to_read_cannot_cancel(job_client: JobClient) -> None:
    job = job_client.ask("objPush", "ann", "write", **PUT, **{"async": True})["job"]
    assert job_client.ask("jobCancel", "ann", "read", job=job)["error"]["type"] == "ForbiddenError"


def test_a_job_has_the_permissions_of_its_owner() -> None:
    seen: list[RequestContext] = []

    class Handler(StoreHandler):
        def answer(self, source: Any, request: RequestContext = TRUSTED) -> Reply:
            seen.append(request)
            return super().answer(source, request)

    with open_storage("memory") as storage, contextlib.closing(Handler(storage)) as handler:
        jobs = JobScheduler(handler.job_runner(RequestContext(Principal(is_trusted=True, is_anonymous=True))))
        jobs.start()
        context = RequestContext(Principal(Permissions("write", "chris/"), owner="ann"), jobs=jobs)
        reply = handler.run(
            {"action": "objPull", "meta": {**PULL, "fromLocation": "chris", "async": True}}, context
        )
        handler.run({"action": "jobStatus", "meta": {"job": reply["job"], "wait": 30}}, context)
        jobs.close(10)
    [worked] = [each for each in seen if each is not context]
    principal = worked.principal
    assert (principal.owner, principal.permissions) == ("ann", Permissions("write", "chris/"))
    assert principal.is_anonymous
    assert not principal.is_trusted
    assert worked.jobs is None


def test_jobs_are_listed_the_latest_first(job_client: JobClient) -> None:
    jobs = [job_client.finish("objPush", **{**PUT, "inLocation": str(each)})["job"] for each in range(4)]
    listed = job_client.ask("jobList")["jobs"]
    assert [each["job"] for each in listed] == jobs[::-1]
    assert all(each["state"] == "done" and "reply" not in each for each in listed)
    assert [each["job"] for each in job_client.ask("jobList", limit=2)["jobs"]] == jobs[:1:-1]


@pytest.mark.parametrize(
    ("action", "meta"),
    [
        ("jobStatus", {}),
        ("jobStatus", {"job": "x", "wait": 61}),
        ("jobStatus", {"job": "x", "wait": -1}),
        ("jobList", {"limit": 0}),
        ("jobList", {"limit": 10**30}),
        ("jobCancel", {}),
    ],
)
def test_a_wrong_meta_is_refused(job_client: JobClient, action: str, meta: dict[str, Any]) -> None:
    assert job_client.ask(action, **meta)["error"]["type"] == "MessageError"


@pytest.mark.parametrize("name", ["x" * 10**6, "", "'; DROP TABLE job; --", "\ud800", "\0"])
@pytest.mark.parametrize("action", ["jobStatus", "jobCancel"])
def test_a_missing_job_is_unknown(job_client: JobClient, action: str, name: str) -> None:
    for meta in ({"job": name or "none"}, {"jid": name or "none"}):
        reply = job_client.answer(action, **meta)
        assert (reply.body["error"]["type"], http_status(reply)) == ("UnknownJobError", 404)
        assert len(reply.to_json()) < 1000


def test_without_a_directory_the_reply_says_that_the_job_will_not_survive(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", FILES)
    with open_storage("memory") as storage, job_client_of(storage) as job_client:
        [warning] = job_client.ask("objPush", **PUT, **{"async": True})["warnings"]
    assert "--stateDir" in warning


def test_the_database_is_private(job_client: JobClient, tmp_path: Path) -> None:
    job_client.finish("objPush", **PUT)
    state = tmp_path / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()}
    assert {"jobs.sqlite", "jobs.sqlite-wal"} <= set(files)
    assert set(files.values()) == {0o600}


def test_a_job_leaves_the_settings_and_the_record_as_a_message_does(
    job_client: JobClient, tmp_path: Path
) -> None:
    job_client.handler.state.set("/this/debugToDir", str(tmp_path / "record"))
    job_client.finish("objPush", **PUT)
    records = [json.loads(path.read_text()) for path in (tmp_path / "record").iterdir()]
    assert len(records) >= 2
    assert any(each["reply"].get("objectFileList") for each in records), records
