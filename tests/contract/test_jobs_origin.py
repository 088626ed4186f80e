"""The origin of a job: each process runs it with the files and the store of its message."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.access.permissions import Permissions
from pfstorage.access.principal import Principal
from pfstorage.actions import RequestContext
from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from pfstorage.errors import ContainerNotFoundError
from pfstorage.jobs.model import JobRequest
from pfstorage.jobs.origin import Origin, store_name
from pfstorage.jobs.rows import pack_message
from pfstorage.jobs.scheduler import JobScheduler
from pfstorage.jobs.store import JobStore
from pfstorage.local import AllowedRoots
from pfstorage.settings.model import Settings, SwiftSettings
from tests.conftest import read_tree, swift_options, write_tree
from tests.support.exchange import answered, server_process
from tests.support.old_jobs import old_schema
from tests.support.waiting import until

FILES = {"d/1.dcm": b"first", "2.dcm": b"second"}
OTHERS = {"d/1.dcm": b"another", "3.dcm": b"third"}
MAPPED = {"inLocation": "s", "mapLocationOver": "data"}
Meta = dict[str, Any]

PUSHES: dict[str, Meta] = {
    "putSpec": {"putSpec": "data", **MAPPED},
    "dotted": {"putSpec": "./data/", "inLocation": "s", "mapLocationOver": "./data"},
    "file": {"file": "data/2.dcm", **MAPPED},
    "fileList": {"fileList": ["data/2.dcm", "data/d/1.dcm"], **MAPPED},
    "as pypx says it": {"localpath": "data", "toLocation": "s", "mapLocationOver": "data"},
}


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """Two directories, ``here`` and ``there``, that each have other files in ``data``."""
    write_tree(tmp_path / "here" / "data", FILES)
    write_tree(tmp_path / "there" / "data", OTHERS)
    return tmp_path / "here", tmp_path / "there"


@contextlib.contextmanager
def jobs_of(
    storage: Storage, state: Path, *roots: Path | str
) -> Iterator[tuple[StoreHandler, RequestContext]]:
    """Return a dispatcher and the context of its messages, as in a server with *roots* as ``--fsRoot``."""
    handler = StoreHandler(storage)
    allowed = AllowedRoots([str(each) for each in roots]) if roots else None
    context = RequestContext(Principal(is_trusted=False), roots=allowed)
    jobs = JobScheduler(handler.job_runner(context), str(state))
    try:
        yield handler, replace(context, jobs=jobs)
    finally:
        jobs.close(10)


def submitted(
    storage: Storage, state: Path, roots: tuple[Path | str, ...], action: str, meta: Meta
) -> dict[str, Any]:
    """Queue a job in a process that ends before the job starts. Return the reply."""
    with jobs_of(storage, state, *roots) as (handler, context):
        return handler.run({"action": action, "meta": {**meta, "async": True}}, context)


def resumed(storage: Storage, state: Path, *roots: Path | str) -> dict[str, Any]:
    """Return the status of the only job after the next process has finished it."""
    with jobs_of(storage, state, *roots) as (handler, context):
        assert context.jobs is not None
        context.jobs.start()
        [job] = handler.run({"action": "jobList"}, context)["jobs"]
        return handler.run({"action": "jobStatus", "meta": {"job": job["job"], "wait": 30}}, context)


def content(storage: Storage) -> dict[str, bytes]:
    objects = {}
    try:
        rows = list(storage.list())
    except ContainerNotFoundError:
        rows = []  # nothing was put yet
    for row in rows:
        with open("got", "wb") as sink:
            storage.get(row.key, sink)
        objects[row.key] = Path("got").read_bytes()
    return objects


@pytest.mark.parametrize("meta", PUSHES.values(), ids=PUSHES)
@pytest.mark.parametrize("has_roots", [True, False])
def test_a_push_job_uses_its_original_paths(
    storage: Storage,
    places: tuple[Path, Path],
    tmp_path: Path,
    meta: Meta,
    has_roots: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = places
    before, after = ((here,), (there, here)) if has_roots else ((), ())
    monkeypatch.chdir(here)
    with jobs_of(storage, tmp_path / "state", *before) as (handler, context):
        expected = handler.run({"action": "objPush", "meta": {**meta, "dryRun": True}}, context)
    submitted(storage, tmp_path / "state", before, "objPush", meta)
    monkeypatch.chdir(there)
    over = resumed(storage, tmp_path / "state", *after)
    assert over["state"] == "done", over
    for name in ("localFileList", "objectFileList", "localpath"):
        assert over["reply"][name] == expected[name]
    wanted = {f"s/{name}": body for name, body in FILES.items() if f"s/{name}" in expected["objectFileList"]}
    assert content(storage) == wanted


PULLS: dict[str, Meta] = {
    "mapped": {"fromLocation": "s", "mapLocationOver": "out"},
    "one file": {"fromLocation": "s/2.dcm", "mapLocationOver": "out/2.dcm"},
    "to the current directory": {"fromLocation": "s"},
    "as pypx says it": {"fromLocation": "s", "toLocation": "out"},
    "by names": {"fileList": ["s/2.dcm"], "fromLocation": "s", "mapLocationOver": "out"},
    "by names to the current directory": {"fileList": ["s/2.dcm"]},
    "each to its place": {
        "fileList": [{"from": "s/2.dcm", "to": "out/b"}, {"from": "s/d/1.dcm", "to": "a/c"}]
    },
}


@pytest.mark.parametrize("meta", PULLS.values(), ids=PULLS)
@pytest.mark.parametrize("has_roots", [True, False])
def test_a_pull_writes_to_its_origin(
    storage: Storage,
    places: tuple[Path, Path],
    tmp_path: Path,
    meta: Meta,
    has_roots: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = places
    before, after = ((here,), (there, here)) if has_roots else ((), ())
    monkeypatch.chdir(here)
    handler = StoreHandler(storage)
    handler.run(
        {
            "action": "objPut",
            "meta": {"putSpec": str(here / "data"), **MAPPED, "mapLocationOver": str(here / "data")},
        }
    )
    with jobs_of(storage, tmp_path / "state", *before) as (handler, context):
        expected = handler.run({"action": "objPull", "meta": {**meta, "dryRun": True}}, context)
    submitted(storage, tmp_path / "state", before, "objPull", meta)
    monkeypatch.chdir(there)
    over = resumed(storage, tmp_path / "state", *after)
    assert over["state"] == "done", over
    for name in ("localFileList", "objectFileList", "localpath", "currentWorkingDir"):
        assert over["reply"][name] == expected[name]
    assert sorted(path.name for path in there.iterdir()) == ["data"]
    assert all((here / path).is_file() for path in expected["localFileList"])


def test_an_audit_uses_the_original_paths(
    storage: Storage, places: tuple[Path, Path], tmp_path: Path
) -> None:
    here, there = places
    meta = {"putSpec": "data", **MAPPED, "audit": True}
    submitted(storage, tmp_path / "state", (here,), "objPush", meta)
    over = resumed(storage, tmp_path / "state", there, here)
    assert over["reply"]["audit"]["status"] is True
    submitted(
        storage, tmp_path / "state2", (here,), "objVerify", {"fromLocation": "s", "mapLocationOver": "data"}
    )
    assert resumed(storage, tmp_path / "state2", there, here)["state"] == "done"


def failed_alone(over: dict[str, Any], kind: str) -> str:
    assert (over["state"], over["reply"]["error"]["type"]) == ("failed", kind), over
    return str(over["msg"])


@pytest.mark.parametrize("action", ["objPush", "objPull"])
def test_a_job_whose_directory_left_the_roots_does_nothing(
    places: tuple[Path, Path], tmp_path: Path, action: str
) -> None:
    here, there = places
    with open_storage("memory") as storage:
        metas = {"objPush": PUSHES["putSpec"], "objPull": PULLS["to the current directory"]}
        submitted(storage, tmp_path / "state", (here,), action, metas[action])
        over = resumed(storage, tmp_path / "state", there)
        assert f"was in {str(here)!r} when the job was accepted" in failed_alone(over, "ForbiddenError")
        assert content(storage) == {}
    assert read_tree(there / "data") == OTHERS


@pytest.mark.parametrize("spelled", ["data", "{tmp_path}/link/data", "{tmp_path}/here/data"])
def test_a_changed_link_of_a_root_is_not_followed(
    places: tuple[Path, Path], tmp_path: Path, spelled: str
) -> None:
    here, there = places
    path, link = spelled.format(tmp_path=tmp_path), tmp_path / "link"
    meta = {"putSpec": path, "inLocation": "s", "mapLocationOver": path}
    for state, after in (("1", (link,)), ("2", (link, here))):
        with open_storage("memory") as storage:
            link.unlink(missing_ok=True)
            link.symlink_to(here)
            submitted(storage, tmp_path / state, (link,), "objPush", meta)
            link.unlink()
            link.symlink_to(there)
            over = resumed(storage, tmp_path / state, *after)
            if here in after:
                assert over["reply"]["localFileList"] == [f"{path}/{name}" for name in sorted(FILES)]
                assert content(storage) == {f"s/{name}": body for name, body in FILES.items()}
            else:
                failed_alone(over, "ForbiddenError")
                assert content(storage) == {}


@pytest.mark.parametrize("roots", ["{tmp_path}/here", "{tmp_path}"])
def test_a_root_replaced_by_a_link_is_another_directory(
    places: tuple[Path, Path], tmp_path: Path, roots: str
) -> None:
    here, there = places
    with open_storage("memory") as storage:
        submitted(storage, tmp_path / "state", (here,), "objPush", PUSHES["putSpec"])
        here.rename(tmp_path / "moved")
        here.symlink_to(there)
        failed_alone(resumed(storage, tmp_path / "state", roots.format(tmp_path=tmp_path)), "ForbiddenError")
        assert content(storage) == {}


def test_more_roots_change_nothing(places: tuple[Path, Path], tmp_path: Path) -> None:
    here, there = places
    with open_storage("memory") as storage:
        submitted(storage, tmp_path / "state", (here,), "objPush", PUSHES["putSpec"])
        assert resumed(storage, tmp_path / "state", here, there)["state"] == "done"
        assert content(storage) == {f"s/{name}": body for name, body in FILES.items()}


def test_a_job_for_another_store_directory_fails(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = places
    monkeypatch.chdir(here)
    with open_storage("filesystem", store_base="store") as storage:
        submitted(storage, tmp_path / "state", (here,), "objPush", PUSHES["putSpec"])
    monkeypatch.chdir(there)
    with open_storage("filesystem", store_base="store") as storage:
        reported = failed_alone(resumed(storage, tmp_path / "state", here), "JobConflictError")
    assert str(here / "store") in reported
    assert str(there / "store") in reported
    assert not (there / "store").exists()


def test_spellings_of_a_store_directory(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = places
    monkeypatch.chdir(here)
    (tmp_path / "link").symlink_to(here)
    for state, before, after in (
        ("1", "store", str(tmp_path / "link" / "store")),
        ("2", "../link/x", "../link/x"),
    ):
        with open_storage("filesystem", store_base=before) as storage:
            submitted(storage, tmp_path / state, (here,), "objPush", PUSHES["putSpec"])
        if state == "2":
            (tmp_path / "link").unlink()
            (tmp_path / "link").symlink_to(there)
        with open_storage("filesystem", store_base=after) as storage:
            over = resumed(storage, tmp_path / state, here)
            assert over["state"] == ("done" if state == "1" else "failed")
    assert not (there / "x").exists()


def test_a_job_for_another_container_fails(
    swift: DevSwift, places: tuple[Path, Path], tmp_path: Path
) -> None:
    here, _ = places
    with open_storage(**swift_options(swift)) as storage:
        submitted(storage, tmp_path / "state", (here,), "objPush", PUSHES["putSpec"])
        with open_storage(**swift_options(swift)) as other:
            reported = failed_alone(resumed(other, tmp_path / "state", here), "JobConflictError")
            assert other.settings.swift.container_name in reported
            assert content(other) == {}


def test_a_job_fails_if_the_container_changes_before_it(
    swift: DevSwift, places: tuple[Path, Path], tmp_path: Path
) -> None:
    here, _ = places
    with (
        open_storage(**swift_options(swift)) as storage,
        jobs_of(storage, tmp_path / "s", here) as (handler, context),
    ):
        assert context.jobs is not None
        message = {"action": "objPush", "meta": {**PUSHES["putSpec"], "async": True}}
        job = handler.run(message, context)["job"]
        handler.state.set("/swift/container_name", "another-one")
        context.jobs.start()
        over = handler.run({"action": "jobStatus", "meta": {"job": job, "wait": 30}}, context)
        assert "'another-one'" in failed_alone(over, "JobConflictError")
        handler.close()


def test_the_same_jid_for_another_tree_is_another_job(places: tuple[Path, Path], tmp_path: Path) -> None:
    here, there = places
    meta = {**PUSHES["putSpec"], "jid": "once"}
    with open_storage("memory") as storage:
        first = submitted(storage, tmp_path / "state", (here,), "objPush", meta)
        assert submitted(storage, tmp_path / "state", (here, there), "objPush", meta) == first
        reply = submitted(storage, tmp_path / "state", (there,), "objPush", meta)
        assert reply["error"]["type"] == "JobConflictError"


def test_store_names_differ_by_account_and_contain_no_secret() -> None:
    plain = SwiftSettings(auth_url="http://u:canary@h:80/auth", username="a:ann", key="canary")

    def name(**changes: Any) -> str:
        return store_name(Settings(swift=replace(plain, **changes)))

    assert "canary" not in name()
    assert name(username="a:bob", key="another") == name()
    options = {"project_name": "p", "application_credential_secret": "canary", "auth_token": "canary"}
    assert "canary" not in name(os_options=options)
    changes: list[Meta] = [
        {},
        {"username": "b:ann"},
        {"container_name": "c"},
        {"auth_url": "http://other:80/auth"},
        {"os_options": options},
        {"os_options": {**options, "project_name": "q"}},
    ]
    assert len({name(**each) for each in changes}) == len(changes)


def test_a_server_in_another_directory_pushes_the_same_tree(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    here, there = places
    write_tree(here / "data", {f"{number:03}": b"x" * 50_000 for number in range(40)})
    flags = (
        "--type",
        "filesystem",
        "--storeBase",
        str(tmp_path / "store"),
        "--stateDir",
        str(tmp_path / "state"),
    )
    with server_process(here, *flags, "--forever", "--bwLimit", "200K") as served:
        _, reply = answered(served.port, "objPush", **PUSHES["putSpec"], **{"async": True})
        until(lambda: bool(read_tree(tmp_path / "store")))
        served.process.send_signal(signal.SIGKILL)
        served.process.wait(30)
    with server_process(there, *flags, "--forever") as served:
        _, over = answered(served.port, "jobStatus", job=reply["job"], wait=30)
        assert "no --fsRoot allows" in failed_alone(over, "ForbiddenError")
    with server_process(there, *flags, "--forever", "--fsRoot", ".", "--fsRoot", str(here)) as served:
        again = {**PUSHES["putSpec"], "putSpec": str(here / "data"), "mapLocationOver": str(here / "data")}
        assert answered(served.port, "objPush", **again)[1]["status"] is True
    assert "s/3.dcm" not in read_tree(tmp_path / "store")


def test_jobs_of_3_0_run(places: tuple[Path, Path], tmp_path: Path) -> None:
    here, _ = places
    (tmp_path / "state").mkdir(0o700)
    rows = sqlite3.connect(tmp_path / "state" / "jobs.sqlite")
    rows.executescript(old_schema(1))
    rows.execute(
        "INSERT INTO job (id, jid, owner, rights, message, state, created) VALUES ('a', 'once', '', ?,"
        ' \'{"action": "objPush", "meta": {"putSpec": "data"}}\', \'running\', 1.0)',
        (json.dumps(asdict(Permissions())),),
    )
    rows.commit()
    rows.close()
    with open_storage("memory") as storage:
        assert resumed(storage, tmp_path / "state", here)["state"] == "done"
        assert sorted(content(storage)) == ["data/2.dcm", "data/d/1.dcm"]
        again = submitted(storage, tmp_path / "state", (here,), "objPush", {"putSpec": "data", "jid": "once"})
        assert again["job"] == "a"


def test_an_origin_is_stored_and_read(tmp_path: Path) -> None:
    origin = Origin("a store", (("/a\udcff", "/b"), ("/c", "/c")))
    kept = JobStore(str(tmp_path / "state"))
    order = JobRequest({"action": "objPush", "meta": {}}, origin=origin)
    job_id, _ = kept.add(order, pack_message(order.message), 1.0)
    _, read = kept.begin(job_id, 2.0)
    kept.close()
    assert read.origin == origin
    assert os.fsencode(read.origin.roots[0][0]) == b"/a\xff"
