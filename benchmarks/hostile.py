"""Attack a server with hostile clients, of all kinds or of some: ``python -m benchmarks.hostile PORT TOKEN [KIND]...``.

All clients have one token, and share a few addresses that no other client has. Each kind has some threads, and each
thread repeats its attack. The program stops when its stdin ends, and prints the outcomes as JSON, by kind.
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
# Bytes of the receive buffer. With a large buffer, the system would hold the bytes that the server should hold.
BUFFER = 4096
# Seconds, on average, after which a client starts again if the server keeps its connection. They vary per client.
LONGEST_SECONDS = 30.0
# Seconds within which all clients start.
START_SECONDS = 5.0
# Seconds between two sends or receives of a slow client.
PAUSE_SECONDS = 0.5
# Nested lists. In an indented reply, each has its own line, which is longer the deeper it is.
DEEP = b"[" * 28 + b"]" * 28
MEGABYTE = 1 << 20


class AttackOverError(Exception):
    """The time of the attack has ended."""


@dataclass
class Attackers:
    """The state that all threads share: the port of the server, the token, the end of the attack, and the outcomes."""

    port: int
    token: str
    is_over: threading.Event = field(default_factory=threading.Event)
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    _addresses: Iterator[str] = field(default_factory=lambda: itertools.cycle(ADDRESSES))

    def run(self, kinds: Sequence[str], wait: Callable[[], object]) -> None:
        """Run the threads of *kinds* until *wait* returns."""
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
        ends = time.monotonic() + 4 * PAUSE_SECONDS
        for thread in threads:
            thread.join(max(0.0, ends - time.monotonic()))

    def _repeat(self, kind: str, attack: Callable[[Attackers], str]) -> None:
        outcomes = self.outcomes[kind]
        self.is_over.wait(random.uniform(0, START_SECONDS))
        while not self.is_over.wait(PAUSE_SECONDS):
            try:
                outcomes[attack(self)] += 1
            except AttackOverError:
                outcomes["unfinished at the end"] += 1
            except (OSError, ValueError, KeyError, IndexError) as e:
                outcomes[type(e).__name__] += 1

    def wait(self, seconds: float) -> None:
        """Wait for *seconds*. Raise `AttackOverError` if the attack ends meanwhile."""
        if self.is_over.wait(seconds):
            raise AttackOverError

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            sock.settimeout(LONGEST_SECONDS)
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

    def ask(self, data: bytes) -> tuple[str, bytes]:
        """Send one request and read its answer at full speed. Return its status and its body. Raise `TimeoutError`."""
        with self.connected() as sock:
            sock.sendall(data.replace(b"Host:", b"Connection: close\r\nHost:", 1))
            head, _, body = b"".join(self._received(sock, MEGABYTE)).partition(b"\r\n\r\n")
        return _status(head), body

    def read_slowly(self, data: bytes, size: int = 512) -> str:
        """Send *data*, a request or nothing, and read *size* bytes of its answer at a time. Return its status."""
        head = b""
        with self.connected() as sock:
            sock.sendall(data)
            try:
                for data in self._received(sock, size):
                    head = (head + data)[:12]
                    self.wait(PAUSE_SECONDS)
            except TimeoutError:
                return f"{_status(head)}, still connected"
        return f"{_status(head)}, closed by the server"

    def _received(self, sock: socket.socket, size: int) -> Iterator[bytes]:
        """Yield received bytes until the server closes the connection.

        Raise `TimeoutError` after about `LONGEST_SECONDS`.
        """
        ends = time.monotonic() + random.uniform(LONGEST_SECONDS / 2, LONGEST_SECONDS * 3 / 2)
        sock.settimeout(PAUSE_SECONDS)
        while time.monotonic() < ends:
            self.wait(0)
            with contextlib.suppress(TimeoutError):
                data = sock.recv(size)
                if not data:
                    return
                yield data
        raise TimeoutError

    def send_slowly(self, begin: bytes, data: bytes) -> str:
        """Send *begin*, and then *data* again and again until the server closes the connection. Return its status."""
        with self.connected() as sock:
            sock.sendall(begin)
            ends = time.monotonic() + random.uniform(LONGEST_SECONDS / 2, LONGEST_SECONDS * 3 / 2)
            with contextlib.suppress(ConnectionError):
                while time.monotonic() < ends:
                    sock.sendall(data)
                    self.wait(PAUSE_SECONDS)
            sock.settimeout(PAUSE_SECONDS)
            with contextlib.suppress(TimeoutError):
                return _status(sock.recv(BUFFER))
        return "still connected"


def _status(head: bytes) -> str:
    return head[9:12].decode() if head.startswith(b"HTTP/1.1 ") else "nothing"


def _echo() -> bytes:
    lists = b",".join([DEEP] * (1_000_000 // (len(DEEP) + 1)))
    return b'{"action":"hello","meta":{"askAbout":"echoBack","echoBack":[%b]}}' % lists


# A server that refuses this message must read it first.
NESTED = _echo()
TEXT = b'{"action":"hello","meta":{"askAbout":"echoBack","echoBack":"%b"}}' % (b"x" * 1_000_000)
STARS = ["*" + "0*" * 60 + "x"] * 20
ALL = ["name", "bytes", "hash", "last_modified", "content_type"]


def slow_listing(attackers: Attackers) -> str:
    return attackers.read_slowly(attackers.message("ls", path="study", retSpec=ALL))


def slow_echo(attackers: Attackers) -> str:
    return attackers.read_slowly(attackers.post(TEXT))


def echo(attackers: Attackers) -> str:
    return attackers.ask(attackers.post(NESTED))[0]


def fields(attackers: Attackers) -> str:
    """Name one field 100,000 times in one message."""
    return attackers.ask(attackers.message("ls", path="soak", retSpec=["name"] * 100_000))[0]


def globs(attackers: Attackers) -> str:
    """Compare many keys with globs that match none of them, but nearly all."""
    return attackers.ask(attackers.message("objPull", fromLocation="study", include=STARS, dryRun=True))[0]


def flood(attackers: Attackers) -> str:
    """Submit more long jobs than can run at once."""
    meta = {"fromLocation": "study", "mapLocationOver": "flood", "dryRun": True, "async": True}
    statuses = [attackers.ask(attackers.message("objPull", **meta))[0] for _ in range(20)]
    return statuses[-1]


def poll(attackers: Attackers) -> str:
    return attackers.ask(attackers.message("jobList", limit=1000))[0]


def events(attackers: Attackers) -> str:
    """Follow a job, and read its events very slowly."""
    jobs = json.loads(attackers.ask(attackers.message("jobList", limit=1))[1])["jobs"]
    return attackers.read_slowly(attackers.head("GET", f"/api/v1/jobs/{jobs[0]['job']}/events"), 1)


def slow_head(attackers: Attackers) -> str:
    return attackers.send_slowly(b"GET /healthz HTTP/1.1\r\n", b"X")


def slow_body(attackers: Attackers) -> str:
    return attackers.send_slowly(
        attackers.head("PUT", "/api/v1/objects/hostile/slow", 50 * MEGABYTE), b"x" * 10
    )


def idle(attackers: Attackers) -> str:
    """Connect, and send nothing."""
    return attackers.read_slowly(b"")


# By kind: the number of threads, and the attack.
KINDS: dict[str, tuple[int, Callable[[Attackers], str]]] = {
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


def main(argv: Sequence[str]) -> None:
    port, token, *kinds = argv
    # real attackers are other machines, which use no processor of the server
    os.nice(19)
    attackers = Attackers(int(port), token)
    attackers.run(kinds or list(KINDS), sys.stdin.read)
    print(json.dumps({kind: dict(outcomes.copy()) for kind, outcomes in attackers.outcomes.items()}))


if __name__ == "__main__":
    main(sys.argv[1:])
