"""Run a real OpenStack Swift in one process, for development and tests.

``python -m pfstorage.devswift`` runs Swift's own proxy, account, container and object servers on the loopback
interface, without memcached, root rights, ``/etc/swift`` or any configuration. It needs
``pip install 'pfstorage[devswift]'``. This package imports neither Swift nor eventlet; only the running server does.

The server keeps one replica on one device, under the storage policies ``gold`` (the default) and ``silver``. None of
Swift's background daemons run: an expired object answers 404 but stays in listings, and the totals of an account stay
at zero. Swift logs its errors to the file ``swift.log`` in the directory of the server. The user and the key are
public: do not store data of real patients there.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["HOST", "KEY", "USER", "DevSwift", "DevSwiftError", "running"]

HOST = "127.0.0.1"
USER = "chris:chris1234"
# Another user of the same account, with the same key. This user has only the permissions of a container's ACLs.
READER = "chris:reader"
KEY = "testing"

START_SECONDS = 60.0
STOP_SECONDS = 10.0


class DevSwiftError(RuntimeError):
    """The development server can't start. The message is one line for its user."""


@dataclass(frozen=True)
class DevSwift:
    """A development server that runs as the child *process*. Its files are in *directory*."""

    port: int
    directory: Path
    process: subprocess.Popen[str]
    user: str = USER
    key: str = KEY

    @property
    def auth_url(self) -> str:
        """The URL of the login (TempAuth, version 1)."""
        return f"http://{HOST}:{self.port}/auth/v1.0"

    @property
    def pid(self) -> int:
        return self.process.pid


@contextlib.contextmanager
def running(
    port: int = 0,
    directory: str | Path | None = None,
    log: str | Path | None = None,
    processes: int = 1,
) -> Iterator[DevSwift]:
    """Run a development server within a ``with`` block.

    The arguments are those of the command; port 0 chooses a free one. The server answers when the block begins, and
    ends with the block, also if this process is killed. Raise `DevSwiftError` with the output of the server if it does
    not start.
    """
    options = {"--port": port, "--dir": directory, "--log": log, "--processes": processes}
    arguments = [f"{name}={value}" for name, value in options.items() if value is not None]
    with tempfile.TemporaryFile("w+") as errors, _spawn(arguments, errors) as process:
        try:
            yield _wait_until_up(process, errors)
        finally:
            _stop_process(process)


def _spawn(arguments: list[str], errors: IO[str]) -> subprocess.Popen[str]:
    package_home = str(Path(__file__).resolve().parents[2])  # the child runs this very package
    path = os.pathsep.join(filter(None, [package_home, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "pfstorage.devswift", "--until-eof", *arguments],
        stdin=subprocess.PIPE,  # closes when this process ends, even if it is killed
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def _wait_until_up(process: subprocess.Popen[str], errors: IO[str]) -> DevSwift:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        answered = selector.select(START_SECONDS)
    line = process.stdout.readline() if answered else ""
    match = re.search(rf"http://{HOST}:(\d+)/.* files in (.*)", line)
    if match is None:
        errors.seek(0)
        said = errors.read().strip() or f"no answer within {START_SECONDS:.0f} s"
        raise DevSwiftError(f"the development server did not start: {said}")
    return DevSwift(int(match[1]), Path(match[2]), process)


def _stop_process(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
