"""The clients of a soak: each sends one random request after the other, and checks the replies."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

OBJECTS = 100
SIZE = 4096
FOLDER = "soak/files"


@dataclass
class ClientCounts:
    """The counts of all clients. *seconds* has the times of all requests, *recent* those since the last line.

    *warm* is the number of clients that have sent each kind of request once.
    """

    warm: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    seconds: array[float] = field(default_factory=lambda: array("f"))
    recent: array[float] = field(default_factory=lambda: array("f"))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, seconds: float, error: str = "") -> None:
        with self.lock:
            self.seconds.append(seconds)
            self.recent.append(seconds)
            if error:
                self.errors[error] += 1

    def note_warm(self) -> None:
        with self.lock:
            self.warm += 1

    def take_recent(self) -> array[float]:
        with self.lock:
            recent, self.recent = self.recent, array("f")
            return recent


class UnexpectedError(Exception):
    """The status or the content of an answer is wrong."""


class Client:
    """One client. It keeps its connection, and makes another one when that has broken."""

    def __init__(
        self, number: int, port: int, counts: ClientCounts, *, token: str = "", pause: float = 0.0
    ) -> None:
        """Use *token*, if the server has tokens, and wait *pause* seconds on average between two requests."""
        self._number = number
        self._random = random.Random(number)
        self._counts = counts
        self._headers = {"Content-Type": "application/octet-stream"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._pause = pause
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def run(self, is_over: threading.Event) -> None:
        """Send each kind of request once in random order, and then random ones."""
        kinds = (self._hello, self._ls, self._exists, self._get, self._pull, self._replace)
        begin = self._random.sample(kinds, len(kinds))
        while begin and not is_over.wait(self._random.uniform(0, 2 * self._pause)):
            self._do(begin.pop())
        self._counts.note_warm()
        while not is_over.wait(self._random.uniform(0, 2 * self._pause)):
            self._do(*self._random.choices(kinds, (4, 4, 4, 4, 1, 1)))
        self._connection.close()

    def _do(self, kind: Callable[[], None]) -> None:
        started = time.perf_counter()
        error = ""
        try:
            kind()
        except UnexpectedError as e:
            error = f"{kind.__name__[1:]}: {e}"
        except (OSError, http.client.HTTPException, ValueError) as e:
            error = f"{kind.__name__[1:]}: {type(e).__name__}"
            self._connection.close()
        self._counts.note(time.perf_counter() - started, error)

    def _ask(self, method: str, path: str, body: bytes = b"", wanted: int = 200) -> bytes:
        is_kept = self._connection.sock is not None
        try:
            answer = self._answer(method, path, body)
        except (
            ConnectionError
        ):  # the server may end a connection between two requests: see docs/deployment.rst
            if not is_kept:
                raise
            self._connection.close()
            answer = self._answer(method, path, body)
        content = answer.read()
        if answer.status != wanted:
            raise UnexpectedError(f"{answer.status} {content[:200]!r}")
        return content

    def _answer(self, method: str, path: str, body: bytes) -> http.client.HTTPResponse:
        self._connection.request(method, path, body, self._headers)
        return self._connection.getresponse()

    def _send(self, action: str, **meta: Any) -> Any:
        message = json.dumps({"action": action, "meta": meta}).encode()
        reply = json.loads(self._ask("POST", "/api/v1/cmd", message))
        _require(reply["status"] is True, str(reply)[:200])
        return reply

    def _key(self) -> str:
        return f"{FOLDER}/{self._random.randrange(OBJECTS):03}"

    def _hello(self) -> None:
        self._send("hello", askAbout="timestamp")

    def _ls(self) -> None:
        _require(len(self._send("ls", path=FOLDER)["ls"]) == OBJECTS, "rows are missing")

    def _exists(self) -> None:
        self._send("objExists", obj=self._key())

    def _get(self) -> None:
        key = self._key()
        _require(self._ask("GET", f"/api/v1/objects/{key}") == content_of(key), "wrong bytes")

    def _pull(self) -> None:
        """Pull a file to a path of this client, where it replaces the file of an earlier pull."""
        key, target = self._key(), f"pulled/{self._number}"
        reply = self._send("objPull", path=key, fromLocation=key, mapLocationOver=target)
        _require(len(reply["localFileList"]) == 1, "no file")

    def _replace(self) -> None:
        """Replace an object that no other client uses, and read it."""
        path = f"/api/v1/objects/soak/own/{self._number}"
        content = self._random.randbytes(SIZE)
        self._ask("PUT", path, content, 201)
        _require(self._ask("GET", path) == content, "other bytes than those of the PUT")


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise UnexpectedError(text)


def content_of(key: str) -> bytes:
    return hashlib.sha512(key.encode()).digest() * (SIZE // 64)
