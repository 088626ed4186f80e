"""Messages that the server refuses at once, instead of a job that can only fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pfstorage import open_storage
from pfstorage.access.permissions import Permissions
from pfstorage.access.principal import Principal
from pfstorage.errors import ForbiddenError, PermissionDeniedError
from pfstorage.local import AllowedRoots
from tests.support.jobs import PULL, PUT, JobClient, job_client_of
from tests.support.trees import write_tree


@pytest.fixture
def job_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobClient]:
    """Jobs with the root ``root``, for a token with the prefix ``s/mine/``."""
    root = write_tree(tmp_path / "root", {"data/a": b"a"})
    write_tree(tmp_path / "outside", {"a": b"a"})
    (root / "link").symlink_to(tmp_path / "outside")
    monkeypatch.chdir(root)
    with open_storage("memory") as storage, job_client_of(storage, starts=False) as client:
        token = Principal(Permissions.parse("write s/mine/"), "ann", is_trusted=False)
        client.context = replace(client.context, principal=token, roots=AllowedRoots([str(root)]))
        yield client


MINE = {"inLocation": "s/mine"}
FROM_MINE = {"fromLocation": "s/mine"}


@pytest.mark.parametrize(("action", "meta"), [
    ("objPush", {**PUT, **MINE, "putSpec": "/etc"}),
    ("objPush", {**PUT, **MINE, "putSpec": "link"}),
    ("objPush", {**PUT, **MINE, "putSpec": "../outside"}),
    ("objPush", {**PUT, "inLocation": "t"}),
    ("objPush", {**PUT, "inLocation": "s/mine2"}),
    ("objPush", {"fileList": ["data/a"], "inLocation": "t"}),
    ("objPush", {**PUT, "inLocation": "s/" + "k" * 1100}),
    ("objPush", {"toObject": "s/mine/a"}),
    ("objPull", {**FROM_MINE, "mapLocationOver": "/etc"}),
    ("objPull", {**FROM_MINE, "mapLocationOver": "link/"}),
    ("objPull", {"fileList": [{"from": "s/mine/a", "to": "/etc/a"}]}),
    ("objPull", {"fileList": ["a"], "prependBucketPath": "s/" + "k" * 1100}),
    ("objPull", {**PULL, "fromLocation": "t"}),
    ("objPull", {**PULL, "path": "s/other"}),
    ("objVerify", {**PULL, "fromLocation": "s/other"}),
])  # fmt: skip
def test_a_message_that_must_fail_is_no_job(job_client: JobClient, action: str, meta: dict[str, Any]) -> None:
    now = job_client.handler.answer({"action": action, "meta": meta}, job_client.context)
    later = job_client.handler.answer({"action": action, "meta": {**meta, "async": True}}, job_client.context)
    assert later.error is not None
    assert type(later.error) is type(now.error)
    assert "job" not in later.body
    if isinstance(later.error, ForbiddenError):
        assert "start the server with --fsRoot DIR" in str(later.error)
    assert job_client.ask("jobList")["jobs"] == []


@pytest.mark.parametrize(("action", "meta"), [
    ("objPush", {**PUT, **MINE}),
    ("objPush", {**PUT, "inLocation": "./s//mine/b/"}),
    ("objPush", {**PUT, "inLocation": "s"}),
    ("objPush", {"putSpec": "missing"}),
    ("objPull", {**FROM_MINE, "mapLocationOver": "new"}),
    ("objPull", {**PULL, "path": "/s/mine/a"}),
    ("objPull", {**PULL, "path": "s/mi"}),
    ("objVerify", {}),
    ("objSweep", {"path": "t"}),
])  # fmt: skip
def test_other_messages_are_jobs(job_client: JobClient, action: str, meta: dict[str, Any]) -> None:
    reply = job_client.handler.answer({"action": action, "meta": {**meta, "async": True}}, job_client.context)
    assert reply.is_accepted, reply.body


def test_a_repeated_message_is_its_job_whatever_the_rights_are_now(job_client: JobClient) -> None:
    message = {"action": "objPush", "meta": {**PUT, **MINE, "async": True, "jid": "once"}}
    first = job_client.handler.run(message, job_client.context)
    less = Principal(Permissions.parse("write t/"), "ann", is_trusted=False)
    context = replace(job_client.context, principal=less)
    assert job_client.handler.run(message, context)["job"] == first["job"]
    message["meta"]["jid"] = "twice"
    assert isinstance(job_client.handler.answer(message, context).error, PermissionDeniedError)
