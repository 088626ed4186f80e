"""The deny-list: no message reads, replaces or enters the server's own files, even below an allowed root."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.actions import RequestContext
from pfstorage.backends import Storage
from pfstorage.errors import PermissionDeniedError
from pfstorage.local import AllowedRoots, LocalTree
from pfstorage.local.deny_list import DeniedFileError, DenyList
from tests.conftest import Command, make_certificate, read_tree, serving, write_tree
from tests.support.exchange import (
    TOKEN,
    Served,
    Transport,
    answer,
    answers,
    connected,
    message,
    post,
    request,
    server_process,
    transports,
)
from tests.support.local import Answer, answers_below, everything
from tests.support.waiting import until

FILES = {
    "data/a": b"a",
    "data/tokens": b"no token",
    "tokens": b"precious",
    "state/jobs.sqlite": b"precious",
    "real/key.pem": b"precious",
    "real/other": b"other",
    "Pass.Word": b"precious",
}
OWN = ("tokens", "Pass.Word", "state", "ways/key.pem", "linked", "later/records")
"""``ways`` is a link to ``real``, ``linked`` one to ``real/second``, and ``later`` is not there."""

TOUCHED = (
    "tokens",
    "TOKENS",
    "pass.word",
    "./tokens",
    "{root}/tokens",
    "alias",
    "state",
    "state/jobs.sqlite",
    "state/new",
    "into-state/jobs.sqlite",
    "real/key.pem",
    "ways/key.pem",
    "linked",
    "real/second",
    "later",
    "later/records",
    "later/records/one",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = write_tree(tmp_path / "root", FILES)
    for link, target in {
        "ways": "real",
        "linked": "real/second",
        "alias": "tokens",
        "into-state": str(root / "state"),
    }.items():
        (root / link).symlink_to(target)
    return root


@pytest.fixture
def say(root: Path, small_storage: Storage) -> Answer:
    roots = AllowedRoots([str(root)])
    roots.deny(str(root / own) for own in OWN)
    return answers_below(roots, small_storage)


@pytest.mark.parametrize("path", TOUCHED)
@pytest.mark.parametrize("follow", [False, True])
def test_none_of_them_is_stored(
    root: Path, small_storage: Storage, say: Answer, path: str, *, follow: bool
) -> None:
    path = path.format(root=root)
    replies = [
        say("objPush", putSpec=path, inLocation="new", followSymlinks=follow),
        say("objPut", file=path, inLocation="new", followSymlinks=follow),
        say("objPut", fileList=[path], inLocation="new", followSymlinks=follow),
    ]
    assert [reply["status"] for reply in replies] == [False] * 3
    assert all("it is the server's own" in str(reply) for reply in replies)
    assert [row.key for row in small_storage.list()] == ["s/a", "s/d/b"]


@pytest.mark.parametrize("path", TOUCHED)
@pytest.mark.parametrize("overwrite", ["changed", "always"])
@pytest.mark.parametrize("one", ["", "/a"])
def test_none_of_them_is_written_to(root: Path, say: Answer, path: str, overwrite: str, one: str) -> None:
    before = everything(root)
    reply = say(
        "objPull",
        fromLocation=f"s{one}",
        mapLocationOver=path.format(root=root),
        overwrite=overwrite,
    )
    assert not reply["status"]
    assert "it is the server's own" in str(reply)
    assert everything(root) == before


@pytest.mark.parametrize("follow", [False, True])
def test_a_tree_is_stored_without_them(
    root: Path, small_storage: Storage, say: Answer, *, follow: bool
) -> None:
    reply = say("objPush", putSpec=str(root), inLocation="new", followSymlinks=follow)
    assert reply["status"]
    stored = {row.key.removeprefix(f"new{root}/") for row in small_storage.list("new/")}
    assert stored == {"data/a", "data/tokens", "real/other"} | ({"ways/other"} if follow else set())
    reported = " ".join(reply["warnings"])
    for name in ("tokens", "state", "real/key.pem"):
        assert f"{str(root / name)!r} was left out: it is the server's own, and not for messages" in reported


def test_a_tree_is_written_but_for_them(root: Path, small_storage: Storage, say: Answer) -> None:
    for key in ("t/tokens", "t/state/jobs.sqlite", "t/ways", "t/data/tokens", "t/new"):
        small_storage.put(key, io.BytesIO(b"evil"), 4)
    reply = say("objPull", fromLocation="t", mapLocationOver=str(root), overwrite="always")
    assert not reply["status"]
    assert read_tree(root) == read_tree(root) | FILES | {"data/tokens": b"evil", "new": b"evil"}
    assert os.readlink(root / "ways") == "real"


def test_a_verification_reports_no_denied_file(say: Answer, small_storage: Storage, root: Path) -> None:
    small_storage.put("t/tokens", io.BytesIO(b"precious"), 8)
    reply = say("objVerify", fromLocation="t", mapLocationOver=str(root))
    assert not reply["status"]


def test_it_counts_when_another_file_takes_the_name(root: Path, small_storage: Storage, say: Answer) -> None:
    (root / "fresh").write_bytes(b"precious")
    (root / "fresh").replace(root / "tokens")
    assert not say("objPut", file="tokens", inLocation="new")["status"]
    assert [row.key for row in small_storage.list("new")] == []


@pytest.mark.parametrize("parts", [("tokens",), ("state",), ("state", "jobs.sqlite")])
def test_the_transfer_of_a_tree_skips_denied_files(root: Path, parts: tuple[str, ...]) -> None:
    tree = LocalTree(str(root), deny_list=DenyList([str(root / "tokens"), str(root / "state")]))
    before = everything(root)
    for touch in (tree.open, tree.status, tree.new_file, tree.remove):
        with pytest.raises(DeniedFileError):
            touch(parts)
    if parts[0] == "state":
        with pytest.raises(DeniedFileError), tree.open_directory(("state",)):
            pass
    assert everything(root) == before


def test_a_path_to_a_denied_file_is_resolved_as_the_system_does(root: Path, small_storage: Storage) -> None:
    write_tree(root, {"deep/inner/x": b"x", "deep/secret": b"precious", "secret": b"no secret"})
    (root / "into").symlink_to("deep/inner")
    (root / "here").symlink_to("here")
    roots = AllowedRoots([str(root)])
    roots.deny([f"{root}/into/../secret", f"{root}/./deep/inner/.", f"{root}/here/x", f"{root}/{'x' * 300}"])

    def status(path: str) -> bool:
        order = {"action": "objPut", "meta": {"file": path, "inLocation": "new"}}
        return bool(StoreHandler(small_storage).run(order, RequestContext(roots=roots))["status"])

    paths = ("deep/secret", "secret", "deep/inner/x", "into/x", "here", "data/a")
    assert [status(path) for path in paths] == [False, True, False, False, False, True]


def test_changed_links_are_followed(
    root: Path, small_storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes keeps its secrets so: ``key -> ..data/key``, where ``..data`` is a link to the current ones."""
    write_tree(root, {"..one/key": b"precious", "..two/key": b"precious"})
    (root / "..data").symlink_to("..one")
    (root / "key").symlink_to("..data/key")
    roots = AllowedRoots([str(root)])
    roots.deny([str(root / "key")])
    (root / "..new").symlink_to("..two")
    (root / "..new").replace(root / "..data")
    monkeypatch.setattr("pfstorage.local.deny_list._REFRESH_SECONDS", 0)
    order = {"action": "objPut", "meta": {"file": "..two/key", "inLocation": "new"}}
    assert not StoreHandler(small_storage).run(order, RequestContext(roots=roots))["status"]


