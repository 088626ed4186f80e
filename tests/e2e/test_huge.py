"""An object of 5 GiB there and back, in segments of 256 MiB. It takes minutes and 15 GB: run it with ``-m huge``."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.devswift import DevSwift
from tests.conftest import swift_options

SIZE = 5 * 1024**3
SEGMENT = 256 * 1024**2


def write_sparse(path: Path) -> None:
    """Write a file that is all holes but for a few bytes in each segment, at its ends and within."""
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        for start in range(0, SIZE, SEGMENT):
            for offset in (start, start + SEGMENT // 3, start + SEGMENT - 16):
                file.seek(offset)
                file.write(offset.to_bytes(16, "big"))


def md5(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.md5(usedforsecurity=False)
        while chunk := file.read(1024**2):
            digest.update(chunk)
        return digest.hexdigest()


@pytest.mark.huge
def test_an_object_of_5_gib_comes_back_unchanged(swift: DevSwift, tmp_path: Path) -> None:
    write_sparse(tmp_path / "data" / "volume")
    with open_storage(**swift_options(swift, segment_size="256M")) as storage:
        handler = StoreHandler(storage)
        push = {"putSpec": "data", "mapLocationOver": "data", "inLocation": "s"}
        pushed = handler.run({"action": "objPush", "meta": push})
        assert (pushed["status"], pushed["bytes"]) == (True, SIZE)
        assert handler.run({"action": "objPush", "meta": push})["skipped"] == 1
        pulled = handler.run(
            {"action": "objPull", "meta": {"fromLocation": "s", "mapLocationOver": "out", "audit": True}}
        )
        assert (pulled["status"], pulled["bytes"], pulled["audit"]["same"]) == (True, SIZE, 1)
    assert (tmp_path / "out" / "volume").stat().st_size == SIZE
    assert md5(tmp_path / "out" / "volume") == md5(tmp_path / "data" / "volume")
