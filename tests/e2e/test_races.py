"""Several processes that write one key: the object is always complete, and always from one of them."""

from __future__ import annotations

import contextlib
import io
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import open_storage
from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from pfstorage.errors import NotFoundError
from tests.conftest import ROOT, run, swift_options, write_tree
from tests.support.faults import Exchange, Fault, Proxy

PIECE = 64 * 1024
KEY = "a/b/key"
RACERS = 4
FILES = {
    f"{kind}{number}": random.Random(f"{kind}{number}").randbytes(size + number)
    for number in range(RACERS)
    for kind, size in (("small", 3000), ("large", PIECE + 1000))
}
MOVES = ("small", "large", "large", "tree", "name", "delete")


@pytest.fixture
def swift(own_account: DevSwift) -> DevSwift:
    return own_account


class Race:
    """`RACERS` processes on the storage with *options*. Each has its own small file and its own large file."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.racer", json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
                text=True,
            )
            for _ in range(RACERS)
        ]

    def run(self, *moves: str) -> list[dict[str, Any]]:
        """Make the processes run their *moves* at once. Return their replies."""
        for number, (process, move) in enumerate(zip(self._processes, moves, strict=True)):
            assert process.stdin
            process.stdin.write(json.dumps(_message_of(move, number)) + "\n")
            process.stdin.flush()
        return [json.loads(process.stdout.readline()) for process in self._processes if process.stdout]

    def end(self) -> None:
        for process in self._processes:
            process.communicate()
        assert [process.returncode for process in self._processes] == [0] * RACERS


def _message_of(move: str, number: int) -> Any:
    if move == "delete":
        return KEY
    target, file = str(Path.cwd() / f"pulled{number}"), str(Path.cwd() / f"{move}{number}")
    if move == "tree":
        meta: dict[str, Any] = {"path": KEY, "fromLocation": KEY, "mapLocationOver": target}
        return {"action": "objPull", "meta": {**meta, "overwrite": "always"}}
    if move == "name":
        return {"action": "objPull", "meta": {"fileList": [{"from": KEY, "to": target}]}}
    meta = {"file": file, "mapLocationOver": file, "inLocation": KEY}
    return {"action": "objPut", "meta": {**meta, "overwrite": "always"}}


@contextlib.contextmanager
def racing(options: dict[str, Any]) -> Iterator[tuple[Race, Storage]]:
    write_tree(Path.cwd(), FILES)
    race = Race(options)
    try:
        with open_storage(**options) as storage:
            yield race, storage
    finally:
        race.end()


def content_of(storage: Storage) -> bytes | None:
    sink = io.BytesIO()
    try:
        storage.get(KEY, sink)
    except NotFoundError:
        return None
    return sink.getvalue()


def run_mixed(race: Race, storage: Storage, times: int, seed: int) -> None:
    chance = random.Random(seed)
    is_there = False
    for _ in range(times):
        moves = [chance.choice(MOVES) for _ in range(RACERS)]
        for number in range(RACERS):
            Path(f"pulled{number}").unlink(missing_ok=True)
        replies = race.run(*moves)
        may_be_gone = "delete" in moves or not is_there
        for number, (move, reply) in enumerate(zip(moves, replies, strict=True)):
            if move in ("tree", "name"):
                pulled = Path(f"pulled{number}")
                assert not pulled.exists() or pulled.read_bytes() in FILES.values()
                assert reply["status"] or may_be_gone, reply
            else:
                assert reply["status"], reply
        content = content_of(storage)
        is_there = content is not None
        assert content in FILES.values() if is_there else may_be_gone, moves
        if "delete" not in moves and is_there and not {"small", "large"}.isdisjoint(moves):
            pushed = [f"{move}{number}" for number, move in enumerate(moves) if move in ("small", "large")]
            assert content in [FILES[name] for name in pushed]


@pytest.mark.slow
def test_an_object_in_a_swift_is_whole_and_of_one_writer_while_processes_change_it(
    swift: DevSwift,
) -> None:
    with racing(swift_options(swift, segment_size=PIECE, range_size=PIECE)) as (race, storage):
        run_mixed(race, storage, 100, 1)


@pytest.mark.parametrize("durable", ["none", "file"])
def test_an_object_in_a_directory_is_whole_and_of_one_writer_while_processes_change_it(
    tmp_path: Path, durable: str
) -> None:
    """A delete removes the directories above the object, and a push makes them again."""
    options = {"type": "filesystem", "store_base": str(tmp_path / "store"), "durable": durable}
    with racing(options) as (race, storage):
        run_mixed(race, storage, 50, 2)
        assert race.run(*["delete"] * RACERS) == [{"status": True}] * RACERS
    assert list((tmp_path / "store").iterdir()) == []


def test_an_object_in_memory_is_whole_and_of_one_writer_while_threads_change_it() -> None:
    write_tree(Path.cwd(), FILES)
    with open_storage(type="memory") as storage:

        def work(number: int) -> None:
            for move in random.Random(number).choices(MOVES, k=30):
                message = _message_of(move, number)
                if move == "delete":
                    with contextlib.suppress(NotFoundError):
                        storage.delete(KEY)
                else:
                    run(storage, message["action"], **message["meta"])
                if (pulled := Path(f"pulled{number}")).exists():
                    seen.add(pulled.read_bytes())
                if (content := content_of(storage)) is not None:
                    seen.add(content)

        seen: set[bytes] = set()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(RACERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen
    assert seen <= {*FILES.values()}


@pytest.mark.parametrize("quick", ["small", "large"])
@pytest.mark.parametrize("moment", ["its first segment", "its manifest"])
def test_the_slower_of_two_pushes_to_one_key_replaces_the_quicker_one_and_keeps_its_segments(
    swift: DevSwift, proxy: Proxy, moment: str, quick: str
) -> None:
    """The quick push and a sweep run while the slow push has not sent its segments, or its manifest, yet."""
    write_tree(Path.cwd(), FILES)
    options = swift_options(swift, segment_size=PIECE, range_size=PIECE)
    has_come = threading.Event()
    with (
        open_storage(**options) as storage,
        open_storage(**{**options, "auth_url": proxy.auth_url}) as slow_storage,
    ):

        def comes_between(exchange: Exchange) -> bool:
            is_manifest = "multipart-manifest=put" in exchange.query
            if is_manifest == (moment == "its manifest") and not has_come.is_set():
                has_come.set()
                assert run(storage, **_message(quick, 1))["status"] is True
                assert content_of(storage) == FILES[f"{quick}1"]
                assert run(storage, "objSweep", dryRun=False)["status"] is True
            return False

        proxy.fault(Fault("close"), "PUT", where=comes_between)
        assert run(slow_storage, **_message("large", 0))["status"] is True
        assert has_come.is_set()
        assert content_of(storage) == FILES["large0"]


def _message(move: str, number: int) -> dict[str, Any]:
    message = _message_of(move, number)
    return {"action": message["action"], **message["meta"]}
