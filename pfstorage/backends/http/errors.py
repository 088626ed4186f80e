"""The failures of a request: an outage, which may pass; a mistake in the settings, which does not; a refusal."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping

from pfstorage.backends.http.pace import TooSlowError
from pfstorage.runtime.sockets import TIMEOUT_ERRORS
from pfstorage.runtime.unexpected import NO_DESCRIPTORS, is_out_of_descriptors


class ConnectionBroken(Exception):
    """There was no answer: *reason* in few words.

    *connecting* if there was no connection at all, *silent* if there is one, over which nothing comes, or too little.
    """

    def __init__(self, reason: str, *, connecting: bool = False, silent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.connecting = connecting
        self.silent = silent


class Mistake(ConnectionBroken):
    """A further try cannot help: *reason* names the setting that is wrong.

    If not *is_setting*, only this request is wrong.
    """

    def __init__(self, reason: str, *, is_setting: bool = True) -> None:
        super().__init__(reason, connecting=True)
        self.is_setting = is_setting


class Refusal(Exception):
    """The server refused a request with *status*.

    *words* is the text of the body. *method* and *path*, with its query, are those of the request.
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
    """Turn the failures of a connection within a ``with`` block into `ConnectionBroken`.

    *connecting*: the block opens the connection. *by_proxy*: it opens it through a proxy.
    """

    def __init__(self, *, connecting: bool = False, by_proxy: bool = False) -> None:
        self._connecting = connecting
        self._by_proxy = by_proxy

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, (OSError, http.client.HTTPException, ValueError)):
            raise self._meaning(error) from error

    def _meaning(self, error: Exception) -> ConnectionBroken:
        connecting = self._connecting
        if is_out_of_descriptors(error):  # as with silence, fewer requests at once help
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
_ALERT = "\x15\x03"
"""How an alert of TLS begins (RFC 8446, 5.1)."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "PACKET_LENGTH", "RECORD_LAYER")
_DAMAGE = ("BAD_RECORD_MAC", "DECRYPT", "INTERNAL_ERROR", "EOF")
"""OpenSSL's reasons for an answer that is not TLS, and for a bad line or a server in trouble."""

_ISSUER = (2, *range(18, 22), 27)
_HOSTNAME = range(62, 65)
_DATES = range(9, 15)
_STRICT = range(80, 94)
"""Reasons to refuse a certificate, by their numbers in OpenSSL's ``x509_vfy.h``."""


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
            "Python 3.13 and later verify strictly (VERIFY_X509_STRICT): its issuer must issue it anew with the missing"
            " part, or --insecure turns all verification off"
        )
    if code in _ISSUER:
        return "give the certificate of its issuer by --caCert FILE, OS_CACERT or SSL_CERT_FILE"
    return "its issuer must issue one that can be trusted, or --insecure turns all verification off"


CONNECTING = Broken(connecting=True)
CONNECTING_TO_PROXY = Broken(connecting=True, by_proxy=True)
TALKING = Broken()
