"""Certificate authorities, and a store behind TLS."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import ssl
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
from tests.support.wire import Wire

NOW = datetime.datetime.now(datetime.timezone.utc)


DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates in *directory*. *cert* is the file with the certificate of the authority."""

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
        """Return the TLS context of a server for *host*. Python 3.13 accepts it only if it *is_strict*."""
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


Fronted = Callable[..., tuple[Wire, dict[str, Any]]]


@pytest.fixture
def fronted(swift: DevSwift) -> Iterator[Fronted]:
    """The real Swift behind TLS, and options that lead to it."""
    with contextlib.ExitStack() as stack:

        def make(context: ssl.SSLContext, **more: Any) -> tuple[Wire, dict[str, Any]]:
            front = Wire(swift.port, context)
            stack.callback(front.close)
            address = f"https://127.0.0.1:{front.port}"
            override = {"object_storage_url": f"{address}/v1/AUTH_chris/"}
            options = swift_options(swift, retries=3, os_options=override, **more)
            return front, {**options, "auth_url": f"{address}/auth/v1.0"}

        yield make
