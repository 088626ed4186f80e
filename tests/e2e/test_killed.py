"""A transfer that is killed or terminated in its middle, and the next transfer."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pfstorage.devswift import DevSwift
from tests.conftest import ROOT, read_tree, write_tree
from tests.support.faults import Fault, Proxy, proxy_to
from tests.support.large import orphans, raw_connection, segments, stored
from tests.support.processes import parts, wait_until
from tests.support.waiting import ENDS

SEGMENT = 128 * 1024
WORKERS = 4
FILES = {f"{number:02}.dcm": random.Random(number).randbytes(3000 + number) for number in range(30)}
FILES["10-large"] = random.Random(99).randbytes(6 * SEGMENT + 100)
SIZE = sum(map(len, FILES.values()))
META = {
    "objPush": {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"},
    "objPull": {"fromLocation": "s", "mapLocationOver": "out"},
}
METHOD = {"objPush": "PUT", "objPull": "GET"}


@dataclass
class Command:
    """The command line against one container by way of *proxy*, in the current directory."""

    swift: DevSwift
    proxy: Proxy
    container: str = field(default_factory=lambda: uuid.uuid4().hex)

    @contextlib.contextmanager
    def started(self, action: str) -> Iterator[subprocess.Popen[str]]:
        """Run *action* while the block runs, and kill its process at the end of the block."""
        flags = {
            "--swiftAuthUrl": self.proxy.auth_url,
            "--swiftContainer": self.container,
            "--workers": WORKERS,
            "--timeout": 60,
            "--segmentSize": "128K",
            "--rangeSize": "128K",
            "--action": action,
            "--args": json.dumps(META[action]),
        }
        arguments = [str(each) for flag in flags.items() for each in flag]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "pfstorage", *arguments]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def run(self, action: str) -> dict[str, Any]:
        with self.started(action) as process:
            said, complaints = process.communicate(timeout=60)
        assert process.returncode == 0, said + complaints
        reply: dict[str, Any] = json.loads(said)
        return reply

    def fill(self) -> None:
        with raw_connection(self.swift) as raw:
            for name, content in FILES.items():
                raw.put_object(self.container, f"s/{name}", content)

    def there(self, action: str) -> dict[str, bytes]:
        if action == "objPull":
            return read_tree(Path("out"))
        return {
            key.removeprefix("s/"): content for key, content in stored(self.swift, self.container).items()
        }


@pytest.fixture
def command(swift: DevSwift) -> Iterator[Command]:
    """A command whose containers are there: no first PUT is refused, and all that are counted move something."""
    with proxy_to(swift.port) as proxy, raw_connection(swift) as raw:
        made = Command(swift, proxy)
        raw.put_container(made.container)
        raw.put_container(f"{made.container}_segments")
        yield made


def asked(proxy: Proxy, method: str) -> int:
    return len(proxy.made(method))


def answered(proxy: Proxy, method: str) -> int:
    return sum(each.status > 0 for each in proxy.made(method))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("action", ["objPush", "objPull"])
def test_a_transfer_that_was_killed_is_finished_by_the_next(command: Command, action: str, seed: int) -> None:
    proxy, choice = command.proxy, random.Random(seed)
    write_tree(Path("data"), FILES)
    if action == "objPull":
        command.fill()
    proxy.fault(Fault("stall", side="request", seconds=0.02), METHOD[action])
    count = choice.choice([answered, asked])  # just after an answer came, or while several are on their way
    moment = choice.randint(3 * WORKERS, len(FILES) - 2)
    with command.started(action) as process:
        wait_until(lambda: count(proxy, METHOD[action]) >= moment, process)
        process.kill()
    proxy.forget()
    before = command.there(action)
    assert len({name for name, content in FILES.items() if before.get(name) == content}) < len(FILES)
    reply = command.run(action)
    assert command.there(action) == FILES
    assert parts() == []
    assert 0 < reply["skipped"] < len(FILES)
    assert reply["bytes"] < SIZE
    assert orphans(command.swift, command.container) == set()


@pytest.mark.parametrize("seed", range(3))
def test_segments_that_a_killed_push_has_stored_are_not_sent_again(command: Command, seed: int) -> None:
    """The transfer is killed in the middle of the only large file. Its segments are named by its time and size."""
    write_tree(Path("data"), {"10-large": FILES["10-large"]})
    moment = 2 + seed
    command.proxy.fault(Fault("stall", side="request", seconds=60), "PUT", range(moment + 1, 100))
    with command.started("objPush") as process:
        wait_until(lambda: len(segments(command.swift, command.container)) >= moment, process)
        process.kill()
    kept = len(segments(command.swift, command.container))
    command.proxy.forget()
    reply = command.run("objPush")
    assert command.there("objPush") == {"10-large": FILES["10-large"]}
    assert orphans(command.swift, command.container) == set()
    assert len(segments(command.swift, command.container)) == 7
    assert command.proxy.puts <= 7 + 1 - kept
    assert reply["bytes"] <= len(FILES["10-large"]) - kept * SEGMENT


@pytest.mark.parametrize(("number", "status"), ENDS)
@pytest.mark.parametrize("action", ["objPush", "objPull"])
def test_a_terminated_transfer_ends_and_reports_finished_files(
    command: Command, action: str, number: signal.Signals, status: int
) -> None:
    """The store is silent from the eighth file on, and would be for much longer."""
    write_tree(Path("data"), FILES)
    if action == "objPull":
        command.fill()
    proxy = command.proxy
    proxy.fault(Fault("stall", side="request", seconds=60), METHOD[action], range(8, 100))
    with command.started(action) as process:
        wait_until(lambda: len(proxy.struck) > 0 and answered(proxy, METHOD[action]) == 7, process)
        started = time.monotonic()
        process.send_signal(number)
        said, complaints = process.communicate(timeout=10)
        seconds = time.monotonic() - started
    assert seconds < 5
    assert process.returncode == status, said + complaints
    assert "Traceback" not in complaints
    assert parts() == []
    there = command.there(action)
    assert there.items() <= FILES.items()
    reply = json.loads(said)
    assert (reply["status"], bool(reply["msg"])) == (False, True)
    done = {key.removeprefix("s/") for key in reply["objectFileList"]}
    assert done <= there.keys()
    assert 7 - WORKERS < len(done) <= 7
