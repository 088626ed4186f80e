"""The main job by all three interfaces: real DICOM files into a real Swift and back. The replies are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import pfstorage
from pfstorage import StoreHandler
from pfstorage.devswift import DevSwift
from tests.conftest import Command, ask, read_tree, serving, swift_options
from tests.support.replies import without_volatile

pytestmark = pytest.mark.usefixtures("transport")


def flags_for(options: dict[str, Any]) -> list[str]:
    return [
        "--type",
        "swift",
        "--swiftAuthUrl",
        options["auth_url"],
        "--swiftContainer",
        options["container_name"],
    ]


def test_a_dicom_tree_comes_back_byte_for_byte_by_the_command_line(
    swift: DevSwift, dicom_files: Path, command: Command, tmp_path: Path
) -> None:
    flags = flags_for(swift_options(swift))
    put = {"putSpec": str(dicom_files), "inLocation": "chris/DICOM", "mapLocationOver": str(dicom_files)}
    pushed = command(*flags, "--msg", json.dumps({"action": "objPut", "meta": put}))
    assert pushed.returncode == 0
    assert len(json.loads(pushed.stdout)["objectFileList"]) == len(read_tree(dicom_files))
    pull = {"fromLocation": "chris/DICOM", "mapLocationOver": "./back"}
    pulled = command(*flags, "--msg", json.dumps({"action": "objPull", "meta": pull}))
    assert pulled.returncode == 0
    assert read_tree(tmp_path / "back") == read_tree(dicom_files)


MESSAGES: list[dict[str, Any]] = [
    {"action": "ls", "meta": {"path": "chris"}},
    {"action": "ls", "meta": {"path": "chris", "retSpec": ["name", "bytes", "hash", "content_type"]}},
    {"action": "ls", "meta": {"path": "chris", "retSpec": []}},
    {"action": "ls", "meta": {"path": "nothing/here"}},
    {"action": "ls", "meta": {"path": 5}},
    {"action": "ls", "meta": {"retSpec": {}}},
    {"action": "ls", "meta": {"retSpec": ["colour"]}},
    {"action": "ls", "meta": {"path": "chris", "colour": "red"}},
    {"action": "objExists", "meta": {"obj": "chris/a.txt"}},
    {"action": "objExists", "meta": {"obj": "chris/b.txt"}},
    {"action": "objStat", "meta": {"obj": "chris/a.txt"}},
    {"action": "objStat", "meta": {"obj": "chris/b.txt"}},
    {"action": "objPut", "meta": {"putSpec": "./empty", "inLocation": "x"}},
    {"action": "objPut", "meta": {"putSpec": "./data", "inLocation": "chris", "mapLocationOver": "./data"}},
    {"action": "objPush", "meta": {"localpath": "./data", "toLocation": "pypx", "mapLocationOver": "data/"}},
    {"action": "objPull", "meta": {"fromLocation": "chris", "mapLocationOver": "./out"}},
    {"action": "objPull", "meta": {"fromLocation": "nothing", "mapLocationOver": "./out"}},
    {"action": "hello", "meta": {"askAbout": "echoBack", "echoBack": "Hi there!"}},
    {"action": "hello", "meta": {"askAbout": "timestamp"}},
    {"action": "hello", "meta": {"askAbout": "the weather"}},
    {"action": "internalctl", "meta": {"var": "/swift", "get": "x"}},
    {"action": "internalctl", "meta": {"var": "/nothing", "get": "x"}},
    {"action": "internalctl", "meta": {"var": "/swift/container_name"}},
    {"action": "fly"},
    {"meta": {}},
    {"action": "ls", "meta": []},
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: json.dumps(message)[:60])
def test_the_same_message_gets_the_same_json_from_all_interfaces(
    message: dict[str, Any], swift: DevSwift, command: Command, tmp_path: Path
) -> None:
    options = swift_options(swift)
    (tmp_path / "empty").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("content")
    text = json.dumps(message)
    with pfstorage.open_storage(**options) as storage:
        handler = StoreHandler(storage)
        handler.run(
            {
                "action": "objPut",
                "meta": {"putSpec": "data", "inLocation": "chris", "mapLocationOver": "data"},
            }
        )
        handler.run(text)  # so that each interface finds the objects of the one before it
        by_library = handler.run(text)
        with serving(handler) as server:
            _, by_http = ask(server, text)
        by_command = json.loads(command(*flags_for(options), "--retries", "1", "--msg", text).stdout)
    assert without_volatile(by_http) == without_volatile(by_library) == without_volatile(by_command)