def test_a_link_on_the_way_may_be_followed_and_not_replaced(
    root: Path, small_storage: Storage, say: Answer
) -> None:
    assert say("objPut", file="ways/other", inLocation="new")["status"]
    assert say("objPull", fromLocation="s", mapLocationOver="ways/in")["status"]
    assert (root / "real/in/a").read_bytes() == b"new"
    small_storage.put("t/ways", io.BytesIO(b"evil"), 4)
    assert not say("objPull", fromLocation="t", mapLocationOver=".", overwrite="always")["status"]
    assert os.readlink(root / "ways") == "real"


def test_files_with_the_same_names_elsewhere_are_allowed(
    root: Path, small_storage: Storage, say: Answer
) -> None:
    assert say("objPut", file="data/tokens", inLocation="new")["status"]
    assert [row.key for row in small_storage.list("new")] == ["new/data/tokens"]
    assert say("objPull", fromLocation="s", mapLocationOver="data/state")["status"]
    assert (root / "data/state/a").read_bytes() == b"new"


# by another name


def linked(source: Path, target: Path) -> None:
    os.link(source, target)


def mounted_again(source: Path, target: Path) -> None:
    target.mkdir() if source.is_dir() else target.touch()
    done = subprocess.run(["mount", "--bind", source, target], capture_output=True)
    if done.returncode:
        pytest.skip("nothing can be mounted here")


