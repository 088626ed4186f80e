"""Simulate a store that is far away: ``python -m benchmarks.distance PORT SECONDS``.

A process listens on the loopback interface, prints its port, and passes bytes on to PORT and back. It delays each
byte by SECONDS. A queue holds the bytes on their way, so that the distance costs time, but no throughput. The opening
of a connection is not delayed, as it would be at a real distance: that matters only to clients that open many.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import subprocess
import sys
from collections import deque
from collections.abc import Iterator

from benchmarks.bench import ended
from benchmarks.store import Site
from benchmarks.versions import REPOSITORY


class ConnectionEnd(asyncio.Protocol):
    """One end of a connection. It writes the bytes that it reads to the *other* end, *seconds* later, in order.

    It stops reading while the other end can't be written. So the queue holds at most the bytes of *seconds*, and the
    buffers of both ends.
    """

    other: ConnectionEnd | None = None
    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._delayed: deque[tuple[float, bytes | None]] = deque()  # None: the end of the stream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._delay(data)

    def eof_received(self) -> bool:
        self._delay(None)
        return True  # the other direction stays open

    def connection_lost(self, error: Exception | None) -> None:
        self._loop.call_later(self._seconds, self._close)

    def pause_writing(self) -> None:
        assert self.other
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        assert self.other
        self.other.transport.resume_reading()

    def _delay(self, data: bytes | None) -> None:
        # not a timer for each: timers of the same moment may go off in any order
        self._delayed.append((self._loop.time() + self._seconds, data))
        if len(self._delayed) == 1:
            self._loop.call_later(self._seconds, self._arrive)

    def _arrive(self) -> None:
        now = self._loop.time()
        while self._delayed and self._delayed[0][0] <= now:
            self._write(self._delayed.popleft()[1])
        if self._delayed:
            self._loop.call_at(self._delayed[0][0], self._arrive)

    def _close(self) -> None:
        if self.other:
            self.other.transport.close()

    def _write(self, data: bytes | None) -> None:
        assert self.other
        transport = self.other.transport
        if transport.is_closing():
            return
        if data is None:
            transport.write_eof()
        else:
            transport.write(data)


class ClientEnd(ConnectionEnd):
    """The end of a client. It starts to read when the far end, at *port*, is connected."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, port: int) -> None:
        super().__init__(loop, seconds)
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        far = ConnectionEnd(self._loop, self._seconds)
        far.other = self
        try:
            await self._loop.create_connection(lambda: far, "127.0.0.1", self._port)
        except OSError:
            self.transport.close()
        else:
            self.other = far
            self.transport.resume_reading()


async def serve(port: int, seconds: float) -> None:
    """Pass connections on to *port* until the end of stdin."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: ClientEnd(loop, seconds, port), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)


@contextlib.contextmanager
def at_distance(site: Site, seconds: float) -> Iterator[Site]:
    """Yield *site* at a distance of *seconds* in each direction.

    Requests after the login take the same way: Swift's TempAuth returns the address in the header Host of the login.
    """
    command = [sys.executable, "-m", "benchmarks.distance", str(site.port), str(seconds)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process, ended(process):
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield dataclasses.replace(site, port=port, pids=(*site.pids, process.pid))


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
