"""The main job by all three interfaces: real DICOM files into a real Swift and back. The replies are the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pfstorage
from pfstorage import StoreHandler
from pfstorage.devswift import DevSwift
from tests.conftest import Command, ask, read_tree, serving, swift_options
from tests.support.replies import without_volatile


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


@pytest.fixture
def handler(swift: DevSwift, tmp_path: Path) -> Iterator[StoreHandler]:
    """A handler of a container that has an object, and files in the current directory."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("content")
    with pfstorage.open_storage(**swift_options(swift)) as storage:
        handler = StoreHandler(storage)
        put = {"putSpec": "data", "inLocation": "chris", "mapLocationOver": "data"}
        handler.run({"action": "objPut", "meta": put})
        yield handler


def by_library(handler: StoreHandler, text: str) -> dict[str, Any]:
    """Return the second reply to a message: the next interface finds the same objects and files."""
    handler.run(text)
    return without_volatile(handler.run(text))


texts = pytest.mark.parametrize("text", [*map(json.dumps, MESSAGES)], ids=lambda text: text[:60])


@texts
@pytest.mark.usefixtures("transport")
def test_the_same_message_gets_the_same_json_from_the_library_and_by_http(
    text: str, handler: StoreHandler
) -> None:
    wanted = by_library(handler, text)
    with serving(handler) as server:
        assert without_volatile(ask(server, text)[1]) == wanted


@texts
def test_the_same_message_gets_the_same_json_from_the_library_and_the_command_line(
    text: str, handler: StoreHandler, command: Command
) -> None:
    wanted = by_library(handler, text)
    swift = handler.storage.settings.swift
    flags = flags_for({"auth_url": swift.auth_url, "container_name": swift.container_name})
    done = command(*flags, "--retries", "1", "--msg", text)
    assert without_volatile(json.loads(done.stdout)) == wanted
