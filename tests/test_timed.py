"""What a connection is read from: bounds of its silence, and of what it takes as a whole."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pfstorage.serving.timed import TimedStream

Pair = tuple[TimedStream, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A stream that may be silent for 20 s, and who sends to it."""
    near, far = socket.socketpair()
    with near, far:
        yield TimedStream(near, 20.0), far


def test_a_bound_of_the_whole_holds_until_the_next_begins(pair: Pair) -> None:
    stream, far = pair
    stream.begin(0.3)
    far.sendall(b"1")
    assert stream.read(1) == b"1"
    with pytest.raises(TimeoutError):
        stream.read(1)
    stream.begin(None)
    later = threading.Timer(0.6, far.sendall, [b"2"])
    later.start()
    assert stream.read(1) == b"2"
    later.join()


def test_a_bound_of_the_whole_counts_from_the_first_byte(pair: Pair) -> None:
    stream, far = pair
    stream.begin(0.3)
    later = threading.Timer(0.6, far.sendall, [b"1"])
    later.start()
    assert stream.read(1) == b"1"
    later.join()


def test_bytes_bring_time(pair: Pair) -> None:
    stream, far = pair
    stream.begin(0.1, slowest=5)
    far.sendall(bytes(10))
    assert stream.read(10) == bytes(10)
    time.sleep(0.3)
    far.sendall(b"1")
    assert stream.read(1) == b"1"
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        stream.read(1)
    assert time.monotonic() - started < 10
