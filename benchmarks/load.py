"""Run many clients in one process: ``python load.py PORT CONNECTIONS SECONDS EXPECTED``.

The program reads a request from stdin, and sends it over CONNECTIONS connections at once. Each connection sends it
again as soon as it is answered. If stdin has several requests, separated by NUL, the connections take them in turn.
Each answer must contain the text EXPECTED. The program prints the number of answers and the seconds as JSON. It does
almost nothing else, so that the server determines the result, and imports only the standard library.
"""

from __future__ import annotations

import itertools
import json
import selectors
import socket
import sys
import time

RECEIVE_SIZE = 256 * 1024
# Seconds without any answer after which the program fails.
SILENCE = 60.0


class WrongAnswerError(Exception):
    """An answer is missing, incomplete or wrong."""


class Connection:
    """One client. It makes a new connection if the server closes its connection."""

    def __init__(self, port: int, request: bytes, expected: bytes, selector: selectors.BaseSelector) -> None:
        self._port = port
        self._request = request
        self._expected = expected
        self._selector = selector
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=SILENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(self._socket, selectors.EVENT_READ, self)

    def send(self) -> None:
        self._answer = b""
        self._size: int | None = None
        self._socket.sendall(self._request)

    def receive(self) -> bool:
        """Read the received bytes, and return whether the answer is complete."""
        data = self._socket.recv(RECEIVE_SIZE)
        self._answer += data
        if self._size is None:
            self._size = _size_of(self._answer)
        if self._size is None or self._size < 0:
            if data:
                return False
            self._size = len(self._answer)
        elif len(self._answer) < self._size:
            if not data:
                raise WrongAnswerError(f"the connection ended within an answer: {self._answer[:500]!r}")
            return False
        if self._expected not in self._answer:
            raise WrongAnswerError(f"the answer is {self._answer[:500]!r}")
        if not data or b"connection: close" in self._answer[:1000].lower():
            self.close()
            self._connect()
        return True

    def close(self) -> None:
        self._selector.unregister(self._socket)
        self._socket.close()


def _size_of(answer: bytes) -> int | None:
    """Return the size of the whole answer that begins with *answer*. None: not known yet; -1: known at its end only."""
    head, end, _ = answer.partition(b"\r\n\r\n")
    if not end:
        return None
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return len(head) + len(end) + int(value)
    return -1


def run(
    port: int, connections: int, seconds: float, requests: list[bytes], expected: bytes
) -> tuple[int, float]:
    """Return the number of answers, and the seconds until the last one."""
    count, now = 0, 0.0
    with selectors.DefaultSelector() as selector:
        each = itertools.islice(itertools.cycle(requests), connections)
        clients = [Connection(port, request, expected, selector) for request in each]
        started = time.perf_counter()
        for client in clients:
            client.send()
        unanswered = connections
        while unanswered:
            ready = selector.select(SILENCE)
            if not ready:
                raise WrongAnswerError(f"no answer for {SILENCE:.0f} s")
            for key, _ in ready:
                if not key.data.receive():
                    continue
                count += 1
                now = time.perf_counter()
                if now - started < seconds:
                    key.data.send()
                else:
                    unanswered -= 1
        for client in clients:
            client.close()
    return count, now - started


def main() -> None:
    port, connections, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    count, took = run(port, connections, seconds, sys.stdin.buffer.read().split(b"\0"), sys.argv[4].encode())
    print(json.dumps({"answers": count, "seconds": took}))


if __name__ == "__main__":
    main()
