"""The development Swift of the benchmarks: its objects, its log of requests, and its CPU time."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from pfstorage.devswift import KEY, USER, running

# The default container of both versions. 2.0.0.2 does not create it.
CONTAINER = "users"


@dataclass(frozen=True)
class Site:
    """The address of a Swift. *path* is that of the container, *pids* are the processes that serve it."""

    port: int
    pids: tuple[int, ...]
    path: str
    token: str

    @property
    def auth_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/auth/v1.0"

    def object_url(self, key: str) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}/{quote(key)}"

    def cpu_seconds(self) -> float:
        """Return the user and system time that its processes, and their children, have used so far."""
        return sum(_cpu_seconds(each) for pid in self.pids for each in (pid, *_children(pid)))


@dataclass(frozen=True)
class Store(Site):
    """A Swift with its files in *directory*, which writes a line for each request to *log*.

    Requests use `http.client`: an SDK would make the process of the benchmarks larger than the measured processes.
    """

    log: Path
    directory: Path

    def put(self, key: str, path: Path) -> None:
        with path.open("rb") as file:
            headers = {"X-Auth-Token": self.token, "Content-Length": str(path.stat().st_size)}
            _ask(self.port, "PUT", f"{self.path}/{quote(key)}", headers, file)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the sizes of up to 10,000 objects whose keys begin with *prefix*, by key."""
        return {row["name"]: row["bytes"] for row in self._rows(prefix)}

    def clear(self, prefix: str) -> None:
        """Delete up to 10,000 objects whose keys begin with *prefix*, and their segments."""
        for row in self._rows(prefix):
            query = "?multipart-manifest=delete" if "slo_etag" in row else ""
            self._request("DELETE", f"/{quote(row['name'])}", query)

    def logins(self) -> int:
        """Return the number of logins."""
        with self.log.open() as lines:
            return sum("/auth/" in line for line in lines)

    def make_container(self) -> None:
        self._request("PUT")

    def _rows(self, prefix: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(
            self._request("GET", "", f"?format=json&prefix={quote(prefix)}")
        )
        return rows

    def _request(self, method: str, path: str = "", query: str = "") -> bytes:
        return _ask(self.port, method, self.path + path + query, {"X-Auth-Token": self.token})[1]


@contextlib.contextmanager
def running_store(directory: Path, processes: int) -> Iterator[Store]:
    """Run a Swift with its files below *directory* during a ``with`` block, and create the container."""
    log = directory / "requests.log"
    directory.mkdir()
    with running(0, directory / "files", log, processes) as swift:
        headers, _ = _ask(swift.port, "GET", "/auth/v1.0", {"X-Auth-User": USER, "X-Auth-Key": KEY})
        path = f"{urlsplit(headers['X-Storage-Url']).path}/{CONTAINER}"
        store = Store(swift.port, (swift.pid,), path, headers["X-Auth-Token"], log, swift.directory)
        store.make_container()
        yield store


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _cpu_seconds(pid: int) -> float:
    """Read ``utime`` and ``stime`` (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ask(
    port: int, method: str, path: str, headers: dict[str, str], body: IO[bytes] | None = None
) -> tuple[http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
    finally:
        connection.close()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {answer.reason}")
    return answer.headers, content
