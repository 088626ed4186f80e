"""Bounds of the fields of a message: the reader enforces the schemas that the server publishes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from pfstorage.actions import ACTIONS
from pfstorage.actions.listing import ATTRIBUTES
from pfstorage.actions.options import MAX_GLOB_LENGTH, MAX_GLOBS, MAX_GLOBS_LENGTH
from pfstorage.backends.memory import MemoryStorage
from pfstorage.server.endpoints.schemas import schemas
from pfstorage.settings.model import Settings
from pfstorage.wire.fields import MAX_ITEMS, MAX_TEXT_LENGTH, wire_fields
from tests.conftest import run

LONG = "x" * (MAX_TEXT_LENGTH + 1)
MANY = ["x"] * (MAX_ITEMS + 1)
SCHEMAS = schemas()


def refused(action: str, **meta: Any) -> str:
    """Return the text of the reply, which is the error of a malformed message."""
    reply = run(MemoryStorage(Settings(type="memory")), action, **meta)
    assert reply["error"]["type"] == "MessageError"
    return str(reply["msg"])


def is_reported(action: str, **meta: Any) -> bool:
    """Return whether the OpenAPI document refuses *meta*."""
    schema = {**SCHEMAS[ACTIONS[action].meta.__name__], "components": {"schemas": SCHEMAS}}
    return not jsonschema_rs.validator_for(schema).is_valid(meta)


OUT_OF_BOUNDS: list[tuple[str, dict[str, Any], str]] = [
    ("ls", {"retSpec": ["name"] * 149_000}, "at most 6 items, not 149000"),
    ("ls", {"retSpec": [1] * 149_000}, "at most 6 items, not 149000"),  # before the types of the items
    ("ls", {"retSpec": ["name", "bytes", "name"]}, "each item once"),
    ("ls", {"limit": 0}, "from 1 to"),
    ("ls", {"limit": -1}, "from 1 to"),
    ("ls", {"limit": sys.maxsize + 1}, "from 1 to"),
    ("objPull", {"include": ["*"] * (MAX_GLOBS + 1)}, f"at most {MAX_GLOBS} items"),
    ("objVerify", {"exclude": ["a" * (MAX_GLOB_LENGTH + 1)]}, f"items of 1 to {MAX_GLOB_LENGTH} characters"),
    ("objPut", {"putSpec": "x", "exclude": ["a", ""]}, "items of 1 to"),
    ("objPull", {"shard": "1/" + "9" * 18}, "up to 19 characters"),
    ("objPull", {"fileList": [{"from": "a", "to": LONG}]}, "items of 0 to"),
    ("objPull", {"fileList": [{"from": LONG, "to": "a"}]}, "items of 0 to"),
    ("objPull", {"fileList": ["a", LONG]}, "items of 0 to"),
    ("objPull", {"overwrite": "sometimes"}, "changed or always or never, not 'sometimes'"),
    ("objPull", {"reply": "long"}, "full or summary"),
    ("objPull", {"jid": "x" * 201}, "up to 200 characters"),
    ("objSweep", {"olderThan": -1}, "from 0 to"),
    ("objSweep", {"olderThan": 10**10}, "from 0 to"),
    ("jobStatus", {"job": "x", "wait": 61}, "from 0 to 60"),
    ("jobList", {"limit": 0}, "from 1 to 1000"),
    ("jobList", {"limit": 1001}, "from 1 to 1000"),
]


@pytest.mark.parametrize(("action", "meta", "text"), OUT_OF_BOUNDS)
def test_a_value_out_of_bounds_is_refused_and_the_schema_forbids_it(
    action: str, meta: dict[str, Any], text: str
) -> None:
    assert text in refused(action, **meta)
    assert is_reported(action, **meta)


ANY_LENGTH = {
    ("internalctl", "var"),
    ("jobStatus", "job"),
    ("jobStatus", "jid"),
    ("jobCancel", "job"),
    ("jobCancel", "jid"),
}
NAMES = [
    (action.name, name, field.schema.get("type"))
    for action in ACTIONS.values()
    for field in wire_fields(action.meta)
    for name in field.names
    if (action.name, name) not in ANY_LENGTH
]


@pytest.mark.parametrize(
    ("action", "name"), [(action, name) for action, name, kind in NAMES if kind == "string"]
)
def test_each_text_of_each_action_has_a_bound(action: str, name: str) -> None:
    assert refused(action, **{name: LONG}).startswith(f"meta {name!r} takes ")
    assert is_reported(action, **{name: LONG})


@pytest.mark.parametrize(
    ("action", "name"), [(action, name) for action, name, kind in NAMES if kind == "array"]
)
def test_each_list_of_each_action_has_a_bound_and_so_have_its_texts(action: str, name: str) -> None:
    for value in (MANY, [LONG]):
        if name != "retSpec" or value is MANY:
            assert refused(action, **{name: value}).startswith(f"meta {name!r} takes ")
        assert is_reported(action, **{name: value})


def test_globs_are_bounded_in_all() -> None:
    globs = ["a" * MAX_GLOB_LENGTH] * (MAX_GLOBS_LENGTH // MAX_GLOB_LENGTH)
    storage = MemoryStorage(Settings(type="memory"))
    assert run(storage, "objVerify", include=globs)["error"]["type"] == "ContainerNotFoundError"
    assert f"{MAX_GLOBS_LENGTH} characters in all" in refused("objVerify", include=[*globs, "a"])
    assert f"{MAX_GLOBS_LENGTH} characters in all" in refused("objPut", putSpec="x", exclude=[*globs, "a"])


def test_a_value_at_its_bound_is_accepted() -> None:
    storage = MemoryStorage(Settings(type="memory"))
    Path("file").write_bytes(b"x")
    assert run(storage, "objPut", file="file")["status"]
    assert len(run(storage, "ls", retSpec=[*ATTRIBUTES, "content-type"])["ls"][0]) == 6
    assert run(storage, "ls", path=LONG[1:], substr=LONG[1:])["status"] is False
    assert run(storage, "ls", limit=sys.maxsize)["status"]
    assert run(storage, "objVerify", fileList=["file"] * MAX_ITEMS)["same"] == 1
