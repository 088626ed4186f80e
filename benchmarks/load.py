"""Many clients in one process: ``python load.py PORT CONNECTIONS SECONDS EXPECTED``.

It reads the bytes of a request, sends them over so many connections at once, each again
as soon as it is answered, and prints as JSON how many answers came in how many seconds.
Of several requests, with a NUL between them, the connections have one each, in turn.
The text EXPECTED must be in each answer.
It does next to nothing else, so that the server is what takes the time, and imports
nothing but the standard library.
"""

from __future__ import annotations

import itertools
import json
import selectors
import socket
import sys
import time

PIECE = 256 * 1024
SILENCE = 60.0
"""Seconds after which a server that answers nobody is given up."""


class WrongAnswerError(Exception):
    """The answer is not what a request was sent for, or there is none."""


class Connection:
    """One client. It makes a new connection where the server does not keep the one it has."""

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
        """Take what has come; tell whether the answer is whole."""
        piece = self._socket.recv(PIECE)
        self._answer += piece
        if self._size is None:
            self._size = _size_of(self._answer)
        if self._size is None or self._size < 0:
            if piece:
                return False
            self._size = len(self._answer)
        elif len(self._answer) < self._size:
            if not piece:
                raise WrongAnswerError(f"the connection ended within an answer: {self._answer[:500]!r}")
            return False
        if self._expected not in self._answer:
            raise WrongAnswerError(f"the answer is {self._answer[:500]!r}")
        if not piece or b"connection: close" in self._answer[:1000].lower():
            self.close()
            self._connect()
        return True

    def close(self) -> None:
        self._selector.unregister(self._socket)
        self._socket.close()


def _size_of(answer: bytes) -> int | None:
    """Return the bytes of the whole answer that begins so; None if that isn't known yet, -1 if only its end tells."""
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
    """Return the answers, and the seconds until the last of them."""
    count, now = 0, 0.0
    with selectors.DefaultSelector() as selector:
        each = itertools.islice(itertools.cycle(requests), connections)
        clients = [Connection(port, request, expected, selector) for request in each]
        started = time.perf_counter()
        for client in clients:
            client.send()
        under_way = connections
        while under_way:
            ready = selector.select(SILENCE)
            if not ready:
                raise WrongAnswerError(f"nothing came for {SILENCE:.0f} s")
            for key, _ in ready:
                if not key.data.receive():
                    continue
                count += 1
                now = time.perf_counter()
                if now - started < seconds:
                    key.data.send()
                else:
                    under_way -= 1
        for client in clients:
            client.close()
    return count, now - started


def main() -> None:
    port, connections, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    count, took = run(port, connections, seconds, sys.stdin.buffer.read().split(b"\0"), sys.argv[4].encode())
    print(json.dumps({"answers": count, "seconds": took}))


if __name__ == "__main__":
    main()
