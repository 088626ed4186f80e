"""Limits of text for a location that a message names once and each of its files repeats."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler
from pfstorage.actions.options import MAX_LOCATION_TEXT
from pfstorage.keys.mapping import MAX_KEY_BYTES
from pfstorage.settings.model import Settings
from pfstorage.transfer.plan import MAX_FAILURE_TEXT

LONG = "d/" * 7000
NAMES = [f"{number}.dcm" for number in range(2000)]
AROUND = 1024 * 1024


def answered(action: str, **meta: Any) -> tuple[dict[str, Any], int]:
    """Return the reply to a message, and how long it is."""
    with contextlib.closing(StoreHandler(settings=Settings(type="memory"))) as handler:
        reply = handler.answer({"action": action, "meta": meta})
    return reply.body, len(reply.to_json())


@pytest.mark.parametrize(
    ("action", "meta"),
    [
        ("objPut", {"inLocation": LONG}),
        ("objPush", {"prependBucketPath": LONG}),
        ("objPut", {"prependBucketPath": "d/" * 300, "inLocation": "e/" * 300}),
        ("objPut", {"inLocation": "\U0001f600" * 257, "dryRun": True}),
        ("objPull", {"prependBucketPath": LONG}),
        ("objVerify", {"prependBucketPath": LONG}),
    ],
)
def test_a_location_that_no_key_fits_below_is_refused_once_and_not_for_each_file(
    action: str, meta: dict[str, Any]
) -> None:
    body, length = answered(action, fileList=NAMES, mapLocationOver="", **meta)

    assert body["error"] == {"type": "InvalidKeyError"}
    assert f"at most {MAX_KEY_BYTES} bytes" in body["msg"]
    assert length < 1000


def test_a_tree_is_not_named_file_by_file_for_a_location_that_no_key_fits_below(tmp_path: Path) -> None:
    for name in NAMES[:20]:
        (tmp_path / name).write_bytes(b"x")

    body, length = answered("objPut", putSpec=str(tmp_path), inLocation=LONG, dryRun=True)

    assert body["error"] == {"type": "InvalidKeyError"}
    assert length < 1000


def test_the_longest_location_of_a_key_is_taken(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    location = "d" * (MAX_KEY_BYTES - len("/f"))

    body, _ = answered("objPut", putSpec=str(tmp_path), mapLocationOver=str(tmp_path), inLocation=location)

    assert body["objectFileList"] == [f"{location}/f"]


@pytest.mark.parametrize(
    ("action", "before"),
    [("objPull", "mapLocationOver"), ("objPull", "prependBucketPath"), ("objPut", "inLocation")],
)
def test_a_list_times_its_location_is_bounded(action: str, before: str, tmp_path: Path) -> None:
    location = "a" * 1000
    most = MAX_LOCATION_TEXT // len(location)

    body, _ = answered(action, fileList=["x"] * (most + 1), **{before: location})

    assert body["error"] == {"type": "MessageError"}
    assert "send several messages" in body["msg"]


def test_a_list_that_with_its_location_is_just_short_enough_is_taken() -> None:
    location = "a/" * 500

    body, _ = answered(
        "objPull", fileList=["x"] * (MAX_LOCATION_TEXT // len(location)), prependBucketPath=location
    )

    assert body["error"]["type"] == "ContainerNotFoundError"  # the store was asked


def test_failures_are_named_until_their_rows_are_long_and_then_counted() -> None:
    over = "/o" * 7000  # it is quoted for each file that is not below it
    names = ["x" * 5000 + str(number) for number in range(2000)]

    body, length = answered("objPut", fileList=names, mapLocationOver=over)

    assert body["failedCount"] == len(names)
    assert 0 < len(body["failed"]) < len(names)
    assert MAX_FAILURE_TEXT < length < MAX_FAILURE_TEXT + AROUND
