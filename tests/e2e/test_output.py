"""stdout and stderr: a command writes its whole reply, also to a slow reader, or fails."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import free_port, wait_until_up
from pfstorage.logs import output
from pfstorage.logs.batches import BatchHandler
from pfstorage.logs.output import LogOutlet, Outlet
from tests.conftest import ROOT, Command, write_tree
from tests.support.exchange import answer, message, post, server_process
from tests.support.logs import logger_to
from tests.support.processes import is_waiting
from tests.support.waiting import LONG, until

STORE = ("--type", "filesystem", "--storeBase", "store")
MODULE = [sys.executable, "-m", "pfstorage"]
START = {"module": MODULE, "bin": [sys.executable, str(ROOT / "bin" / "pfstorage")]}
MANY = 5000


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe; the one to write to is as an event loop leaves it, and does not block."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    yield reader, writer
    for descriptor in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def fill(writer: int) -> int:
    """Write zeros until the pipe takes no more; return how many that were."""
    size = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            size += os.write(writer, bytes(1024))
    return size


def in_pipe(reader: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(reader, termios.FIONREAD, bytes(4)))[0])


def rest_of(reader: int) -> bytes:
    return b"".join(iter(lambda: os.read(reader, 1 << 16), b""))


def started(*command: str, **streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, **streams)  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def many(tmp_path: Path) -> list[str]:
    """The keys in the directory ``store``, so many that their list fits into no pipe."""
    names = [f"{number:06}-{'x' * 40}" for number in range(MANY)]
    write_tree(tmp_path / "store", dict.fromkeys(names, b""))
    return names


@pytest.mark.parametrize("start", START.values(), ids=START)
def test_a_streamed_listing_is_whole_where_stdout_does_not_block(
    many: list[str], pipe: tuple[int, int], start: list[str]
) -> None:
    reader, writer = pipe
    with started(*start, *STORE, "-v", "0", "--action", "ls", stdout=writer) as process:
        os.close(writer)
        size = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
        until(lambda: in_pipe(reader) >= size or process.poll() is not None)
        reply = json.loads(rest_of(reader))
        assert process.wait(60) == 0
    assert [row["name"] for row in reply["ls"]] == many


def test_the_lists_of_a_transfer_are_whole_where_stdout_does_not_block(
    many: list[str], pipe: tuple[int, int]
) -> None:
    reader, writer = pipe
    meta = '{"path": "", "mapLocationOver": "out", "dryRun": true}'
    with started(*MODULE, *STORE, "-v", "0", "--action", "objPull", "--args", meta, stdout=writer) as process:
        os.close(writer)
        size = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
        until(lambda: in_pipe(reader) >= size or process.poll() is not None)
        reply = json.loads(rest_of(reader))
        assert process.wait(60) == 0
    assert reply["objectFileList"] == many


def test_a_reply_from_a_server_is_whole_where_stdout_does_not_block(
    many: list[str], pipe: tuple[int, int], tmp_path: Path
) -> None:
    reader, writer = pipe
    with server_process(tmp_path, *STORE, "--forever") as served:
        address = f"127.0.0.1:{served.port}"
        with started(*MODULE, "-v", "0", "--remote", address, "--action", "ls", stdout=writer) as process:
            os.close(writer)
            size = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
            until(lambda: in_pipe(reader) >= size or process.poll() is not None)
            reply = json.loads(rest_of(reader))
            assert process.wait(60) == 0
    assert [row["name"] for row in reply["ls"]] == many


TELLS = ("--version", "--desc", "--synopsis", "--help", "--makeToken", "--test")


@pytest.mark.parametrize("flag", TELLS)
def test_output_of_the_program_is_whole_on_a_nonblocking_stdout(
    pipe: tuple[int, int], flag: str, command: Command
) -> None:
    reader, writer = pipe
    before = fill(writer)
    with started(*MODULE, flag, "--type", "memory", "-v", "0", stdout=writer) as process:
        os.close(writer)
        until(is_waiting(process))
        received = rest_of(reader)[before:].decode()
        assert process.wait(60) == 0
    expected = command(flag, "--type", "memory").stdout
    if flag in ("--makeToken", "--test"):  # which differ each time
        received, expected = str(len(received.splitlines())), str(len(expected.splitlines()))
    assert received == expected


@pytest.mark.parametrize("flag", [*TELLS, "--action=ls"])
@pytest.mark.parametrize("start", START.values(), ids=START)
@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-"])
def test_failed_output_is_an_error_without_a_traceback(flag: str, start: list[str], redirection: str) -> None:
    program = f"{' '.join(start)} {flag} --type memory -v 0 {redirection}"
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("pfstorage: cannot write ")


def test_a_reader_that_goes_away_is_an_error(many: list[str], tmp_path: Path) -> None:
    program = f"{' '.join(MODULE)} {' '.join(STORE)} -v 0 --action ls | head -1; exit ${{PIPESTATUS[0]}}"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=environ)
    assert (done.returncode, done.stdout) == (1, "{\n")
    assert done.stderr == "pfstorage: cannot write the reply: Broken pipe\n"


@pytest.mark.parametrize("redirection", ["2> /dev/full", "2>&-"])
def test_a_log_that_can_not_be_written_changes_no_exit_status(
    many: list[str], redirection: str, tmp_path: Path
) -> None:
    program = f"{' '.join(MODULE)} {' '.join(STORE)} -v 2 --action ls {redirection}"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["ls"]) == MANY


@pytest.mark.parametrize("blocks", [False, True])
def test_a_log_that_nobody_reads_delays_no_transfer(
    many: list[str], pipe: tuple[int, int], blocks: bool, tmp_path: Path
) -> None:
    _, writer = pipe
    fill(writer)
    os.set_blocking(writer, blocks)
    meta = '{"path": "", "mapLocationOver": "out"}'
    flags = [*STORE, "-v", "2", "--action", "objPull", "--args", meta]
    with started(*MODULE, *flags, stdout=subprocess.PIPE, stderr=writer) as process:
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert json.loads(said)["objectFileList"] == many


def test_a_signal_ends_a_command_whose_reply_nobody_takes(
    many: list[str], pipe: tuple[int, int], tmp_path: Path
) -> None:
    reader, writer = pipe
    with started(*MODULE, *STORE, "-v", "0", "--action", "ls", stdout=writer) as process:
        size = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
        until(lambda: in_pipe(reader) >= size)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143


def test_the_flags_of_a_stream_that_others_share_stay_as_they_are(
    pipe: tuple[int, int], tmp_path: Path
) -> None:
    _, writer = pipe
    with started(*MODULE, "--version", stdout=writer, stderr=writer) as process:
        assert process.wait(60) == 0
    assert not os.get_blocking(writer)


@pytest.mark.parametrize("redirection", ["| cat", "> file", "> /dev/full"])
def test_settings_are_not_saved_in_the_place_of_a_stream(redirection: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    program = f"{' '.join(MODULE)} --type memory --configFileSave link {redirection}; exit ${{PIPESTATUS[0]}}"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, env=environ)
    assert done.returncode == 2
    assert "--configFileSave writes a regular file" in done.stderr
    assert (tmp_path / "link").readlink() == Path("/dev/stdout")


def test_settings_are_saved_where_a_link_leads(command: Command, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.json").symlink_to("there/settings.json")
    for _ in range(2):
        assert command("--type", "memory", "--configFileSave", "link.json").returncode == 0
    assert json.loads((tmp_path / "there" / "settings.json").read_text())["this"]["type"] == "memory"
    assert (tmp_path / "link.json").is_symlink()


def test_no_file_is_opened_in_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    code = (
        "from pfstorage.logs import output\n"
        "with output.standard_streams(): print(open('file', 'w').fileno() > 2, file=open('told', 'w'))"
    )
    program = f'{sys.executable} -c "{code}" <&- >&- 2>&-'
    subprocess.run(["bash", "-c", program], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (tmp_path / "told").read_text() == "True\n"


def test_a_line_that_is_taken_piece_by_piece_is_whole(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    text = "".join(f"{number} ü\n" for number in range(50_000))
    with open(writer, "w", encoding="utf-8", closefd=False) as stream:
        outlet = Outlet(stream)

        def write() -> None:
            outlet.write(text)
            outlet.finish()
            os.close(writer)

        thread = threading.Thread(target=write)
        thread.start()
        until(lambda: in_pipe(reader) >= fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ))
        assert rest_of(reader).decode() == text
        thread.join()


def test_lines_that_nobody_reads_are_counted_and_reported_later(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with open(writer, "w", encoding="utf-8", closefd=False) as stream:
        outlet = LogOutlet(stream, str, wait_seconds=0.05)
        before = fill(writer)
        for number in range(3):
            outlet.write(f"{number}\n")
        assert len(os.read(reader, before)) == before
        outlet.write("next\n")
        os.close(writer)
    expected = "3 lines of the log are lost: nobody read them in time\nnext\n"
    assert rest_of(reader).decode() == expected


def test_lines_that_a_full_disk_does_not_take_are_all_counted(tmp_path: Path) -> None:
    disk = os.open("/dev/full", os.O_WRONLY)
    with open(disk, "w", encoding="utf-8") as stream, (tmp_path / "log").open("wb") as room:
        outlet = LogOutlet(stream, str, wait_seconds=0.05)
        for number in range(3):
            outlet.write(f"{number}\n" * 5)
        os.dup2(room.fileno(), disk)
        for text in ("next\n", "last\n"):
            outlet.write(text)
    expected = "15 lines of the log are lost: nobody read them in time\nnext\nlast\n"
    assert (tmp_path / "log").read_text() == expected


def test_a_line_that_was_cut_is_not_joined_to_the_next(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with open(writer, "w", encoding="utf-8", closefd=False) as stream:
        outlet = LogOutlet(stream, str, wait_seconds=0.05)
        outlet.write("x" * (fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ) + 10) + "\n")
        os.read(reader, 1 << 20)
        outlet.write("next\n")
        os.close(writer)
    assert rest_of(reader).decode().splitlines()[1:] == [
        "1 lines of the log are lost: nobody read them in time",
        "next",
    ]


def test_the_log_of_a_server_that_nobody_reads_delays_nobody(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pipe
    monkeypatch.setattr("pfstorage.logs.batches.MAX_LINES", 10)
    fill(writer)
    with open(writer, "w", encoding="utf-8", closefd=False) as stream:
        handler = BatchHandler(LogOutlet(stream, str, wait_seconds=0.05))
        log = logger_to(handler)
        before = in_pipe(reader)
        for number in range(1000):
            log.info("%d", number)
        assert handler.wait(30)  # lines that nobody reads are lost, and no thread waits for them
        assert in_pipe(reader) == before


def full_pipe(stack: contextlib.ExitStack) -> int:
    reader, writer = os.pipe()
    for descriptor in (reader, writer):
        stack.callback(os.close, descriptor)
    os.set_blocking(writer, False)
    fill(writer)
    os.set_blocking(writer, True)
    return writer


def full_socket(stack: contextlib.ExitStack) -> int:
    ends = [stack.enter_context(end) for end in socket.socketpair()]
    ends[1].setblocking(False)
    fill(ends[1].fileno())
    ends[1].setblocking(True)
    return ends[1].fileno()


def stopped_terminal(stack: contextlib.ExitStack) -> int:
    """Return a terminal that nobody reads. It may have room for a byte, and has none for a line."""
    ends = os.openpty()
    for descriptor in ends:
        stack.callback(os.close, descriptor)
    os.set_blocking(ends[1], False)
    fill(ends[1])
    os.set_blocking(ends[1], True)
    return ends[1]


def full_disk(stack: contextlib.ExitStack) -> int:
    return stack.enter_context(open("/dev/full", "wb", buffering=0)).fileno()


def without_reader(stack: contextlib.ExitStack) -> int:
    reader, writer = os.pipe()
    stack.callback(os.close, writer)
    os.close(reader)
    return writer


@pytest.mark.parametrize("stderr", [full_pipe, full_socket, stopped_terminal, full_disk, without_reader])
def test_a_server_starts_answers_and_ends_with_each_failure_of_its_log(
    stderr: Callable[[contextlib.ExitStack], int], tmp_path: Path
) -> None:
    port = free_port()
    flags = ("--server", "--forever", "--type", "memory", "--ipSelf", "127.0.0.1", "--portSelf", str(port))
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(started(*MODULE, *flags, stderr=stderr(stack), cwd=tmp_path))
        stack.callback(process.kill)
        wait_until_up(process, port)
        for _ in range(3):
            assert answer(port, post(message("hello", askAbout="timestamp"))).status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG) == 0


def test_a_stream_that_is_no_descriptor_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with output.standard_streams():
        assert (sys.stdout, sys.stderr) == before
        assert output.print_text("told")
    assert capsys.readouterr().out == "told\n"


def test_devswift_says_where_it_is_or_fails(tmp_path: Path) -> None:
    command = f"{sys.executable} -m pfstorage.devswift --port 0"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    for program in (f"{command} > /dev/full", f"{command} --help > /dev/full"):
        done = subprocess.run(
            ["bash", "-c", program], capture_output=True, text=True, env=environ, timeout=60
        )
        assert done.returncode == 1
        assert "cannot write to stdout: No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