@pytest.fixture
def unmounting(root: Path) -> Iterator[None]:
    yield
    for name in ("again", "elsewhere/again"):
        subprocess.run(["umount", "--lazy", root / name], capture_output=True)


Appear = Callable[[Path, Path], None]


@pytest.mark.usefixtures("unmounting")
@pytest.mark.parametrize("appear", [linked, mounted_again])
@pytest.mark.parametrize("own", ["tokens", "real/key.pem", "state/jobs.sqlite"])
def test_a_denied_file_is_denied_under_each_of_its_names(
    root: Path, small_storage: Storage, say: Answer, appear: Appear, own: str
) -> None:
    outside = write_tree(root.parent / "outside", FILES)
    roots = AllowedRoots([str(root)])
    roots.deny([str(outside / own)])
    say = answers_below(roots, small_storage)
    appear(outside / own, root / "again")
    for meta in ({"putSpec": "again"}, {"file": "again"}, {"fileList": ["again"]}):
        reply = say("objPut", **meta, inLocation="new")
        assert (reply["status"], "it is the server's own" in str(reply)) == (False, True)
    small_storage.put("new/again", io.BytesIO(b"precious"), 8)
    assert not say("objVerify", fromLocation="new", mapLocationOver=str(root))["status"]
    small_storage.delete("new/again")
    say("objPull", fromLocation="s/a", mapLocationOver="again", overwrite="always")
    assert (outside / own).read_bytes() == b"precious"
    assert say("objPut", file="data/a", inLocation="new")["status"]
    assert [row.key for row in small_storage.list("new/")] == ["new/data/a"]


@pytest.mark.usefixtures("unmounting")
@pytest.mark.parametrize("source", ["state", "."])
def test_a_denied_directory_is_denied_at_each_mount_point(
    root: Path, small_storage: Storage, source: str
) -> None:
    outside = write_tree(root.parent / "outside", FILES)
    roots = AllowedRoots([str(root)])
    roots.deny([str(outside / "state")])
    say = answers_below(roots, small_storage)
    mounted_again(outside / source, root / "again")
    before, below = (
        everything(outside),
        os.path.normpath(f"again/{'' if source == 'state' else 'state'}"),
    )
    for path in (below, f"{below}/jobs.sqlite"):
        reply = say("objPut", file=path, inLocation="new")
        assert (reply["status"], "it is the server's own" in str(reply)) == (False, True)
        reply = say("objPull", fromLocation="s", mapLocationOver=path, overwrite="always")
        assert (reply["status"], "it is the server's own" in str(reply)) == (False, True)
    reply = say("objPush", putSpec=".", inLocation="new")
    assert reply["status"], reply
    assert any(f"{below}' was left out: it is the server's own" in each for each in reply["warnings"])
    assert not [row.key for row in small_storage.list("new/") if f"{below}/jobs.sqlite" in row.key]
    assert everything(outside) == before


@pytest.mark.usefixtures("unmounting")
@pytest.mark.parametrize(
    ("appear", "own"), [(mounted_again, "state"), (linked, "tokens"), (mounted_again, "tokens")]
)
def test_no_object_of_a_store_of_files_is_one_of_them(root: Path, appear: Appear, own: str) -> None:
    outside = write_tree(root.parent / "outside", FILES)
    roots = AllowedRoots([str(root)])
    roots.deny([str(outside / own), str(root)])
    appear(outside / own, root / "again")
    before, key = everything(outside), "again/jobs.sqlite" if own == "state" else "again"
    context = RequestContext(roots=roots)
    with open_storage(type="filesystem", store_base=str(root)) as store:
        handler = StoreHandler(store)
        storage = handler.storage_for(context)
        for use in (
            lambda: storage.head(key),
            lambda: storage.get(key, io.BytesIO()),
            lambda: storage.delete(key),
            lambda: storage.copy(key, "copy"),
        ):
            with pytest.raises(PermissionDeniedError, match="it is the server's own"):
                use()
        listed = handler.run({"action": "ls", "meta": {}}, context)
        assert not [name for name in listed["ls"] if "again" in str(name)]
        assert "it is the server's own" in str(listed.get("warnings")) or "Permission denied" in str(listed)
        assert storage.head("data/a").size == 1
    assert everything(outside) == before


