"""A wire between a client and a server that can be cut, or lie."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

Tamper = Callable[[bytes], "bytes | None"]
"""What becomes of bytes on their way; None cuts the connection."""


def unchanged(data: bytes) -> bytes:
    return data


class Wire:
    """Passes the bytes of each connection on to *port* of this machine, and counts connections."""

    def __init__(self, port: int) -> None:
        self.connections = 0
        self.to_client: Tamper = unchanged
        self.to_server: Tamper = unchanged
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client = self._listener.accept()[0]
                self.connections += 1
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                self._start(
                    lambda client=client, server=server: self._pump(client, server, lambda: self.to_server)
                )
                self._start(
                    lambda client=client, server=server: self._pump(server, client, lambda: self.to_client)
                )

    def _pump(self, source: socket.socket, sink: socket.socket, tamper: Callable[[], Tamper]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                changed = tamper()(data)
                if changed is None:
                    break
                sink.sendall(changed)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # close alone does not wake the other thread

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._sockets):
            each.close()


@contextlib.contextmanager
def wire_to(port: int) -> Iterator[Wire]:
    wire = Wire(port)
    try:
        yield wire
    finally:
        wire.close()


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
    """Change *old* into *new*, *times* over; they stand within one piece of what is sent."""
    lock = threading.Lock()

    def tamper(data: bytes) -> bytes:
        nonlocal times
        with lock:
            if times and old in data:
                times -= 1
                return data.replace(old, new)
        return data

    return tamper
