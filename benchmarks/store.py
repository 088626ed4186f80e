"""The development Swift as the benchmarks see it: what is in it, and what it was asked for."""

from __future__ import annotations

import http.client
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from pfstorage.devswift import DevSwift

CONTAINER = "users"
"""The container that both versions use unless told otherwise. 2.0.0.2 does not make it."""


@dataclass(frozen=True)
class Store:
    """A Swift at *port* that writes a line for each request to *log*.

    Its client is `http.client`: an SDK would make the benchmarks' own process
    larger than those whose memory is measured.
    """

    port: int
    pid: int
    path: str
    token: str
    log: Path

    @classmethod
    def of(cls, swift: DevSwift, log: Path) -> Store:
        """Log in, and make the container."""
        credentials = {"X-Auth-User": swift.user, "X-Auth-Key": swift.key}
        headers, _ = _ask(swift.port, "GET", "/auth/v1.0", credentials)
        path = f"{urlsplit(headers['X-Storage-Url']).path}/{CONTAINER}"
        store = cls(swift.port, swift.pid, path, headers["X-Auth-Token"], log)
        store._request("PUT")
        return store

    def keys(self, prefix: str) -> list[str]:
        """Return up to 10,000 keys that begin with *prefix*."""
        return self._request("GET", query=f"?prefix={quote(prefix)}").decode().splitlines()

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            self._request("DELETE", f"/{quote(key)}")

    def logins(self) -> int:
        """Return how often anybody has logged in."""
        return sum("/auth/" in line for line in self.log.read_text().splitlines())

    def cpu_seconds(self) -> float:
        """Return the user and system time that the store has taken so far."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return sum(_cpu_seconds(pid) for pid in (self.pid, *map(int, children)))

    def _request(self, method: str, path: str = "", query: str = "") -> bytes:
        return _ask(self.port, method, self.path + path + query, {"X-Auth-Token": self.token})[1]


def _cpu_seconds(pid: int) -> float:
    """Read ``utime`` and ``stime`` (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ask(port: int, method: str, path: str, headers: dict[str, str]) -> tuple[http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {answer.reason}")
    return answer.headers, body
