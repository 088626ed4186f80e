"""The progress of a transfer: on a terminal, in a log, and for a callback."""

from __future__ import annotations

import fcntl
import io
import json
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from pfstorage import StoreHandler
from pfstorage.actions import RequestContext
from pfstorage.backends import Storage
from pfstorage.backends.memory import MemoryStorage
from pfstorage.cli.progress import LINE_SECONDS, Bar, Lines, describe, shown_on_stderr
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer import Progress
from tests.conftest import ROOT, write_tree

PUT = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
FLAGS = ("--type", "filesystem", "--storeBase", "store", "--action", "objPut", "--args", json.dumps(PUT))


def at(done: int, seconds: float, *, is_last: bool = False) -> Progress:
    return Progress(done, 0, 0, done * 2**20, seconds, 100 if is_last else None, 8, is_last)


def terminal(lines: int) -> tuple[int, int]:
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", lines, 120, 0, 0))
    return ours, its


def on_terminal(*flags: str) -> tuple[str, str]:
    """Run the command with a terminal as its stderr. Return the contents of stdout and stderr."""
    ours, its = terminal(40)
    said: list[bytes] = []

    def read() -> None:
        try:
            while data := os.read(ours, 65536):
                said.append(data)
        except OSError:  # the other end is closed: EIO
            return

    reader = threading.Thread(target=read)
    reader.start()
    command = [sys.executable, "-m", "pfstorage", *flags]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=its, env=environ, timeout=120)
    os.close(its)
    reader.join()
    os.close(ours)
    return done.stdout.decode(), b"".join(said).decode()


@pytest.fixture
def data(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", {f"{number:02}": b"x" * 50_000 for number in range(20)})


def test_on_a_terminal_there_is_a_bar_with_files_and_bytes(data: None) -> None:
    said, shown = on_terminal(*FLAGS, "--bwLimit", "1M")
    assert json.loads(said)["status"] is True
    bars = [each for each in shown.split("\r") if "files" in each]
    assert len(bars) >= 3
    assert re.search(r"20/20 .*100%|100%.* 20/20 ", bars[-1])
    assert re.search(r"bytes=976\.6 KiB", bars[-1])
    assert re.search(r"rate=[\d.]+ [KM]iB/s", bars[-1])
    assert "failed" not in bars[-1]
    numbers = [int(found[1]) for each in bars if (found := re.search(r"(\d+)(?:/\d+ | files)", each))]
    assert numbers == sorted(numbers)


def test_the_bar_shows_failures(data: None, tmp_path: Path) -> None:
    (tmp_path / "data" / os.fsdecode(b"\xff")).write_bytes(b"x")
    said, shown = on_terminal(*FLAGS)
    assert len(json.loads(said)["failed"]) == 1
    assert "failed=1" in shown


def test_nothing_is_shown_on_a_terminal_that_wants_nothing(data: None) -> None:
    said, shown = on_terminal(*FLAGS, "--bwLimit", "1M", "--verbosity", "0")
    assert json.loads(said)["status"] is True
    assert shown == ""


def test_a_short_run_without_a_terminal_shows_no_progress(data: None) -> None:
    command = [sys.executable, "-m", "pfstorage", *FLAGS]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120, check=True)
    assert [line for line in done.stderr.splitlines() if "files" in line] == []
    assert "objPut: done" in done.stderr


def test_verbosity_and_the_terminal_select_the_progress_display(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    assert isinstance(shown_on_stderr(1), Lines)
    shown_on_stderr(0)(at(1, 100.0))
    assert said.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", None)
    shown_on_stderr(2)(at(1, 100.0))
    for lines, shows in ((40, Bar), (0, Lines)):
        ours, its = terminal(lines)
        with open(its, "w") as stderr:
            monkeypatch.setattr(sys, "stderr", stderr)
            assert isinstance(shown_on_stderr(1), shows)
            monkeypatch.undo()
        os.close(ours)


def test_progress_lines_are_periodic_and_the_first_is_not_immediate(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pfstorage.cli.progress")
    now = 1000.0
    lines = Lines(lambda: now)
    reported = []
    for tick in range(int(35 / 0.5)):
        now = 1000.0 + tick * 0.5
        lines(at(tick, now - 1000.0))
        if caplog.messages:
            reported.append((now - 1000.0, caplog.messages[-1]))
            caplog.clear()
    assert [when for when, _ in reported] == [LINE_SECONDS, 2 * LINE_SECONDS, 3 * LINE_SECONDS]
    assert reported[0][1] == "20 files, 20.0 MiB, 2.0 MiB/s"


def test_a_short_run_has_no_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pfstorage.cli.progress")
    now = 0.0
    lines = Lines(lambda: now)
    for now in (0.2, 5.0, LINE_SECONDS - 0.1):
        lines(at(1, now, is_last=now > 9))
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (Progress(0, 0, 0, 0, 0.0), "0 files, 0.0 B, 0.0 B/s"),
        (Progress(1, 2, 0, 1023, 1.0), "3 files, 1023.0 B, 1023.0 B/s, 2 failed"),
        (Progress(5, 0, 4, 2048, 2.0, 9), "5 of 9 files, 2.0 KiB, 1.0 KiB/s, 4 unchanged"),
        (Progress(1, 0, 0, 5 * 2**40, 5.0, 1), "1 of 1 files, 5.0 TiB, 1.0 TiB/s"),
    ],
)
def test_progress_in_words(progress: Progress, words: str) -> None:
    assert describe(progress) == words


