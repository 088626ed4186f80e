"""Timed reads and writes of a connection: limits of the time of a client, in total and for each portion."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pfstorage.runtime.sockets import unacknowledged_bytes
from pfstorage.server.http1 import timed
from pfstorage.server.http1.timed import TimedReader, TimedSocket, TimedWriter

Pair = tuple[TimedReader, socket.socket]


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection by TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    with near, far:
        yield near, far


@pytest.fixture
def pair(sockets: tuple[socket.socket, socket.socket]) -> Pair:
    return TimedReader(TimedSocket(sockets[0])), sockets[1]


def test_a_bound_holds_until_the_next_begins(pair: Pair) -> None:
    stream, far = pair
    stream.set_budget(0.3)
    far.sendall(b"1")
    assert stream.read(1) == b"1"
    for _ in range(2):
        with pytest.raises(TimeoutError):
            stream.read(1)
    stream.set_budget(math.inf)
    later = threading.Timer(0.6, far.sendall, [b"2"])
    later.start()
    assert stream.read(1) == b"2"
    later.join()


def test_a_client_that_sends_single_bytes_gets_no_more_time(pair: Pair) -> None:
    stream, far = pair
    stream.set_budget(0.5)
    over = threading.Event()

    def trickle() -> None:
        while not over.wait(0.01):
            far.sendall(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        with pytest.raises(TimeoutError):
            stream.readall()
    finally:
        over.set()
        thread.join()


def test_only_waiting_time_counts(pair: Pair) -> None:
    stream, far = pair
    stream.set_budget(0.2)
    for _ in range(3):
        time.sleep(0.1)
        far.sendall(b"1")
        assert stream.read(1) == b"1"


def test_bytes_extend_the_time_up_to_a_limit(pair: Pair) -> None:
    stream, far = pair
    stream.set_budget(0.1, rate=1, limit=0.5)
    far.sendall(bytes(1000))
    assert stream.read(1000) == bytes(1000)
    later = threading.Timer(0.2, far.sendall, [b"1"])  # more than it had in the beginning
    later.start()
    assert stream.read(1) == b"1"
    later.join()
    with pytest.raises(TimeoutError):  # a thousand seconds would be longer than the test may take
        stream.read(1)


@pytest.mark.parametrize("haste", [1.0, 1e6])
def test_bytes_extend_the_time_less_when_the_client_must_hurry(
    sockets: tuple[socket.socket, socket.socket], haste: float
) -> None:
    stream, far = TimedReader(TimedSocket(sockets[0]), lambda: haste), sockets[1]
    stream.set_budget(0.2, rate=1, limit=600)
    far.sendall(bytes(1000))
    assert stream.read(1000) == bytes(1000)
    if haste > 1:
        with pytest.raises(TimeoutError):  # 600 s would be longer than the test may take
            stream.read(1)
        return
    later = threading.Timer(0.4, far.sendall, [b"1"])
    later.start()
    assert stream.read(1) == b"1"
    later.join()


BYTES = bytes(range(256)) * 80_000
"""More than the system holds for a reader."""


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timed, "CHECK_SECONDS", 0.02)


@pytest.mark.usefixtures("_often")
def test_a_client_that_reads_nothing_is_disconnected(sockets: tuple[socket.socket, socket.socket]) -> None:
    writer = TimedWriter(TimedSocket(sockets[0]), lambda: (0.3, 1.0))
    with pytest.raises(TimeoutError, match="too slowly"):
        writer.write(BYTES)
    assert 0 < unacknowledged_bytes(sockets[0]) < len(BYTES)


@pytest.mark.usefixtures("_often")
def test_a_client_that_reads_fast_enough_gets_all_bytes(sockets: tuple[socket.socket, socket.socket]) -> None:
    near, far = sockets
    writer = TimedWriter(TimedSocket(near), lambda: (5.0, 4096.0))
    taken = bytearray()

    def read() -> None:
        while len(taken) < len(BYTES):
            time.sleep(0.002)  # so the sender waits for it again and again
            taken.extend(far.recv(200_000))

    thread = threading.Thread(target=read)
    thread.start()
    assert writer.write(memoryview(BYTES)) == len(BYTES)
    thread.join()
    assert taken == BYTES


@pytest.mark.usefixtures("_often")
def test_a_client_that_reads_below_the_minimum_rate_is_disconnected(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    near, far = sockets
    writer = TimedWriter(TimedSocket(near), lambda: (0.3, 1e12))
    over = threading.Event()

    def trickle() -> None:
        while not over.wait(0.005):
            far.recv(100_000)

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        with pytest.raises(TimeoutError):
            writer.write(BYTES * 10)
    finally:
        over.set()
        thread.join()


@pytest.mark.usefixtures("_often")
def test_the_bounds_may_change_while_it_is_sent(sockets: tuple[socket.socket, socket.socket]) -> None:
    asked = threading.Event()
    bounds = [(3600.0, 1.0)]

    def look() -> tuple[float, float]:
        asked.set()
        return bounds[0]

    writer = TimedWriter(TimedSocket(sockets[0]), look)
    errors: list[BaseException] = []

    def write() -> None:
        try:
            writer.write(BYTES)
        except TimeoutError as e:
            errors.append(e)

    thread = threading.Thread(target=write)
    thread.start()
    assert asked.wait(30)
    bounds[0] = (0.1, 1e9)
    thread.join(30)
    assert len(errors) == 1
