"""The tools of every benchmark: the versions, the store, temporary paths, turns and processes."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from benchmarks.store import Store
from benchmarks.versions import Version, clean_environment, message

START_SECONDS = 30.0
QUIET_SECONDS = 5.0

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """A process that has ended, with exit *status*. *cpu_seconds* are user and system time.

    *peak_bytes* is the largest resident size of the process, or of one of its children. On Linux, it starts with the
    size of the parent process, so a benchmark must not use much memory itself.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Server:
    """A process that listens at *port* of the loopback interface."""

    port: int
    pid: int

    @property
    def peak_bytes(self) -> int:
        """The largest resident size of the process so far (proc_pid_status(5))."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@dataclass(frozen=True)
class Bench:
    """The environment of a run. *cache* is the directory of environments, *processes* the number that a store has."""

    old: Version
    new: Version
    store: Store
    directory: Path
    rounds: int
    cache: Path
    processes: int

    @property
    def versions(self) -> tuple[Version, Version]:
        return self.old, self.new

    def turns(self, each: Sequence[T], rounds: int | None = None) -> Iterator[tuple[int, T]]:
        """Yield the number of the round and one of *each*. The first of a round is the last of the next one.

        A turn begins when the machine is quiet, or after `QUIET_SECONDS`.
        """
        for number in range(rounds or self.rounds):
            first = number % len(each)
            for one in (*each[first:], *each[:first]):
                _wait_until_quiet()
                yield number, one

    def run(self, *command: str, cwd: Path | None = None, stdin: str = "", stdout: Path | None = None) -> Run:
        """Run *command* to its end, with any exit status.

        *stdout* is a file for a long output. `Run.stdout` is empty then.
        """
        with contextlib.ExitStack() as stack:
            given, out, err = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
            given.write(stdin)
            given.seek(0)
            target = stack.enter_context(stdout.open("w")) if stdout else out
            started = time.perf_counter()
            process = subprocess.Popen(
                command,
                stdin=given,
                stdout=target,
                stderr=err,
                env=clean_environment(self.directory),
                cwd=cwd or self.directory,
            )
            with ended(process):
                _, status, usage = os.wait4(process.pid, 0)
                seconds = time.perf_counter() - started
                process.returncode = os.waitstatus_to_exitcode(status)
            cpu_seconds, peak_bytes = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
            return Run(seconds, cpu_seconds, peak_bytes, process.returncode, _text(out), _text(err))

    def send(self, version: Version, action: str, port: int | None = None, **meta: Any) -> Run:
        """Send one message by the command line to the store, or to another server at *port*."""
        return self.run(*version.command(*message(port or self.store.port, action, **meta)))

    @contextlib.contextmanager
    def serving(self, version: Version, *flags: str) -> Iterator[Server]:
        """Run a server of *version*, and yield it. Discard its output."""
        port = free_port()
        with self.listening(port, *self.server_command(version, port), *flags) as server:
            yield server

    def server_command(self, version: Version, port: int) -> list[str]:
        """Return the command of a server of *version* at *port*, in front of the store."""
        swift = ("--ipSwift", "127.0.0.1", "--portSwift", str(self.store.port))
        # without --httpResponse, 2.0.0.2 replies without any header of HTTP
        itself = ("--ipSelf", "127.0.0.1", "--portSelf", str(port), "--server", "--forever", "--httpResponse")
        return version.command(*swift, *itself)

    @contextlib.contextmanager
    def listening(self, port: int, *command: str) -> Iterator[Server]:
        """Run *command* until the end of a ``with`` block. Yield it when it listens at *port*."""
        with ended(self.start(*command)) as process:
            wait_until_up(process, port)
            yield Server(port, process.pid)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start *command*, and discard its output."""
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=clean_environment(self.directory),
            cwd=self.directory,
        )

    @contextlib.contextmanager
    def temporary_path(self, name: str) -> Iterator[Path]:
        """Yield the path of a directory that does not exist yet. Truncate its files at the end.

        The end of the benchmarks removes them. After a removal of files, ext4 takes several times as long for some
        minutes to create new ones in the same directory: it skips the inodes of the removed files one by one
        (``recently_deleted`` in Linux' fs/ext4/ialloc.c).
        """
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.directory), name)
        try:
            yield path
        finally:
            for file in path.rglob("*"):
                if file.is_file() and not file.is_symlink():
                    os.truncate(file, 0)


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Terminate *process* at the end of a ``with`` block."""
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def busy_seconds() -> float:
    """Return the CPU seconds that all processes of the machine have used (proc_stat(5))."""
    times = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle, io_wait = times[3:5]
    return (sum(times) - idle - io_wait) / os.sysconf("SC_CLK_TCK")


def wait_until_up(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.05)
    raise RuntimeError(f"a server did not start: {process.args!r}")


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def _wait_until_quiet() -> None:
    """Wait up to `QUIET_SECONDS` for a moment in which all processors are idle.

    First sync the data that the turn before has written: otherwise this turn would wait for the disk.
    """
    os.sync()
    deadline = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < deadline:
        before = busy_seconds()
        time.sleep(0.2)
        if busy_seconds() - before <= 0.02:
            return
