"""Exchange of bytes with an HTTP server, openly or by TLS, and a server as a separate process."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import selectors
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pfstorage import ThreadedHTTPServer

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
HELLO: dict[str, Any] = {"action": "hello", "meta": {"askAbout": "echoBack", "echoBack": "Hi there!"}}


@dataclass(frozen=True)
class Answer:
    """One HTTP response, with its original bytes."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def request(
    method: str, path: str, *headers: str, body: bytes | str = b"", version: str = "HTTP/1.1"
) -> bytes:
    """Return the bytes of a request with just the *headers* given; a text body goes as UTF-8."""
    content = body.encode() if isinstance(body, str) else body
    head = "\r\n".join([f"{method} {path} {version}", "Host: localhost", *headers])
    return head.encode("latin-1") + b"\r\n\r\n" + content


def post(body: bytes | str, *headers: str, path: str = "/api/v1/cmd") -> bytes:
    """Return the bytes of a POST with its correct length."""
    content = body.encode() if isinstance(body, str) else body
    return request("POST", path, f"Content-Length: {len(content)}", *headers, body=content)


def message(action: str, **meta: Any) -> str:
    return json.dumps({"action": action, "meta": meta})


def multipart(*parts: tuple[str, bytes], boundary: str = "limit") -> bytes:
    """Return the bytes of a multipart form with the *parts* in their order."""
    content = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in parts
    )
    return content + f"--{boundary}--\r\n".encode()


MULTIPART = "Content-Type: multipart/form-data; boundary=limit"


TOKEN = "token-of-the-door-0123456789"


class GuardedPort(int):
    """A port where a server speaks TLS that *context* trusts, and accepts clients with `TOKEN`."""

    context: ssl.SSLContext


@dataclass(frozen=True)
class Transport:
    """Plain HTTP, or TLS with a token: *options* of `ServerOptions`, and the equivalent *flags* of a process."""

    options: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    context: ssl.SSLContext | None = None

    def port(self, number: int) -> int:
        """Return the port *number* as `connected` and `client` take it."""
        if self.context is None:
            return number
        port = GuardedPort(number)
        port.context = self.context
        return port


transports = [Transport()]
"""The last item is the transport of new servers. The fixture ``transport`` changes it."""


class TlsConnection:
    """A TLS connection that one side can close alone, as in TCP: after the end of a request, the answer follows.

    `ssl.SSLSocket` knows no such thing. Requests of `request` get the token on their way.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._repeated(self._tls.do_handshake)

    def _repeated(self, step: Callable[[], T]) -> T:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._flush()
                data = self._socket.recv(65536)
                if data:
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            finally:
                self._flush()

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._socket.sendall(data)

    def sendall(self, data: bytes) -> None:
        token = f"Authorization: Bearer {TOKEN}\r\n".encode()
        data = data.replace(b"\r\nHost: localhost\r\n", b"\r\nHost: localhost\r\n" + token)
        for start in range(0, len(data), 65536):
            self._tls.write(data[start : start + 65536])
            self._flush()

    def recv(self, size: int) -> bytes:
        try:
            return self._repeated(lambda: self._tls.read(size))
        except ssl.SSLZeroReturnError:
            return b""

    def shutdown(self, _: int) -> None:
        """Send the end of the data to the server."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()

    def setsockopt(self, *option: Any) -> None:
        self._socket.setsockopt(*option)

    def settimeout(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def connected(port: int, timeout: float = 30) -> Any:
    """Return a connection to *port* of this machine, by its transport: a socket, or an object like one."""
    sock = socket.create_connection(("127.0.0.1", int(port)), timeout=timeout)
    if not isinstance(port, GuardedPort):
        return sock
    try:
        return TlsConnection(sock, port.context)
    except BaseException:
        sock.close()
        raise


class _GuardedClient(http.client.HTTPSConnection):
    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        super().putrequest(*args, **kwargs)
        self.putheader("Authorization", f"Bearer {TOKEN}")


def client(port: int, timeout: float = 30) -> http.client.HTTPConnection:
    """Return a client of *port* of this machine that uses its transport."""
    if isinstance(port, GuardedPort):
        return _GuardedClient("127.0.0.1", int(port), timeout=timeout, context=port.context)
    return http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)