@pytest.mark.parametrize("action", ["objPut", "objPull", "objVerify"])
def test_a_progress_callback_gets_growing_numbers_and_a_last_call(storage: Storage, action: str) -> None:
    write_tree(Path("data"), {f"{number:02}": b"x" * 50_000 for number in range(20)})
    reported: list[Progress] = []
    here = threading.get_ident()
    callers: set[int] = set()

    def show(progress: Progress) -> None:
        reported.append(progress)
        callers.add(threading.get_ident())

    handler = StoreHandler(storage)
    assert handler.run({"action": "objPut", "meta": PUT})["status"] is True
    handler.state.set("/this/bwLimit", "1M")
    meta = {
        "objPut": {**PUT, "inLocation": "t"},
        "objPull": {"fromLocation": "s", "mapLocationOver": "out"},
        "objVerify": {"fromLocation": "s", "mapLocationOver": "data"},
    }[action]
    assert handler.run({"action": action, "meta": meta}, RequestContext(progress=show))["status"] is True
    assert callers == {here}
    assert [progress.is_last for progress in reported] == [False] * (len(reported) - 1) + [True]
    for name in ("done", "failed", "skipped", "size", "seconds"):
        numbers = [getattr(progress, name) for progress in reported]
        assert numbers == sorted(numbers)
    last = reported[-1]
    same = 20 if action == "objVerify" else 0
    size = 0 if action == "objVerify" else 1_000_000
    assert (last.done, last.failed, last.skipped, last.size, last.total) == (20, 0, same, size, 20)
    if action != "objVerify":
        assert len(reported) >= 3
        assert {progress.workers for progress in reported} >= {8}


def test_the_total_stays_unknown_without_a_complete_listing() -> None:
    write_tree(Path("data"), {f"{number:03}": b"x" * 1000 for number in range(500)})
    reported: list[Progress] = []
    cancellation = CancellationToken()

    def show(progress: Progress) -> None:
        reported.append(progress)
        cancellation.cancel("that is enough")

    handler = StoreHandler(MemoryStorage())
    handler.state.set("/this/bwLimit", "100K")
    reply = handler.run(
        {"action": "objPut", "meta": PUT}, RequestContext(progress=show, cancellation=cancellation)
    )
    assert reply["error"]["type"] == "StoppedError"
    assert reported[-1].is_last
    assert reported[-1].total is None


def test_failures_are_counted_immediately() -> None:
    write_tree(Path("data"), {"a": b"x"})
    reported: list[Progress] = []
    message = {"action": "objPut", "meta": {"fileList": ["data/a", "data/gone"]}}
    StoreHandler(MemoryStorage()).run(message, RequestContext(progress=reported.append))
    assert (reported[-1].done, reported[-1].failed, reported[-1].total, reported[-1].is_last) == (
        1,
        1,
        2,
        True,
    )


def test_a_file_on_its_way_shows_before_it_is_done() -> None:
    write_tree(Path("data"), {"large": bytes(2_000_000)})
    reported: list[Progress] = []
    handler = StoreHandler(MemoryStorage())
    handler.state.set("/this/bwLimit", "2M")
    started = time.monotonic()
    handler.run({"action": "objPut", "meta": PUT}, RequestContext(progress=reported.append))
    assert time.monotonic() - started > 0.5
    assert any(progress.done == 0 and progress.size > 0 for progress in reported)
