"""Clients that mean harm, of all kinds or of some: ``python -m benchmarks.hostile PORT TOKEN [KIND]...``.

All of them have one token, and come from a few addresses that no other client has. Each kind has some threads, and
each thread does the same over and over. They stop when their stdin ends, and write what came of it as JSON,
by kind.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

ADDRESSES = tuple(f"127.0.0.{number}" for number in range(2, 6))
BUFFER = 4096
"""Bytes that the system takes in for a client that does not read: else it hides what the server would have to hold."""
LONGEST = 30.0
"""Seconds after which a client that is not hung up on begins anew, on average: they do not come all at once."""
FIRST = 5.0
"""Seconds within which all of them come."""
TRICKLE = 0.5
"""Seconds between two small pieces that a slow client sends or takes."""
DEEP = b"[" * 28 + b"]" * 28
"""Lists in lists, which take more room the deeper they are, where each has its line."""
MEGABYTE = 1 << 20


class OverError(Exception):
    """The time is up."""


@dataclass
class Crowd:
    """What all threads share: where the server is, the token, when it is over, and what came of it."""

    port: int
    token: str
    is_over: threading.Event = field(default_factory=threading.Event)
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    _addresses: Iterator[str] = field(default_factory=lambda: itertools.cycle(ADDRESSES))

    def run(self, kinds: Sequence[str], wait: Callable[[], object]) -> None:
        """Attack in the threads of these *kinds* until *wait* returns."""
        threads = []
        for kind in kinds:
            count, attack = KINDS[kind]
            self.outcomes[kind] = Counter()
            threads += [
                threading.Thread(target=self._repeat, args=(kind, attack), daemon=True) for _ in range(count)
            ]
        for thread in threads:
            thread.start()
        wait()
        self.is_over.set()
        ends = time.monotonic() + 4 * TRICKLE
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _repeat(self, kind: str, attack: Callable[[Crowd], str]) -> None:
        outcomes = self.outcomes[kind]
        self.is_over.wait(random.uniform(0, FIRST))
        while not self.is_over.wait(TRICKLE):
            try:
                outcomes[attack(self)] += 1
            except OverError:
                outcomes["under way at the end"] += 1
            except (OSError, ValueError, KeyError, IndexError) as e:
                outcomes[type(e).__name__] += 1

    def wait(self, seconds: float) -> None:
        """Wait; raise `OverError` once it is over."""
        if self.is_over.wait(seconds):
            raise OverError

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            sock.settimeout(LONGEST)
            sock.bind((next(self._addresses), 0))
            sock.connect(("127.0.0.1", self.port))
            yield sock

    def head(self, method: str, path: str, length: int | None = None) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {self.token}"]
        lines += [] if length is None else [f"Content-Length: {length}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def post(self, body: bytes) -> bytes:
        return self.head("POST", "/api/v1/cmd", len(body)) + body

    def message(self, action: str, **meta: Any) -> bytes:
        return self.post(json.dumps({"action": action, "meta": meta}).encode())

    def answered(self, data: bytes) -> tuple[str, bytes]:
        """Send one request and take its answer at once; return its status and its body. Raise `TimeoutError`."""
        with self.connected() as sock:
            sock.sendall(data.replace(b"Host:", b"Connection: close\r\nHost:", 1))
            head, _, body = b"".join(self._pieces(sock, MEGABYTE)).partition(b"\r\n\r\n")
        return _status(head), body

    def taken_slowly(self, data: bytes, size: int = 512) -> str:
        """Send one request, if there are *data*, and take *size* bytes of its answer at a time; return its status."""
        head = b""
        with self.connected() as sock:
            sock.sendall(data)
            try:
                for piece in self._pieces(sock, size):
                    head = (head + piece)[:12]
                    self.wait(TRICKLE)
            except TimeoutError:
                return f"{_status(head)}, not hung up on"
        return f"{_status(head)}, hung up on"

    def _pieces(self, sock: socket.socket, size: int) -> Iterator[bytes]:
        """Yield what comes until the server ends it. Raise `TimeoutError` if that takes about `LONGEST`."""
        ends = time.monotonic() + random.uniform(LONGEST / 2, LONGEST * 3 / 2)
        sock.settimeout(TRICKLE)
        while time.monotonic() < ends:
            self.wait(0)
            with contextlib.suppress(TimeoutError):
                data = sock.recv(size)
                if not data:
                    return
                yield data
        raise TimeoutError

    def sent_slowly(self, begin: bytes, piece: bytes) -> str:
        """Send *begin*, and then *piece* after *piece*, until the server ends that; return its status."""
        with self.connected() as sock:
            sock.sendall(begin)
            ends = time.monotonic() + random.uniform(LONGEST / 2, LONGEST * 3 / 2)
            with contextlib.suppress(ConnectionError):
                while time.monotonic() < ends:
                    sock.sendall(piece)
                    self.wait(TRICKLE)
            sock.settimeout(TRICKLE)
            with contextlib.suppress(TimeoutError):
                return _status(sock.recv(BUFFER))
        return "not hung up on"


def _status(head: bytes) -> str:
    return head[9:12].decode() if head.startswith(b"HTTP/1.1 ") else "nothing"


def _echo() -> bytes:
    lists = b",".join([DEEP] * (1_000_000 // (len(DEEP) + 1)))
    return b'{"action":"hello","meta":{"askAbout":"echoBack","echoBack":[%b]}}' % lists


NESTED = _echo()
"""Whatever a server makes of it, it has to read it first."""
TEXT = b'{"action":"hello","meta":{"askAbout":"echoBack","echoBack":"%b"}}' % (b"x" * 1_000_000)
STARS = ["*" + "0*" * 60 + "x"] * 20
ALL = ["name", "bytes", "hash", "last_modified", "content_type"]


def slow_listing(crowd: Crowd) -> str:
    return crowd.taken_slowly(crowd.message("ls", path="study", retSpec=ALL))


def slow_echo(crowd: Crowd) -> str:
    return crowd.taken_slowly(crowd.post(TEXT))


def echo(crowd: Crowd) -> str:
    return crowd.answered(crowd.post(NESTED))[0]


def fields(crowd: Crowd) -> str:
    """Ask for one field very often."""
    return crowd.answered(crowd.message("ls", path="soak", retSpec=["name"] * 100_000))[0]


def globs(crowd: Crowd) -> str:
    """Compare many keys with globs that nothing fits, but all nearly do."""
    return crowd.answered(crowd.message("objPull", fromLocation="study", include=STARS, dryRun=True))[0]


def flood(crowd: Crowd) -> str:
    """Begin jobs that take long, more than can run."""
    meta = {"fromLocation": "study", "mapLocationOver": "flood", "dryRun": True, "async": True}
    statuses = [crowd.answered(crowd.message("objPull", **meta))[0] for _ in range(20)]
    return statuses[-1]


def poll(crowd: Crowd) -> str:
    return crowd.answered(crowd.message("jobList", limit=1000))[0]


def events(crowd: Crowd) -> str:
    """Follow a job and take nothing."""
    jobs = json.loads(crowd.answered(crowd.message("jobList", limit=1))[1])["jobs"]
    return crowd.taken_slowly(crowd.head("GET", f"/api/v1/jobs/{jobs[0]['job']}/events"), 1)


def slow_head(crowd: Crowd) -> str:
    return crowd.sent_slowly(b"GET /healthz HTTP/1.1\r\n", b"X")


def slow_body(crowd: Crowd) -> str:
    return crowd.sent_slowly(crowd.head("PUT", "/api/v1/objects/hostile/slow", 50 * MEGABYTE), b"x" * 10)


def idle(crowd: Crowd) -> str:
    """Connect, and say nothing."""
    return crowd.taken_slowly(b"")


KINDS: dict[str, tuple[int, Callable[[Crowd], str]]] = {
    "slow readers of listings": (12, slow_listing),
    "slow readers of echoes": (24, slow_echo),
    "echoes": (2, echo),
    "fields without end": (2, fields),
    "deep globs": (2, globs),
    "floods of jobs": (2, flood),
    "pollers of jobs": (4, poll),
    "event streams": (64, events),
    "slow heads": (16, slow_head),
    "slow bodies": (24, slow_body),
    "idle connections": (40, idle),
}
"""How many threads do what."""


def main(argv: Sequence[str]) -> None:
    port, token, *kinds = argv
    # it stands for machines elsewhere: the server does not share its processors with it
    os.nice(19)
    crowd = Crowd(int(port), token)
    crowd.run(kinds or list(KINDS), sys.stdin.read)
    print(json.dumps({kind: dict(outcomes.copy()) for kind, outcomes in crowd.outcomes.items()}))


if __name__ == "__main__":
    main(sys.argv[1:])