@pytest.mark.usefixtures("unmounting")
def test_the_directory_of_the_jobs_is_denied_from_the_first_message_on(
    root: Path, small_storage: Storage
) -> None:
    state = root.parent / "outside" / "state"
    with serving(StoreHandler(small_storage), fs_roots=(str(root),), state_dir=str(state)) as server:
        until(state.is_dir)
        port = server.server_port
        mounted_again(state, root / "again")
        for name in ("again", "again/jobs.sqlite"):
            reply = answer(port, post(message("objPut", file=name, inLocation="new"))).json
            assert (reply["status"], "it is the server's own" in str(reply)) == (False, True)
        os.link(state / "jobs.sqlite", root / "linked-again")
        reply = answer(port, post(message("objPut", file="linked-again", inLocation="new"))).json
        assert (reply["status"], "it is the server's own" in str(reply)) == (False, True)
        # the locks of SQLite are still there
        job = answer(port, post(message("objPull", path="s", mapLocationOver="out", **{"async": True}))).json
        assert answer(port, post(message("jobStatus", job=job["job"], wait=30))).json["state"] == "done"
    assert [row.key for row in small_storage.list("new/")] == []


def test_a_number_that_a_closed_file_has_left_to_another_closes_nothing(root: Path) -> None:
    closed = DenyList([str(root / "tokens")])
    tree = LocalTree(str(root), deny_list=closed)
    os.rename(root / "tokens", root / "was-closed")  # and nothing has looked again since
    assert tree.status(("was-closed",)).st_size == len(b"precious")


# the server


def test_while_a_thread_resolves_the_list_others_use_the_present_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = DenyList([str(root / "tokens")])
    monkeypatch.setattr("pfstorage.local.deny_list._REFRESH_SECONDS", 0.0)
    resolving, may_go_on, lstat = threading.Event(), threading.Event(), os.lstat

    def slow_lstat(path: str) -> os.stat_result:
        resolving.set()
        assert may_go_on.wait(60)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", slow_lstat)
    directory = os.open(root, os.O_RDONLY)
    thread = threading.Thread(target=denied.require_allowed, args=(directory, "other"))
    thread.start()
    try:
        assert resolving.wait(60)
        with pytest.raises(DeniedFileError):
            denied.require_allowed(directory, "tokens")
    finally:
        may_go_on.set()
        thread.join()
        os.close(directory)


def test_each_directory_is_looked_up_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    lstat = os.lstat

    def noting_lstat(path: str) -> os.stat_result:
        looked.append(path)
        return lstat(path)

    monkeypatch.setattr(os, "lstat", noting_lstat)
    DenyList([str(root / name) for name in ("tokens", "other", "data/a")])
    assert len(looked) == len(set(looked)) > 3


