"""A server whose treatment of each connection is up to the test."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pfstorage.backends.http.connection import HttpConnection
from pfstorage.backends.http.dialing import NetworkRoute


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or short messages wait for each other
        self.sock = sock
        self.reader = sock.makefile("rb")

    def head(self) -> bytes:
        """Return the next request up to its body; b"" is the end of the connection."""
        head = b""
        while not head.endswith(b"\r\n\r\n") and (line := self.reader.readline()):
            head += line
        return head

    def body(self, size: int) -> bytes:
        return self.reader.read(size)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def end(self, abruptly: bool = False) -> None:
        """End the connection in good order, or *abruptly* (RST)."""
        if abruptly:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            with contextlib.suppress(OSError):  # the other side was quicker
                self.sock.shutdown(socket.SHUT_RDWR)
        self.reader.close()
        self.sock.close()


class Listener:
    """Accepts connections on the loopback interface. *serve* handles each in a separate thread.

    With *context*, clients speak TLS. *connections* and *handshakes* are counted. A client that is
    silent for *timeout* seconds is an `OSError` for *serve*.
    """

    def __init__(
        self,
        serve: Callable[[socket.socket], None],
        context: ssl.SSLContext | None = None,
        timeout: float | None = None,
    ) -> None:
        self.connections = self.handshakes = 0
        self.closing = threading.Event()
        self._serve_one = serve
        self._context = context
        self._timeout = timeout
        self._lock = threading.Lock()
        self._held: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                sock = self._listener.accept()[0]
                self.connections += 1
                self._start(partial(self._one, sock))

    def _one(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(self._timeout)
            if self._context:
                sock = self._context.wrap_socket(sock, server_side=True)
                self.handshakes += 1
        except OSError:
            sock.close()
            return
        with self.holding(sock), contextlib.suppress(OSError):
            self._serve_one(sock)
        sock.close()

    @contextlib.contextmanager
    def holding(self, *sockets: socket.socket) -> Iterator[None]:
        """Let `close` end *sockets* during the block."""
        with self._lock:
            self._held |= set(sockets)
        try:
            yield
        finally:
            with self._lock:
                self._held -= set(sockets)

    def close(self) -> None:
        """End all connections, and return when all threads have ended."""
        self.closing.set()
        with self._lock:
            for each in (self._listener, *self._held):
                with contextlib.suppress(OSError):  # it has ended by itself
                    each.shutdown(socket.SHUT_RDWR)  # close would not wake a thread that reads from it
        for thread in self._threads:
            thread.join()
        self._listener.close()


Serve = Callable[[Peer], None]
Serving = Callable[..., "Server"]
Connecting = Callable[..., HttpConnection]


class Server(Listener):
    """Serves each connection as *serve* says. *heads* are the requests that a test noted."""

    def __init__(self, serve: Serve, context: ssl.SSLContext | None = None) -> None:
        self.heads: list[bytes] = []
        self.received = 0
        self._serve = serve
        super().__init__(self._talk, context, timeout=30)

    def _talk(self, sock: socket.socket) -> None:
        peer = Peer(sock)
        with contextlib.suppress(OSError):
            self._serve(peer)
        peer.end()


@pytest.fixture
def serve_peers() -> Iterator[Serving]:
    with contextlib.ExitStack() as stack:

        def serve(how: Serve, context: ssl.SSLContext | None = None) -> Server:
            server = Server(how, context)
            stack.callback(server.close)
            return server

        yield serve


@pytest.fixture
def connect() -> Iterator[Connecting]:
    """Make connections, which are closed before the servers."""
    with contextlib.ExitStack() as stack:

        def make(
            port: int,
            *,
            scheme: str = "http",
            proxy: str = "",
            timeout: float = 10.0,
            context: ssl.SSLContext | None = None,
        ) -> HttpConnection:
            route = NetworkRoute(f"{scheme}://127.0.0.1:{port}", proxy, 2.0, timeout, context)
            return stack.enter_context(contextlib.closing(HttpConnection(route)))

        yield make


@pytest.fixture(scope="module")
def peer_certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def tls(peer_certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(peer_certificate)
    return context


@pytest.fixture
def trusts(peer_certificate: Path) -> ssl.SSLContext:
    """Return the TLS context of a client that trusts the server."""
    return ssl.create_default_context(cafile=str(peer_certificate))
