"""Signals that end the command, from its first moment on: the exit status of each, and no leftovers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, read_tree, write_tree
from tests.support.exchange import answered, server_process
from tests.support.local import parts_in
from tests.support.processes import is_waiting
from tests.support.waiting import ENDS, until

STORE = ("--type", "filesystem", "--storeBase", "store")
SIZE = 200_000
PULL = ("--action", "objPull", "--args", '{"path": "", "mapLocationOver": "out"}')


MODULE = (sys.executable, "-m", "pfstorage")


LONG: dict[str, dict[str, Any]] = {
    "ls": {},
    "objExists": {"obj": "s/a"},
    "objPut": {"putSpec": "data", "inLocation": "s"},
    "objPull": {"fromLocation": "s", "mapLocationOver": "out"},
    "objVerify": {"fromLocation": "s", "mapLocationOver": "data"},
    "objSweep": {},
}


def ignoring(number: int) -> tuple[str, ...]:
    """Return the command that ignores a signal from its start, as nohup and a shell without job control do it."""
    program = "import os, signal, sys; signal.signal({}, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    return sys.executable, "-c", program.format(number), *MODULE


@contextlib.contextmanager
def started(
    *flags: str, command: tuple[str, ...] = MODULE, **streams: Any
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [*command, *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def pulled(directory: Path) -> list[Path]:
    return [path for path in directory.glob("out/*") if not path.name.startswith(".")]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_that_was_ignored_at_the_start_stays_so(tmp_path: Path, number: int) -> None:
    files = {f"{at:04}": b"x" * SIZE for at in range(300)}
    write_tree(tmp_path / "store", files)
    with started(*STORE, *PULL, command=ignoring(number)) as process:
        until(lambda: len(pulled(tmp_path)) > 5 or process.poll() is not None)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(said)["status"] is True
    assert read_tree(tmp_path / "out") == files


@pytest.mark.parametrize(("number", "status"), ENDS)
def test_a_command_that_reads_its_message_ends_without_a_word(
    tmp_path: Path, number: int, status: int
) -> None:
    with started(*STORE, "--msg", "-", stdin=subprocess.PIPE) as process:
        until(is_waiting(process))
        process.send_signal(number)
        said = process.stdout.read() + process.stderr.read() if process.stdout and process.stderr else b"?"
        assert process.wait(60) == status
    assert said == b""


@pytest.mark.parametrize(("number", "status"), ENDS)
def test_a_command_that_waits_for_a_server_ends_soon(tmp_path: Path, number: int, status: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with started("--remote", address, "--action", "ls", "-v", "0") as process:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(100)
                process.send_signal(number)
                said, received = process.communicate(timeout=20)
    assert (process.returncode, received) == (status, b"")
    assert json.loads(said)["error"]["type"] == "StoppedError"


@pytest.mark.parametrize(("action", "meta"), LONG.items())
def test_a_command_that_waits_for_a_silent_store_ends_soon(
    tmp_path: Path, action: str, meta: dict[str, Any]
) -> None:
    write_tree(tmp_path / "data", {"a": b"x"})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        store = ("--swiftAuthUrl", f"http://127.0.0.1:{listener.getsockname()[1]}/auth/v1.0", "-v", "0")
        with started(*store, "--action", action, "--args", json.dumps(meta)) as process:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(100)
                process.send_signal(signal.SIGHUP)
                said, received = process.communicate(timeout=20)
    assert (process.returncode, received) == (128 + signal.SIGHUP, b"")
    assert not said or json.loads(said)["error"]["type"] == "StoppedError"


@pytest.mark.parametrize(("number", "status"), ENDS)
@pytest.mark.parametrize("milliseconds", range(0, 200, 40))
def test_a_signal_in_the_first_moments_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int, milliseconds: int
) -> None:
    for name in [name for name in os.environ if name.startswith("COV")]:
        monkeypatch.delenv(name)  # the measurement of coverage starts before the program, and hides signals
    write_tree(tmp_path / "store", {f"{at:04}": b"x" * SIZE for at in range(200)})
    with started(*STORE, *PULL) as process:
        time.sleep(milliseconds / 1000)  # whatever it is about then
        process.send_signal(number)
        said, received = process.communicate(timeout=60)
    # before its first line, the system ends it, or Python raises this, and may then ignore it
    is_begun = b"KeyboardInterrupt" not in received
    assert process.returncode in (status, -number) or not is_begun
    assert not is_begun or b"Traceback" not in received
    assert not said or json.loads(said)["error"]["type"] == "StoppedError"
    assert not (tmp_path / "out").exists() or parts_in("out") == []
    assert {path.stat().st_size for path in pulled(tmp_path)} <= {SIZE}


def test_a_broken_pipe_signal_ends_no_transfer(tmp_path: Path) -> None:
    write_tree(tmp_path / "store", {f"{at:04}": b"x" * SIZE for at in range(300)})
    with started(*STORE, *PULL) as process:
        until(lambda: len(pulled(tmp_path)) > 5 or process.poll() is not None)
        process.send_signal(signal.SIGPIPE)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(pulled(tmp_path)) == 300


@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGINT, signal.SIGINT), (signal.SIGHUP, signal.SIGTERM)]
)
def test_a_second_signal_leaves_nothing_either(tmp_path: Path, first: int, second: int) -> None:
    write_tree(tmp_path / "store", {f"{at:04}": b"x" * SIZE for at in range(500)})
    with started(*STORE, "--bwLimit", "10M", *PULL) as process:
        until(lambda: len(pulled(tmp_path)) > 5 or process.poll() is not None)
        process.send_signal(first)
        process.send_signal(second)
        _, received = process.communicate(timeout=60)
    assert process.returncode in (
        dict(ENDS)[first],
        dict(ENDS)[second],
    )  # which of them Python sees first is open
    assert b"Traceback" not in received
    assert parts_in("out") == []


def test_a_terminal_that_is_closed_ends_the_command_on_it(tmp_path: Path) -> None:
    write_tree(tmp_path / "store", {f"{at:04}": b"x" * SIZE for at in range(500)})
    ours, theirs = os.openpty()
    flags = [*STORE, "--bwLimit", "10M", *PULL]
    takes_terminal = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    program = f"{takes_terminal}; os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", program, *MODULE, *flags]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
    ) as process:
        os.close(theirs)
        until(lambda: len(pulled(tmp_path)) > 5 or process.poll() is not None)
        os.close(ours)
        assert process.wait(60) == 129
    assert parts_in("out") == []
    assert {path.stat().st_size for path in pulled(tmp_path)} == {SIZE}


def test_a_server_under_nohup_reads_its_settings_again_at_sighup(tmp_path: Path) -> None:
    code = "import signal, runpy; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    program = ("-c", f"{code}; runpy.run_module('pfstorage', run_name='__main__')")
    with server_process(tmp_path, "--type", "memory", "--forever", program=program) as served:
        served.process.send_signal(signal.SIGHUP)
        served.wait_for_output("reloaded the settings")
        assert answered(served.port, "hello", askAbout="timestamp")[0] == 200