def test_the_server_denies_the_files_that_its_flags_name(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    write_tree(
        tmp_path, {"pw": b"secret", "conf.json": b"{}", "tokens": TOKEN.encode() + b"\n", "data/a": b"a"}
    )
    (tmp_path / "tokens").chmod(0o600)
    flags = ("--tlsCert", cert, "--tlsKey", key, "--enableTokenAuth", "--tokenPath", "tokens")
    transports.append(Transport({}, flags, ssl.create_default_context(cafile=cert)))
    flags = ("--swiftKey", "@pw", "--configFileLoad", "conf.json", "--stateDir", "state", "--forever")
    flags += ("--debugToDir", "records", "--type", "filesystem", "--storeBase", "store")
    try:
        with server_process(tmp_path, *flags) as served:

            def status(action: str, **meta: Any) -> bool:
                return bool(answer(served.port, post(message(action, **meta))).json["status"])

            assert status("objPut", file="data/a", inLocation="in")
            for name in ("tokens", "cert.pem", "key.pem", "pw", "conf.json", "state", "records", "store"):
                path = tmp_path / name
                before = path.stat().st_ino, path.is_dir() or path.read_bytes()
                for action in ("objPut", "objPush"):
                    assert not status(action, putSpec=name, inLocation="in")
                assert not status(
                    "objPull", fromLocation="in/data/a", mapLocationOver=name, overwrite="always"
                )
                assert (path.stat().st_ino, path.is_dir() or path.read_bytes()) == before
            assert status("objPull", fromLocation="in/data/a", mapLocationOver="data/b")
    finally:
        transports.pop()


@pytest.mark.parametrize(
    ("flag", "value"), [("--stateDir", "."), ("--debugToDir", "./"), ("--stateDir", "link/below")]
)
def test_the_server_keeps_nothing_of_its_own_in_a_root_itself(
    tmp_path: Path, command: Command, flag: str, value: str
) -> None:
    (tmp_path / "files" / "below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("files")
    roots = ("--fsRoot", ".", "--fsRoot", "files/below")
    done = command("--server", "--type", "memory", "--portSelf", "0", *roots, flag, value)
    assert done.returncode == 2
    assert (
        f"{flag}: messages may read and write the files in {value!r}: set {flag} or --fsRoot to another directory"
        in done.stderr
    )


@pytest.mark.parametrize("flag", ["--tlsKey", "--stateDir"])
def test_the_server_keeps_nothing_of_its_own_in_a_store_of_files(
    tmp_path: Path, command: Command, flag: str
) -> None:
    cert, key = make_certificate(write_tree(tmp_path / "store", {"a": b"a"}))
    flags = ("--tlsCert", cert, "--tlsKey", key) if flag == "--tlsKey" else (flag, "store/deep/state")
    done = command("--server", "--type", "filesystem", "--storeBase", "store", "--portSelf", "0", *flags)
    assert done.returncode == 2
    reported = flag.replace("Key", "Cert")
    assert (
        f"{reported}: a file below --storeBase is an object: set {reported} to another directory"
        in done.stderr
    )


@contextlib.contextmanager
def reloading(directory: Path) -> Iterator[tuple[Served, Callable[[str], None]]]:
    """Run a server, and yield it with a function that makes it keep its records in another directory."""
    settings, times = directory / "settings.json", itertools.count(1)
    settings.write_text("{}")

    def record_in(records: str) -> None:
        # the number shows when the server has read it
        number = next(times)
        settings.write_text(json.dumps({"this": {"debugToDir": records, "retries": number}}))
        served.process.send_signal(signal.SIGHUP)
        get = post(message("internalctl", var="/this/retries", get="x"))
        until(lambda: answer(served.port, get).json["d_ret"] == {"/this/retries": number})

    with server_process(
        directory, "--type", "memory", "--forever", "--configFileLoad", "settings.json"
    ) as served:
        yield served, record_in


def test_a_root_that_comes_to_hold_records_is_denied_as_a_whole(tmp_path: Path) -> None:
    write_tree(tmp_path, {"data/a": b"a"})
    with reloading(tmp_path) as (served, record_in):

        def status(action: str, **meta: Any) -> bool:
            return bool(answer(served.port, post(message(action, **meta))).json["status"])

        assert status("objPut", file="data/a", inLocation="in")
        record_in(str(tmp_path))
        assert not status("objPut", file="data/a", inLocation="in")
        assert not status("objPull", fromLocation="in", mapLocationOver="out")
        record_in("")
        assert status("objPull", fromLocation="in", mapLocationOver="out")
        served.process.terminate()
        _, said = served.ends()
    assert (
        "messages could access private files of the server: --debugToDir: messages may read and write" in said
    )


def test_records_are_denied_to_earlier_requests_too(tmp_path: Path) -> None:
    write_tree(tmp_path, {"data/records/a": b"a"})
    text = message("objPut", putSpec="data/records", inLocation="in")
    with reloading(tmp_path) as (served, record_in), connected(served.port) as early:
        head = request("POST", "/api/v1/cmd", f"Content-Length: {len(text)}", "Connection: close")
        early.sendall(head)
        record_in(str(tmp_path / "data/records"))
        early.sendall(text.encode())
        [reported] = answers(b"".join(iter(lambda: early.recv(65536), b"")))
        assert not reported.json["status"]
        assert answer(served.port, post(message("ls"))).json.get("ls", []) == []


def test_the_deny_list_is_computed_again_with_the_settings(tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text('{"this": {"debugToDir": "one"}}')
    flags = ("--type", "memory", "--forever", "--configFileLoad", "settings.json")
    write_tree(tmp_path, {"one/a": b"a", "two/a": b"a"})
    with server_process(tmp_path, *flags) as served:

        def is_stored(file: str = "two/a") -> bool:
            return bool(
                answer(served.port, post(message("objPut", file=file, inLocation="in"))).json["status"]
            )

        assert is_stored()
        assert not is_stored("one/a")
        settings.write_text('{"this": {"debugToDir": "two"}}')
        served.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while is_stored() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_stored()
        assert not is_stored("one/a")  # the records that are there name no fewer patients now
