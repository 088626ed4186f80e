"""What every benchmark works with: the versions, the store, a place for files; turns, processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.store import Store
from benchmarks.versions import Version, clean_environment

START_SECONDS = 30.0
QUIET_SECONDS = 5.0


@dataclass(frozen=True)
class Run:
    """A process that has ended. *cpu_seconds* are user and system time.

    *peak_bytes* is the largest resident size of the process, or of one of its
    children. Linux lets it begin with that of the process that started it, so a
    benchmark must not hold much itself.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Bench:
    old: Version
    new: Version
    store: Store
    directory: Path
    rounds: int

    def turns(self, rounds: int | None = None) -> Iterator[tuple[int, Version]]:
        """Yield the number of the round and a version, each version once a round, and first every other.

        A turn begins once the machine is quiet, or has been waited for long enough.
        """
        for number in range(rounds or self.rounds):
            pair = (self.old, self.new)
            for version in pair if number % 2 else reversed(pair):
                _wait_until_quiet()
                yield number, version

    def run(self, *command: str) -> Run:
        """Run *command* to its end, whatever its exit status."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            started = time.perf_counter()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=clean_environment(self.directory),
                cwd=self.directory,
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            err.seek(0)
            cpu_seconds = usage.ru_utime + usage.ru_stime
            return Run(seconds, cpu_seconds, usage.ru_maxrss * 1024, out.read(), err.read())

    def send(self, version: Version, action: str, port: int | None = None, **meta: Any) -> Run:
        """Run one message to the store, or what is at *port* in its place, by the command line."""
        address = ("--ipSwift", "127.0.0.1", "--portSwift", str(port or self.store.port))
        message = json.dumps({"action": action, "meta": meta})
        return self.run(*version.command(*address, "--msg", message))

    @contextlib.contextmanager
    def serving(self, version: Version) -> Iterator[int]:
        """Run a server of *version*; yield its port. What it says is thrown away."""
        port = free_port()
        swift = ("--ipSwift", "127.0.0.1", "--portSwift", str(self.store.port))
        # without --httpResponse, 2.0.0.2 replies without any header of HTTP
        itself = ("--ipSelf", "127.0.0.1", "--portSelf", str(port), "--server", "--forever", "--httpResponse")
        process = subprocess.Popen(
            version.command(*swift, *itself),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=clean_environment(self.directory),
            cwd=self.directory,
        )
        try:
            _wait_until_up(process, port)
            yield port
        finally:
            process.terminate()
            process.wait()

    @contextlib.contextmanager
    def place(self, name: str) -> Iterator[Path]:
        """Yield the path of a directory that is not there yet, and is removed at the end."""
        path = self.directory / name
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def free_port() -> int:
    """Return a port of the loopback interface at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def busy_seconds() -> float:
    """Return the CPU seconds that all processes of the machine have taken (proc_stat(5))."""
    times = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle, io_wait = times[3:5]
    return (sum(times) - idle - io_wait) / os.sysconf("SC_CLK_TCK")


def _wait_until_quiet() -> None:
    """Wait, `QUIET_SECONDS` at most, for a moment in which all processors do next to nothing."""
    deadline = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < deadline:
        before = busy_seconds()
        time.sleep(0.2)
        if busy_seconds() - before <= 0.02:
            return


def _wait_until_up(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.05)
    raise RuntimeError(f"a server did not start: {process.args!r}")