def exchange(port: int, data: bytes) -> bytes:
    """Send *data*, as much as the server takes, and no more; return all that comes until the server closes."""
    with connected(port) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
            try:
                connection.shutdown(socket.SHUT_WR)
            except OSError as e:
                if e.errno != errno.ENOTCONN:  # the server has reset it already: to read from it says so
                    raise
        return b"".join(iter(lambda: connection.recv(65536), b""))


def answered(port: int, action: str, **meta: Any) -> tuple[int, dict[str, Any]]:
    """Send one message, by a client that waits for its reply; return the status and the reply."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=90)) as connection:
        connection.request("POST", "/api/v1/cmd", message(action, **meta))
        found = connection.getresponse()
        return found.status, json.loads(found.read())


def answers(data: bytes, *, to_head: bool = False) -> list[Answer]:
    """Split *data* into answers by their headers. No byte may be left over."""
    found = []
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        assert separator, head
        line, *fields = head.decode("latin-1").split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", line)
        assert match, line
        headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in fields)}
        size = 0 if to_head or match[1] == "100" else int(headers["content-length"])
        assert len(data) >= size
        found.append(Answer(int(match[1]), headers, data[:size]))
        data = data[size:]
    return found


def answer(port: int, data: bytes) -> Answer:
    """Send one request and return the only response."""
    found = answers(exchange(port, data))
    assert len(found) == 1
    return found[0]


@dataclass(frozen=True)
class Served:
    """``pfstorage --server`` as the child *process*, which has printed its *port* on stderr."""

    port: int
    process: subprocess.Popen[str]
    _said: list[bytes] = field(default_factory=list)

    def wait_for_output(self, text: str) -> None:
        """Wait until the later output on stderr contains *text*."""
        assert self.process.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stderr, selectors.EVENT_READ)
            while text.encode() not in b"".join(self._said):
                assert selector.select(60), f"the server does not print: {text}"
                data = os.read(self.process.stderr.fileno(), 65536)
                assert data, f"the server ended and did not print: {text}"
                self._said.append(data)

    def ends(self) -> tuple[int, str]:
        """Wait for the end. Return the exit status and the later output on stderr."""
        rest = self.process.communicate(timeout=60)[1]
        return self.process.returncode, b"".join(self._said).decode() + rest


@contextlib.contextmanager
def server_process(
    directory: Path, *flags: str, program: tuple[str, ...] = ("-m", "pfstorage"), **environ: str
) -> Iterator[Served]:
    """Run a server in *directory*, on a free port, and kill it at the end of the block if it still runs."""
    given = ("--server", "--ipSelf", "127.0.0.1", "--portSelf", "0", *transports[-1].flags, *flags)
    process = subprocess.Popen(
        [sys.executable, *program, *given],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    with process:
        try:
            yield Served(_port_of(process), process)
        finally:
            process.kill()


_ANNOUNCED = re.compile(rb" serves .* at https?://127\.0\.0\.1:(\d+)/api/v1/cmd")


def _port_of(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        assert selector.select(60), "the server does not start"
    said = b""
    # read only this line, since `communicate` would not return the rest; lines about jobs may precede it
    while byte := os.read(process.stderr.fileno(), 1):
        said += byte
        if byte == b"\n" and (match := _ANNOUNCED.search(said)):
            return transports[-1].port(int(match[1]))
    raise AssertionError(said.decode())


def send(
    server: ThreadedHTTPServer, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    ) as client:
        client.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = client.getresponse()
        return answer.status, dict(answer.headers), answer.read()


def form_of(key: str, content: bytes, kind: str | None) -> bytes:
    said = f"Content-Type: {kind}\r\n" if kind is not None else ""
    text = json.dumps({"action": "objPut", "meta": {"toObject": key}})
    return (
        f'--limit\r\nContent-Disposition: form-data; name="d_msg"\r\n\r\n{text}\r\n'
        f'--limit\r\nContent-Disposition: form-data; name="local"; filename="f"\r\n{said}\r\n'
    ).encode() + content + b"\r\n--limit--\r\n"  # fmt: skip
