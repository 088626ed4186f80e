"""Each reply equals its golden file. A change to a file in ``golden`` is a change of the public interface.

``PFSTORAGE_GOLDEN=write`` writes the files again. Read the difference before a commit.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from tests.conftest import ROOT, serving, write_tree
from tests.support.exchange import Transport, answer, post

GOLDEN = ROOT / "tests" / "golden"

MESSAGES: dict[str, dict[str, Any]] = {
    "ls": {"action": "ls", "meta": {"path": "storage/", "retSpec": ["name", "bytes"]}},
    "ls-default": {"action": "ls", "meta": {"path": "storage"}},
    "ls-whole": {"action": "ls", "meta": {"path": "storage/a", "retSpec": []}},
    "ls-nothing": {"action": "ls", "meta": {"path": "nothing", "substr": "x"}},
    "ls-subdirs": {"action": "ls", "meta": {"path": "storage/", "delimiter": "/", "retSpec": ["name"]}},
    "ls-page": {"action": "ls", "meta": {"path": "storage/", "limit": 1, "marker": "storage/a.txt"}},
    "ls-unknown-field": {"action": "ls", "meta": {"retSpec": ["name", "colour"]}},
    "ls-unknown-meta": {"action": "ls", "meta": {"path": "storage/a", "colour": "red"}},
    "objPut": {
        "action": "objPut",
        "meta": {"putSpec": "./data", "inLocation": "new", "mapLocationOver": "./data"},
    },
    "objPut-again": {
        "action": "objPush",
        "meta": {"putSpec": "data", "inLocation": "storage", "mapLocationOver": "data"},
    },
    "objPut-nothing": {"action": "objPut", "meta": {"putSpec": "./empty"}},
    "objPut-missing": {"action": "objPut", "meta": {"putSpec": "./missing"}},
    "objPut-partly": {
        "action": "objPut",
        "meta": {"fileList": ["data/a.txt", "data/gone"], "inLocation": "new"},
    },
    "objPull": {"action": "objPull", "meta": {"fromLocation": "storage", "mapLocationOver": "./out"}},
    "objPull-nothing": {"action": "objPull", "meta": {"fromLocation": "nothing", "mapLocationOver": "./out"}},
    "objPull-partly": {
        "action": "objPull",
        "meta": {"path": "sto", "fromLocation": "storage/sub", "mapLocationOver": "o"},
    },
    "objPut-dry-run": {
        "action": "objPut",
        "meta": {"putSpec": "data", "inLocation": "new", "mapLocationOver": "data", "dryRun": True},
    },
    "objPut-summary": {
        "action": "objPut",
        "meta": {"fileList": ["data/a.txt", "data/gone"], "inLocation": "new", "reply": "summary"},
    },
    "objPut-overwrite-unknown": {"action": "objPut", "meta": {"putSpec": "data", "overwrite": "sometimes"}},
    "objPut-audit": {
        "action": "objPut",
        "meta": {"putSpec": "data", "inLocation": "storage", "mapLocationOver": "data", "audit": True},
    },
    "objPull-audit": {
        "action": "objPull",
        "meta": {"fromLocation": "storage", "mapLocationOver": "./out", "audit": True, "reply": "summary"},
    },
    "objPull-selected": {
        "action": "objPull",
        "meta": {
            "fromLocation": "storage",
            "mapLocationOver": "./out",
            "include": "*.dcm",
            "exclude": ["x/**"],
        },
    },
    "objPull-shard-empty": {
        "action": "objPull",
        "meta": {"fromLocation": "nothing", "mapLocationOver": "./out", "shard": "1/2"},
    },
    "objSweep": {"action": "objSweep"},
    "objVerify": {"action": "objVerify", "meta": {"fromLocation": "storage", "mapLocationOver": "./data"}},
    "objVerify-differs": {"action": "objVerify", "meta": {"fromLocation": "storage", "mapLocationOver": "."}},
    "objExists": {"action": "objExists", "meta": {"obj": "storage/a.txt"}},
    "objExists-not": {"action": "objExists", "meta": {"obj": "storage/a"}},
    "objStat": {"action": "objStat", "meta": {"obj": "storage/a.txt"}},
    "objStat-not": {"action": "objStat", "meta": {"obj": "storage/a"}},
    "hello-timestamp": {"action": "hello", "meta": {"askAbout": "timestamp"}},
    "hello-echo": {"action": "hello", "meta": {"askAbout": "echoBack", "echoBack": "Hi there!"}},
    "hello-unknown": {"action": "hello", "meta": {"askAbout": "the weather"}},
    "internalctl-get-leaf": {"action": "internalctl", "meta": {"var": "/swift/container_name", "get": "x"}},
    "internalctl-get-tree": {"action": "internalctl", "meta": {"var": "/swift", "get": "x"}},
    "internalctl-get-missing": {"action": "internalctl", "meta": {"var": "/nothing", "get": "x"}},
    "internalctl-set": {"action": "internalctl", "meta": {"var": "/swift/container_name", "set": "other"}},
    "internalctl-set-tree": {
        "action": "internalctl",
        "meta": {"var": "/swift", "set": {"key": "new", "username": "u"}},
    },
    "internalctl-set-wrong": {"action": "internalctl", "meta": {"var": "/swift/auth_url", "set": "nonsense"}},
    "internalctl-replace": {"action": "internalctl", "meta": {"var": "testing", "valueReplace": "new"}},
    "quit-without-server": {"meta": {"ctl": {"serverCmd": "quit"}}},
    "unknown-action": {"action": "fly"},
    "wrong-type": {"action": "ls", "meta": {"path": 5}},
}

VOLATILE = [
    (r'"seconds": [\d.]+', '"seconds": 0'),
    (r'"now": "\d{20}\.\d{6}"|"now": "\d{14}\.\d{6}"', '"now": "TIME"'),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", "TIME"),
]


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[StoreHandler]:
    """A dispatcher over a memory that holds the two files of ``data``."""
    write_tree(tmp_path, {"data/a.txt": b"x", "data/sub/b.dcm": b"yy"})
    (tmp_path / "empty").mkdir()
    with open_storage(type="memory") as storage:
        handler = StoreHandler(storage)
        put = {"putSpec": "data", "inLocation": "storage", "mapLocationOver": "data"}
        assert handler.run({"action": "objPut", "meta": put})["status"] is True
        yield handler


def without_volatile(text: str, directory: Path) -> str:
    text = text.replace(str(directory), "CWD")
    for pattern, word in VOLATILE:
        text = re.sub(pattern, word, text)
    return text + "\n"


@pytest.mark.parametrize("name", MESSAGES)
def test_replies_equal_the_golden_files(handler: StoreHandler, name: str, tmp_path: Path) -> None:
    text = without_volatile(handler.answer(MESSAGES[name]).to_json(), tmp_path)
    path = GOLDEN / f"{name}.json"
    if os.environ.get("PFSTORAGE_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


# over HTTP, they change nothing
NOT_OVER_HTTP = {
    "internalctl-set-tree",
    "internalctl-set-wrong",
    "internalctl-replace",
    "quit-without-server",
}


@pytest.mark.parametrize("name", sorted(MESSAGES.keys() - NOT_OVER_HTTP))
def test_a_reply_over_http_is_the_same_to_the_letter(
    handler: StoreHandler, transport: Transport, name: str, tmp_path: Path
) -> None:
    with serving(handler) as server:
        reply = answer(server.server_port, post(json.dumps(MESSAGES[name])))
    assert without_volatile(reply.body.decode(), tmp_path) == (GOLDEN / f"{name}.json").read_text()


def test_no_golden_reply_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(MESSAGES)
