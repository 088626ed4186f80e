"""Errors of HTTP requests: a temporary outage, a mistake in the settings, a refusal by the server."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping

from pfstorage.backends.http.pace import TooSlowError
from pfstorage.runtime.sockets import TIMEOUT_ERRORS
from pfstorage.runtime.unexpected import NO_DESCRIPTORS, is_out_of_descriptors


class ConnectionBroken(Exception):
    """A request got no complete answer, for *reason*.

    *connecting* means that no connection was opened. *silent* means that the server sent nothing, or too little.
    """

    def __init__(self, reason: str, *, connecting: bool = False, silent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.connecting = connecting
        self.silent = silent


class Mistake(ConnectionBroken):
    """No retry can help, since a setting is wrong. *reason* names it.

    Without *is_setting*, only this request is wrong.
    """

    def __init__(self, reason: str, *, is_setting: bool = True) -> None:
        super().__init__(reason, connecting=True)
        self.is_setting = is_setting


class Refusal(Exception):
    """The server refused a request with *status*.

    *words* is the text of the body. *method* and *path*, which includes the query, describe the request.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        headers: Mapping[str, str] | None = None,
        *,
        words: str = "",
        method: str = "",
        path: str = "",
    ) -> None:
        super().__init__(f"{status} {reason}")
        self.words = words
        self.status = status
        self.reason = reason
        self.headers = headers or {}
        self.method = method
        self.path = path


PROXY = "its proxy does not (see --httpProxy, or http_proxy, https_proxy, all_proxy and no_proxy)"


class Broken:
    """A context manager that converts the errors of a connection in its block to `ConnectionBroken`.

    *connecting* means that the block opens the connection, *by_proxy* that it does so through a proxy.
    """

    def __init__(self, *, connecting: bool = False, by_proxy: bool = False) -> None:
        self._connecting = connecting
        self._by_proxy = by_proxy

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, (OSError, http.client.HTTPException, ValueError)):
            raise self._converted(error) from error

    def _converted(self, error: Exception) -> ConnectionBroken:
        connecting = self._connecting
        if is_out_of_descriptors(error):  # fewer requests at a time help, as with a silent store
            return ConnectionBroken(NO_DESCRIPTORS, silent=True)
        if isinstance(error, ssl.SSLError) and not isinstance(error, TimeoutError):
            return _tls_failure(error, connecting)
        if self._by_proxy:
            return ConnectionBroken(PROXY, connecting=True)
        if isinstance(error, http.client.BadStatusLine) and str(error).startswith(_ALERT):
            return Mistake(SPEAKS_TLS)
        if isinstance(error, ValueError) and connecting:
            return Mistake("the host name is not valid: see --swiftAuthUrl, SWIFT_AUTH_URL")
        return _outage(error, connecting)


def _outage(error: Exception, connecting: bool) -> ConnectionBroken:
    if isinstance(error, socket.gaierror):
        return ConnectionBroken("its name is not known", connecting=True)
    if isinstance(error, TooSlowError):
        return ConnectionBroken(str(error), connecting=connecting, silent=not connecting)
    if isinstance(error, TIMEOUT_ERRORS):
        reason = "no connection in time" if connecting else "it fell silent"
        return ConnectionBroken(reason, connecting=connecting, silent=not connecting)
    if isinstance(error, ConnectionRefusedError):
        return ConnectionBroken("nothing listens there", connecting=connecting)
    return ConnectionBroken(f"the connection broke ({type(error).__name__})", connecting=connecting)


SPEAKS_TLS = "the port speaks TLS: use an address with https://"
# The first bytes of a TLS alert (RFC 8446, 5.1).
_ALERT = "\x15\x03"
# Reasons of OpenSSL for an answer that is not TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH", "RECORD_LAYER")
# Reasons of OpenSSL for a damaged line or a server with problems.
_DAMAGE = ("BAD_RECORD_MAC", "DECRYPT", "INTERNAL_ERROR", "EOF")

# Reasons to refuse a certificate, by their numbers in ``x509_vfy.h`` of OpenSSL.
_ISSUER = (2, *range(18, 22), 27)
_HOSTNAME = range(62, 65)
_DATES = range(9, 15)
_STRICT = range(80, 94)


def _tls_failure(error: ssl.SSLError, connecting: bool) -> ConnectionBroken:
    if isinstance(error, ssl.SSLCertVerificationError):
        told = f"certificate verify failed: {error.verify_message.rstrip('.')} (SSLCertVerificationError)"
        return Mistake(f"{told}; {_remedy(error.verify_code)}")
    reason = error.reason or str(error)
    is_outage = isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError))
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return Mistake(f"the store asks for a client certificate, which pfstorage cannot send ({reason})")
    if is_outage or not connecting or any(each in reason for each in _DAMAGE):
        return ConnectionBroken(f"the connection broke ({reason})", connecting=connecting)
    if any(each in reason for each in _NO_TLS):
        return Mistake(f"the port does not speak TLS ({reason}): use http://, or the port for TLS")
    return Mistake(f"the TLS handshake failed ({reason})")


def _remedy(code: int) -> str:
    if code in _HOSTNAME:
        return "use a name that the certificate contains: see --swiftAuthUrl, OS_STORAGE_URL"
    if code in _DATES:
        return "the store needs a new certificate, or a clock is wrong"
    if code in _STRICT:
        return (
            "Python 3.13 and later verify strictly (VERIFY_X509_STRICT): its issuer must issue a new one with the"
            " missing part, or --insecure turns all verification off"
        )
    if code in _ISSUER:
        return "give the certificate of its issuer by --caCert FILE, OS_CACERT or SSL_CERT_FILE"
    return "its issuer must issue one that can be trusted, or --insecure turns all verification off"


CONNECTING = Broken(connecting=True)
CONNECTING_TO_PROXY = Broken(connecting=True, by_proxy=True)
TALKING = Broken()
