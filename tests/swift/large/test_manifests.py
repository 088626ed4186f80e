"""Large objects of other programs: static ones with odd manifests, and dynamic ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import swiftclient

from pfstorage.backends import Storage
from tests.conftest import read_tree, run
from tests.support.large import PULL, PUT, container_of
from tests.support.local import parts_in


def put_manifest(raw: swiftclient.Connection, container: str, key: str, rows: list[dict[str, Any]]) -> None:
    raw.put_object(container, key, json.dumps(rows), query_string="multipart-manifest=put")


@pytest.fixture
def parts(store: Storage, raw: swiftclient.Connection) -> str:
    """The container of the parts 0 to 3, of 100 000 bytes each."""
    container = f"{container_of(store)}-parts"
    raw.put_container(container)
    raw.put_container(container_of(store))
    for number in range(4):
        raw.put_object(container, f"p{number}", bytes([number]) * 100_000)
    return container


def part(number: int) -> bytes:
    return bytes([number]) * 100_000


def path_of(container: str, key: int | str, **more: Any) -> dict[str, Any]:
    return {"path": f"/{container}/{f'p{key}' if isinstance(key, int) else key}", **more}


def test_a_large_object_of_others_is_pulled_and_verified(
    store: Storage, raw: swiftclient.Connection, parts: str, tmp_path: Path
) -> None:
    container = container_of(store)
    put_manifest(raw, container, "s/plain", [path_of(parts, 0), path_of(parts, 1)])
    put_manifest(raw, container, "inner", [path_of(parts, 1), path_of(parts, 2)])
    put_manifest(raw, container, "middle", [path_of(container, "inner"), path_of(parts, 3)])
    nested = [path_of(parts, 0), path_of(container, "middle"), path_of(container, "inner")]
    put_manifest(raw, container, "s/nested", nested)
    put_manifest(raw, container, "deep", [path_of(container, "s/nested"), path_of(parts, 0)])
    put_manifest(raw, container, "s/deeper", [path_of(container, "deep"), path_of(parts, 0)])
    ranges = [path_of(parts, 0, range="10-89999"), path_of(parts, 1), path_of(parts, 2, range="-70000")]
    put_manifest(raw, container, "s/ranges", ranges)
    put_manifest(raw, container, "s/range-of-large", [path_of(container, "inner", range="50000-149999")])
    expected = {
        "plain": part(0) + part(1),
        "nested": part(0) + part(1) + part(2) + part(3) + part(1) + part(2),
        "deeper": part(0) + part(1) + part(2) + part(3) + part(1) + part(2) + part(0) + part(0),
        "ranges": bytes(89_990) + part(1) + b"\2" * 70_000,
        "range-of-large": b"\1" * 50_000 + b"\2" * 50_000,
    }
    reply = run(store, "objPull", **PULL)
    assert (reply["status"], reply["failed"]) == (True, [])
    assert read_tree(tmp_path / "out") == expected


def test_bytes_within_a_manifest_are_pulled_too(
    store: Storage, raw: swiftclient.Connection, parts: str, tmp_path: Path
) -> None:
    """Swift takes small pieces inline, in base64 (its documentation, "Static Large Objects")."""
    rows = [path_of(parts, 0), {"data": "aGVsbG8="}, path_of(parts, 1)]
    put_manifest(raw, container_of(store), "s/inline", rows)
    reply = run(store, "objPull", **PULL)
    assert (reply["status"], reply["failed"]) == (True, [])
    assert read_tree(tmp_path / "out") == {"inline": part(0) + b"hello" + part(1)}
    again = run(store, "objPut", **{**PUT, "putSpec": "out", "mapLocationOver": "out"})
    assert (again["status"], again["skipped"]) == (True, 1)


def test_a_dynamic_large_object_is_pulled_verified_and_not_taken_for_empty(
    store: Storage, raw: swiftclient.Connection, parts: str, tmp_path: Path
) -> None:
    raw.put_object(container_of(store), "s/dlo", b"", headers={"X-Object-Manifest": f"{parts}/p"})
    content = b"".join(part(number) for number in range(4))
    for _ in range(2):
        assert run(store, "objPull", **PULL)["status"] is True
        assert read_tree(tmp_path / "out") == {"dlo": content}
    assert run(store, "objVerify", **PULL)["same"] == 1
    (tmp_path / "out" / "dlo").write_bytes(content[:-1] + b"x")
    assert run(store, "objVerify", **PULL)["changed"] == ["s/dlo"]
    (tmp_path / "out" / "dlo").write_bytes(b"")
    assert run(store, "objVerify", **PULL)["changed"] == ["s/dlo"]


@pytest.mark.parametrize("size", [100_000, 50_000])
def test_a_large_object_with_a_segment_that_was_overwritten_fails_and_makes_no_file(
    store: Storage, raw: swiftclient.Connection, parts: str, size: int
) -> None:
    put_manifest(raw, container_of(store), "s/broken", [path_of(parts, number) for number in range(4)])
    put_manifest(raw, container_of(store), "s/whole", [path_of(parts, 0), path_of(parts, 1)])
    raw.put_object(parts, "p2", b"x" * size)
    reply = run(store, "objPull", {"retries": 0}, **PULL)
    assert (reply["status"], [row["object"] for row in reply["failed"]]) == (False, ["s/broken"])
    assert read_tree(Path("out")) == {"whole": part(0) + part(1)}
    assert parts_in("out") == []


def test_a_missing_segment_fails_the_object(store: Storage, raw: swiftclient.Connection, parts: str) -> None:
    put_manifest(raw, container_of(store), "s/broken", [path_of(parts, number) for number in range(4)])
    raw.delete_object(parts, "p3")
    reply = run(store, "objPull", {"retries": 0}, **PULL)
    assert (reply["status"], [row["object"] for row in reply["failed"]]) == (False, ["s/broken"])
    assert read_tree(Path("out")) == {}


def test_a_large_object_that_lacks_an_inner_manifest_is_not_reported_as_missing(
    store: Storage, raw: swiftclient.Connection, parts: str, tmp_path: Path
) -> None:
    container = container_of(store)
    put_manifest(raw, container, "inner", [{"path": f"/{parts}/p0"}])
    put_manifest(raw, container, "s/outer", [{"path": f"/{container}/inner"}, {"path": f"/{parts}/p1"}])
    raw.delete_object(container, "inner")
    reply = run(store, "objPull", fromLocation="s", mapLocationOver=str(tmp_path / "out"))
    [failed] = reply["failed"]
    assert failed["object"] == "s/outer"
    assert "'s/outer' is damaged: the manifest 'inner' in it is missing" in failed["msg"]
    assert reply["error"]["type"] == "IntegrityError"
    assert run(store, "objExists", obj="s/outer")["status"] is True


def test_a_dynamic_object_without_its_container_does_not_end_a_run(
    store: Storage, raw: swiftclient.Connection, tmp_path: Path
) -> None:
    container = container_of(store)
    raw.put_container(container)
    raw.put_object(container, "s/dlo", b"", headers={"X-Object-Manifest": "no-such-container/p"})
    for number in range(8):
        raw.put_object(container, f"s/{number}", b"x")
    reply = run(store, "objPull", {"workers": 1}, fromLocation="s", mapLocationOver=str(tmp_path / "out"))
    assert len(reply["objectFileList"]) >= 8
    assert not any("not tried" in row["msg"] for row in reply["failed"])


@pytest.mark.parametrize("prefix", ["pä", "p%C3%A4"])
def test_the_prefix_of_a_dynamic_object_may_be_utf_8(
    store: Storage, raw: swiftclient.Connection, parts: str, tmp_path: Path, prefix: str
) -> None:
    container = container_of(store)
    raw.put_object(parts, "pä1", b"abc")
    raw.put_object(container, "s/dlo", b"", headers={"X-Object-Manifest": f"{parts}/{prefix}"})
    assert store.list_parts(store.head("s/dlo"))[0].size == 3  # type: ignore[attr-defined]
    assert run(store, "objPull", fromLocation="s", mapLocationOver=str(tmp_path / "out"))["status"] is True
    assert (tmp_path / "out" / "dlo").read_bytes() == b"abc"
