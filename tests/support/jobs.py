"""Jobs: a dispatcher that keeps them, job requests that tests hold, and damaged files of jobs."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.access.permissions import Permissions
from pfstorage.access.principal import Principal
from pfstorage.actions import RequestContext
from pfstorage.backends import Storage
from pfstorage.jobs.model import JobRequest
from pfstorage.jobs.scheduler import JobScheduler
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer import Progress
from pfstorage.wire.reply import Reply
from tests.support.trees import write_tree
from tests.support.waiting import LONG

FILES = {f"{number:02}.dcm": bytes([number]) * (1000 + number) for number in range(12)}


PUT = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}


PULL = {"fromLocation": "s", "mapLocationOver": "out"}


class JobClient:
    """A dispatcher with jobs, as a server has it."""

    def __init__(self, storage: Storage, directory: str = "", **options: Any) -> None:
        self.handler = StoreHandler(storage)
        self.jobs = JobScheduler(
            self.handler.job_runner(RequestContext(Principal(is_trusted=False))), directory, **options
        )
        self.context = RequestContext(Principal(is_trusted=False), jobs=self.jobs)

    def answer(self, action: str, owner: str = "", permissions: str = "admin", **meta: Any) -> Reply:
        principal = Principal(Permissions.parse(permissions), owner, is_trusted=False)
        context = replace(self.context, principal=principal)
        return self.handler.answer({"action": action, "meta": meta}, context)

    def ask(self, action: str, owner: str = "", permissions: str = "admin", **meta: Any) -> dict[str, Any]:
        return self.answer(action, owner, permissions, **meta).body

    def finish(self, action: str, **meta: Any) -> dict[str, Any]:
        """Start a job, and return its final status."""
        job = self.ask(action, **meta, **{"async": True})["job"]
        return self.ask("jobStatus", job=job, wait=30)


@contextlib.contextmanager
def job_client_of(
    storage: Storage, directory: str = "", *, starts: bool = True, **options: Any
) -> Iterator[JobClient]:
    job_client = JobClient(storage, directory, **options)
    try:
        if starts:
            job_client.jobs.start()
        yield job_client
    finally:
        job_client.jobs.close(10)


@pytest.fixture
def job_client(tmp_path: Path) -> Iterator[JobClient]:
    """Jobs over a store in memory, and some files to move."""
    write_tree(tmp_path / "data", FILES)
    with open_storage("memory") as storage, job_client_of(storage, str(tmp_path / "state")) as job_client:
        yield job_client


def job_request(number: int = 0, **more: Any) -> JobRequest:
    return JobRequest({"action": "objPull", "meta": {"path": str(number)}}, **more)


def set_pragma(jobs: JobScheduler, pragma: str) -> Any:
    """Change or read a setting of the connection that writes the file of *jobs*."""
    with jobs._store._database._writer.borrow() as rows:
        return rows.execute(f"PRAGMA {pragma}").fetchone()


def perform(
    given: JobRequest, cancellation: CancellationToken, progress: Callable[[Progress], None]
) -> Reply:
    return Reply({"status": True, "path": given.message["meta"]["path"]})


def queued(state: Path, count: int, **more: Any) -> list[str]:
    """Leave so many queued jobs, as a process that has ended does; return their ids."""
    jobs = JobScheduler(perform, str(state))
    ids = [jobs.submit(job_request(number, **more)) for number in range(count)]
    jobs.close(LONG)
    return ids


@contextlib.contextmanager
def rows_of(state: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(state / "jobs.sqlite")) as rows, rows:
        yield rows


def flipped(content: bytes, seed: int) -> bytes:
    """Return *content* with 50 bytes changed, some of which SQLite looks at first."""
    chosen, changed = random.Random(seed), bytearray(content)
    for place in (*range(100, 110), *chosen.sample(range(len(content)), 40)):
        changed[place] ^= 1 << chosen.randrange(8)
    return bytes(changed)


RUINS: dict[str, Callable[[bytes], bytes]] = {
    "flipped bytes": lambda content: flipped(content, 1),
    "other flipped bytes": lambda content: flipped(content, 2),
    "cut": lambda content: content[:5000],
    "no database": lambda content: b"not a database " * 1000,
    "zeros": lambda content: bytes(len(content)),
    "another version": lambda content: content[:60] + b"\0\0\0\x63" + content[64:],
    "no table": lambda content: content.replace(b"CREATE TABLE", b"CREATE TABLX"),
}


def ruined(state: Path, ruin: str) -> bytes:
    queued(state, 30)
    path = state / "jobs.sqlite"
    path.write_bytes(RUINS[ruin](path.read_bytes()))
    return path.read_bytes()


class Worker:
    """Performs job requests, and holds each until `free` is set. The reply to a cancelled one says so."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.at_once = self.most_at_once = 0
        self.free = threading.Event()
        self.is_busy = threading.Semaphore(0)
        self.tell: Callable[[Progress], None] = lambda _: None
        self._lock = threading.Lock()

    def __call__(
        self, given: JobRequest, cancellation: CancellationToken, progress: Callable[[Progress], None]
    ) -> Reply:
        with self._lock:
            self.begun.append(given.message["meta"]["path"])
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        self.tell = progress
        self.is_busy.release()
        while not self.free.wait(0.01) and not cancellation.is_cancelled:
            pass
        with self._lock:
            self.at_once -= 1
        if cancellation.is_cancelled:
            return Reply({"status": False, "bytes": 5, "msg": str(cancellation.error())})
        return Reply({"status": True, "bytes": 10})


@pytest.fixture
def worker() -> Worker:
    return Worker()
