"""Certificate authorities, and a store behind TLS."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pfstorage.devswift import DevSwift
from tests.support.stores import swift_options

NOW = datetime.datetime.now(datetime.timezone.utc)


DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates, in *directory*; *cert* is the file of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hospital CA")])
        made = self._signed(self._name, self._key.public_key(), [(x509.BasicConstraints(True, 0), True)])
        self.cert = str(directory / "ca.pem")
        Path(self.cert).write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def _signed(self, subject: x509.Name, key: Any, extensions: list[Any], until: Any = NOW + DAY) -> Any:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(NOW - 3 * DAY).not_valid_after(until)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._key, hashes.SHA256())

    def context(
        self,
        host: str = "127.0.0.1",
        until: Any = NOW + DAY,
        *,
        is_strict: bool = True,
        key: Any = None,
        purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    ) -> ssl.SSLContext:
        """Return what a server for *host* needs; one that is not *is_strict* lacks what Python 3.13 asks for."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        name: x509.GeneralName = x509.DNSName(host)
        with contextlib.suppress(ValueError):
            name = x509.IPAddress(ipaddress.ip_address(host))
        extensions: list[Any] = [
            (x509.SubjectAlternativeName([name]), False),
            (x509.ExtendedKeyUsage([purpose]), False),
        ]
        if is_strict:
            issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
            extensions.append((issuer, False))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store")])
        made = self._signed(subject, key.public_key(), extensions, until)
        path = self._directory / f"{x509.random_serial_number()}.pem"
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # it may be a weak one
        context.load_cert_chain(path)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def no_certificates_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


class TlsFront:
    """Passes on what comes by TLS to *port*, as a load balancer does; *connections* and *handshakes* are counted."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.connections = self.handshakes = 0
        self._target, self._context = port, context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                sock = self._listener.accept()[0]
                self.connections += 1
                self._threads.append(threading.Thread(target=self._serve, args=(sock,)))
                self._threads[-1].start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(20)
        with (
            contextlib.suppress(OSError),
            sock,
            socket.create_connection(("127.0.0.1", self._target)) as store,
            self._context.wrap_socket(sock, server_side=True) as client,
        ):
            self.handshakes += 1
            back = threading.Thread(target=self._pump, args=(store, client))
            back.start()
            self._pump(client, store)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


Fronted = Callable[..., tuple[TlsFront, dict[str, Any]]]


@pytest.fixture
def fronted(swift: DevSwift) -> Iterator[Fronted]:
    """The real Swift behind TLS, and options that lead to it."""
    with contextlib.ExitStack() as stack:

        def make(context: ssl.SSLContext, **more: Any) -> tuple[TlsFront, dict[str, Any]]:
            front = TlsFront(swift.port, context)
            stack.callback(front.close)
            address = f"https://127.0.0.1:{front.port}"
            override = {"object_storage_url": f"{address}/v1/AUTH_chris/"}
            options = swift_options(swift, retries=3, os_options=override, **more)
            return front, {**options, "auth_url": f"{address}/auth/v1.0"}

        yield make
