"""A proxy of bytes between a client and a server, which can cut connections or change bytes."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

from tests.support.peer import Listener

Tamper = Callable[[bytes], "bytes | None"]
"""A function that changes bytes on their way. Its result None cuts the connection."""


def unchanged(data: bytes) -> bytes:
    return data


class Wire(Listener):
    """Passes the bytes of each connection on to *port* of this machine. With *context*, clients speak TLS."""

    def __init__(self, port: int, context: ssl.SSLContext | None = None) -> None:
        self.to_client: Tamper = unchanged
        self.to_server: Tamper = unchanged
        self._target = port
        super().__init__(self._pass_on, context, timeout=20 if context else None)

    def _pass_on(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._target)) as server, self.holding(server):
            back = threading.Thread(target=self._pump, args=(server, client, lambda: self.to_client))
            back.start()
            self._pump(client, server, lambda: self.to_server)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, tamper: Callable[[], Tamper]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := source.recv(65536):
                changed = tamper()(data)
                if changed is None:
                    break
                sink.sendall(changed)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # close alone does not wake the other thread


@contextlib.contextmanager
def wire_to(port: int) -> Iterator[Wire]:
    with contextlib.closing(Wire(port)) as wire:
        yield wire


def cut_after(size: int, times: int = 1) -> Tamper:
    """Cut a connection once *size* bytes have passed in all, *times* over."""
    lock = threading.Lock()
    seen = 0

    def tamper(data: bytes) -> bytes | None:
        nonlocal seen, times
        with lock:
            seen += len(data)
            if times and seen > size:
                seen, times = 0, times - 1
                return None
        return data

    return tamper


def replaced(old: bytes, new: bytes, times: int = 1) -> Tamper:
    """Replace *old* by *new*, *times* times. Each *old* is within one portion of the bytes that are sent."""
    lock = threading.Lock()

    def tamper(data: bytes) -> bytes:
        nonlocal times
        with lock:
            if times and old in data:
                times -= 1
                return data.replace(old, new)
        return data

    return tamper
