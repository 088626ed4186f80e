"""Helpers for tests of local files."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.actions import RequestContext
from pfstorage.backends import Storage
from pfstorage.local import AllowedRoots, LocalTree, is_unfinished

Answer = Callable[..., dict[str, Any]]


def descriptors(below: Path) -> int:
    """Count the descriptors of this process for files, also deleted ones, below a directory, and no others."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # somebody has closed it meanwhile
            found += f"{os.readlink(f'/proc/self/fd/{name}')}/".startswith(f"{below}/")
    return found


@pytest.fixture
def small_storage() -> Iterator[Storage]:
    """A storage in memory with the objects ``s/a`` and ``s/d/b``."""
    with open_storage(type="memory", workers=2) as storage:
        for key in ("s/a", "s/d/b"):
            storage.put(key, io.BytesIO(b"new"), 3)
        yield storage


def answers_below(roots: AllowedRoots, storage: Storage) -> Answer:
    """Return a function that answers a message, which may name files below *roots*."""

    def run(action: str, **meta: Any) -> dict[str, Any]:
        return StoreHandler(storage).run({"action": action, "meta": meta}, RequestContext(roots=roots))

    return run


def everything(top: Path) -> dict[str, str | bytes]:
    """Return all files and links below *top*: their contents or targets by their names."""
    return {
        str(path.relative_to(top)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in top.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def in_threads(calls: list[Callable[[], object]]) -> list[BaseException]:
    """Run the calls at once, each in a separate thread. Return the errors that they raise."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        barrier.wait()
        call()

    with ThreadPoolExecutor(len(calls)) as pool:
        errors = [done.exception() for done in [pool.submit(run, call) for call in calls]]
    return [error for error in errors if error]


@contextlib.contextmanager
def mounted(directory: Path, kind: str, *options: str) -> Iterator[Path]:
    """Mount an empty file system, if the system permits it."""
    directory.mkdir()
    done = subprocess.run(["mount", "-t", kind, *options, kind, directory], capture_output=True)
    if done.returncode:
        pytest.skip(f"no {kind} can be mounted here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)  # a test that fails may hold a file


def parts_in(directory: str) -> list[str]:
    """Return the names in *directory* of files that are not finished."""
    return [name for name in os.listdir(directory) if is_unfinished(name)]


def refuse(number: int) -> Callable[..., None]:
    """Return a call of the system that fails with this number."""

    def call(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return call


def begin_and_discard(directory: str, name: str = "new") -> None:
    with LocalTree("out").new_file((directory, name)):
        pass
