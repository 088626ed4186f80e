"""Code written for 2.x runs unchanged."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import swiftclient

from pfstorage import D, FL2dict, PfStorage, StoreHandler, ThreadedHTTPServer, swiftStorage
from pfstorage.compat.v2 import key_dereference, storagePath_get
from pfstorage.devswift import DevSwift
from tests.conftest import ask, read_tree, write_tree
from tests.support.v2 import old_args


@pytest.fixture
def old(
    swift: DevSwift, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[swiftStorage]:
    monkeypatch.setenv("SWIFT_CONTAINER_NAME", f"compat-{abs(hash(request.node.name))}")
    arguments = argparse.Namespace(**old_args(swift))
    made = swiftStorage(args=vars(arguments), name="pfstorage", desc="an interface", version="2.0.0.2")
    yield made
    made.close()  # 2.x had no `close`; without it, Python closes the connections


def test_the_methods_of_2_x_reply_as_they_did(old: swiftStorage, tmp_path: Path) -> None:
    write_tree(tmp_path, {"data/a.dcm": b"a", "data/sub/b.dcm": b"b"})
    files = old.filesFind(root="./data")
    assert (files["status"], files["numFiles"], files["numDirs"]) == (True, 2, 1)
    put = old.objPut(fileList=files["l_fileFS"], inLocation="chris", mapLocationOver="./data")
    assert put["status"] is True
    assert sorted(put["objectFileList"]) == ["chris/a.dcm", "chris/sub/b.dcm"]
    assert old.objPut(file="./data/a.dcm", inLocation="one", mapLocationOver="./data")["objectFileList"] == [
        "one/a.dcm"
    ]
    listing = old.ls(path="chris")
    assert (listing["status"], listing["fullPath"]) == (True, "chris")
    assert listing["lsList"] == ["chris/a.dcm", "chris/sub/b.dcm"]
    assert [row["bytes"] for row in listing["objectDict"]] == [1, 1]
    assert old.ls(path="nothing") == {"status": False, "objectDict": [], "lsList": [], "fullPath": "nothing"}
    assert old.objExists(obj="chris/a.dcm") == {"status": True, "objPath": "chris/a.dcm"}
    assert old.objExists(obj="chris/a")["status"] is False
    pull = old.objPull(
        path="chris", substr="b.dcm", fromLocation="chris", mapLocationOver=str(tmp_path / "out")
    )
    assert pull["status"] is True
    assert read_tree(tmp_path / "out") == {"sub/b.dcm": b"b"}


def test_run_takes_json_and_returns_the_reply(old: swiftStorage) -> None:
    assert old.run('{"action": "ls", "meta": {"path": ""}}')["status"] is False
    assert old.run("{")["error"]["type"] == "MessageError"
    hello = old.run('{"action": "hello", "meta": {"askAbout": "timestamp"}}')
    assert (hello["d_ret"]["name"], hello["d_ret"]["version"]) == ("pfstorage", "2.0.0.2")


def test_connect_gives_a_connection_of_the_sdk_and_sets_the_bucket_path(
    old: swiftStorage, tmp_path: Path
) -> None:
    reported = old.connect(prependBucketPath="bucket")
    assert (reported["status"], reported["user"], reported["prependBucketPath"]) == (
        True,
        "chris:chris1234",
        "bucket",
    )
    assert isinstance(reported["conn"], swiftclient.Connection)
    write_tree(tmp_path, {"a": b"x"})
    assert old.objPut(file="a", inLocation="in")["objectFileList"] == ["bucket/in/a"]
    assert old.ls(path="in")["lsList"] == ["bucket/in/a"]
    _, rows = reported["conn"].get_container(reported["container_name"])
    assert [row["name"] for row in rows] == ["bucket/in/a"]
    reported["conn"].close()


def test_two_storages_in_one_process_are_independent(swift: DevSwift) -> None:
    first = swiftStorage(args=old_args(swift), name="first", version="1")
    second = swiftStorage(args=old_args(swift, portSwift="9"), name="second", version="2")
    assert first.s.T.cat("/swift/auth_url") != second.s.T.cat("/swift/auth_url")
    assert first.run('{"action": "hello", "meta": {"askAbout": "timestamp"}}')["d_ret"]["name"] == "first"
    first.connect(prependBucketPath="only-first")
    assert second.connect()["prependBucketPath"] == ""


def test_a_failing_store_is_a_reply_and_not_an_exception(swift: DevSwift) -> None:
    down = swiftStorage(args=old_args(swift, portSwift="9", retries=0))
    assert down.ls(path="")["error"]["type"] == "UnavailableError"
    assert down.objExists(obj="a")["status"] is False
    assert down.objPull(path="a", mapLocationOver="out")["status"] is False


def test_a_method_process_answers_its_own_action(swift: DevSwift) -> None:
    class Mine(swiftStorage):
        def fly_process(self, *, request: dict[str, Any]) -> dict[str, Any]:
            return {"status": True, "flown": request["meta"]["to"]}

    assert Mine(args=old_args(swift)).run('{"action": "fly", "meta": {"to": "Boston"}}')["flown"] == "Boston"


def test_any_backend_has_the_interface_of_2_x(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": b"x"})
    storage = PfStorage(args={"str_type": "filesystem", "storeBase": "store"})
    assert storage.objPut(file="a", inLocation="in")["status"] is True
    assert storage.ls(path="")["lsList"] == ["in/a"]


@pytest.fixture
def server(swift: DevSwift) -> Iterator[ThreadedHTTPServer]:
    class Extended(StoreHandler):
        def fly_process(self, *, request: dict[str, Any]) -> dict[str, Any]:
            return {"status": True, "seen": request}

    with ThreadedHTTPServer(("127.0.0.1", 0), Extended) as server:
        server.setup(args=old_args(swift), name="mine", desc="", ver="9.9")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_server_of_2_x_is_set_up_as_it_was(server: ThreadedHTTPServer) -> None:
    assert server.args["ipSwift"] == "127.0.0.1"
    status, reply = ask(server, {"action": "hello", "meta": {"askAbout": "timestamp"}})
    assert (status, reply["d_ret"]["name"], reply["d_ret"]["version"]) == (200, "mine", "9.9")
    status, reply = ask(server, {"action": "fly", "meta": {"a": 1}})
    assert (status, reply) == (200, {"status": True, "seen": {"action": "fly", "meta": {"a": 1}}})


def test_the_state_is_a_tree(swift: DevSwift) -> None:
    state = D(args=old_args(swift), name="mine", version="1")
    assert state("/this/name") == "mine"
    assert state.T.cat("/swift/container_name") == "users"
    assert state("/swift/container_name", "other") == "other"
    assert state.T.exists("/swift")
    assert state.T.isdir("/swift")
    assert not state.T.isdir("/swift/key")
    assert not state.T.exists("/nothing")
    assert state.T.cat("/nothing") is False
    assert state("/this/args/portSwift") == str(swift.port)
    nested = state.internalctl_process(request={"meta": {"var": "/this/args", "get": "x"}})["d_ret"]
    assert nested["this"]["args"]["ipSwift"] == "127.0.0.1"
    assert set(state.d_state) >= {"this", "swift"}
    answer = state.internalctl_process(
        request={"action": "internalctl", "meta": {"var": "/swift/key", "get": "x"}}
    )
    assert answer == {"d_ret": {"/swift/key": "********"}, "status": True}


def test_flat_forms_are_nested() -> None:
    flat = "action=ls&meta[path]=a_b&meta[retSpec][]=name&meta[retSpec][]=bytes"
    nested = {"action": "ls", "meta": {"path": "a_b", "retSpec": ["name", "bytes"]}}
    assert FL2dict(flat)() == nested
    assert FL2dict({"action": "ls", "meta[path]": "x"}).do() == {"action": "ls", "meta": {"path": "x"}}


@pytest.mark.parametrize(
    "request_",
    [{}, {"meta-store": {"meta": "m", "key": "k"}}, {"meta-store": {"meta": "m", "key": "k"}, "m": {}}],
)
def test_a_key_that_is_not_there_is_status_false(request_: dict[str, Any]) -> None:
    assert key_dereference(request_) == {"status": False, "key": ""}


def test_key_directories_are_named_as_they_were(old: swiftStorage) -> None:
    assert storagePath_get("12", "/base") == old.storagePath_get("12", "/base") == "/base/key-12/"
    assert old.getStoragePath(12, "/base") == "/base/key-12/"
    request = {"meta-store": {"meta": "meta-data", "key": "jid"}, "meta-data": {"jid": "j-1"}}
    assert old.key_dereference(request=request) == {"status": True, "key": "j-1"}


def test_the_old_module_path_has_the_old_names() -> None:
    from pfstorage import pfstorage as module

    assert module.swiftStorage is swiftStorage
    assert module.StoreHandler is StoreHandler
    assert json.dumps(sorted(module.__all__)) == json.dumps(
        ["D", "FL2dict", "PfStorage", "StoreHandler", "ThreadedHTTPServer", "swiftStorage"]
    )
