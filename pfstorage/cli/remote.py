"""Send a message to a running pfstorage server (``--remote``), through the library pfurl.

By itself, pfurl prints to stdout, creates a directory ``tmp`` in the home directory, waits forever for a silent server,
and reports no error if nothing listens. This module prevents all of that.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pfstorage import errors
from pfstorage.backends.http.routes import certificates_text, is_exempt
from pfstorage.errors import PfstorageError, RemoteError
from pfstorage.logs.console import import_tidily
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.settings.redaction import without_password
from pfstorage.settings.urls import server_url
from pfstorage.wire.message import Message
from pfstorage.wire.reply import Reply

CONNECT_SECONDS = 5
# A server answers an objPull at its end, so it may be silent for long.
SILENCE_SECONDS = 3600
# CURLE_PARTIAL_FILE, CURLE_GOT_NOTHING, CURLE_SEND_ERROR and CURLE_RECV_ERROR of libcurl-errors(3)
_BROKEN = {18, 52, 55, 56}


@dataclass(frozen=True)
class RemoteOptions:
    """The way to a server. *proxy* is the URL of a proxy; without it, the variables of the environment apply.

    *ca_cert* is a file of certificates to trust, instead of those of the system or of ``SSL_CERT_FILE``. *insecure*
    trusts every certificate.
    """

    proxy: str = ""
    ca_cert: str = ""
    insecure: bool = False


def send(
    address: str,
    message: Message,
    token: str = "",
    cancellation: CancellationToken | None = None,
    options: RemoteOptions = RemoteOptions(),
) -> Reply:
    """Send *message* to the server at *address*, which `server_url` accepts. Return its reply.

    Raise `RemoteError` if no server answers there, or one that is not a pfstorage server, or if the connection breaks
    before the whole reply. Raise `StoppedError` about
    a second after a *cancellation*.
    """
    shown = without_password(address)
    cancellation = cancellation or CancellationToken()
    with _quiet() as scratch, cancellation.listening():
        client = _client_class()(verb="POST", authToken=token, b_quiet=True, b_raw=True)
        client.url, client.cancellation, client.options = server_url(address), cancellation, options
        client.certificates = _certificates(options, scratch)
        answer = client.push_core({"action": message.action, "meta": message.meta, **message.other})
    if cancellation.is_cancelled:
        raise cancellation.error()
    if client.failure:
        failure = without_password(client.failure)  # curl quotes the URL of the proxy
        text = f"no pfstorage server answers at {shown}: {failure}"
        if client.is_broken:
            text = (
                f"the connection to the server at {shown} broke before its reply: {failure}; the server may have done"
                " all or a part of the work: look at its log, and send the message again"
            )
        raise RemoteError(text + _hint(client.url, failure), address=shown)
    if not isinstance(answer, dict) or not isinstance(answer.get("status"), bool):
        raise RemoteError(f"the server at {shown} is not a pfstorage server", address=shown)
    return Reply(answer, _error_of(answer))


def _is_exempt(url: str) -> bool:
    target = urlsplit(url)
    port = target.port or (443 if target.scheme == "https" else 80)
    no_proxy = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    return is_exempt(target.hostname or "", port, no_proxy)


def _certificates(options: RemoteOptions, scratch: str) -> str:
    """Return the file of certificates to trust, "" for those of the system. Raise `RemoteError` if it can't be read.

    If OpenSSL can't read the file itself, return a copy in *scratch*, see `certificates_text`.
    """
    path = options.ca_cert or os.environ.get("SSL_CERT_FILE", "")
    try:
        text = certificates_text(path) if path else ""
    except (OSError, ValueError) as e:
        raise RemoteError(f"--caCert, SSL_CERT_FILE: {path!r} can't be read: {e}") from e
    if not text:
        return path
    copy = Path(scratch) / "certificates"
    copy.write_text(text)
    return str(copy)


def _hint(url: str, failure: str) -> str:
    """Return a hint how to fix *failure*, or ""."""
    if "trust anchors" in failure:
        return "; --caCert FILE or SSL_CERT_FILE=FILE names a file of certificates (PEM)"
    if "proxy" in failure:
        return "; see --httpProxy, or the variables http_proxy, https_proxy, all_proxy and no_proxy"
    if "SSL certificate" in failure:
        return "; trust its certificate with --caCert FILE or SSL_CERT_FILE=FILE"
    if url.startswith("http://") and ("reset" in failure or "Empty reply" in failure):
        return "; if the server uses TLS, write https://"
    return ""


def _error_of(answer: dict[str, Any]) -> PfstorageError | None:
    """Return the error in *answer* as an exception of the class that it had at the server, or None."""
    facts = answer.get("error")
    if not isinstance(facts, dict):
        return None
    kind = getattr(errors, str(facts.get("type")), None)
    if not (isinstance(kind, type) and issubclass(kind, PfstorageError)):
        kind = PfstorageError
    return kind(str(answer.get("msg", "")))


def _client_class() -> Any:
    import pycurl

    class Client(import_tidily("pfurl").Pfurl):  # type: ignore[misc]
        """A `Pfurl` with time limits, which keeps the reason of a *failure*.

        *is_broken* means that a connection to the server was made, and broke.
        """

        url = failure = certificates = ""
        is_broken = False
        HTTPheaders: list[Any]
        cancellation = CancellationToken()
        options = RemoteOptions()

        def curl_URL_resolveAndSet(self, *_: Any) -> str:
            """Use the address as given: pfurl splits it at each colon, also within an IPv6 address."""
            self.c.setopt(pycurl.URL, os.fsencode(self.url))
            return self.url

        def curl_init(self, **kwargs: Any) -> None:
            super().curl_init(**kwargs)
            self.c.setopt(pycurl.CONNECTTIMEOUT, CONNECT_SECONDS)
            self.c.setopt(pycurl.FOLLOWLOCATION, 0)  # another server must not get the message
            options = self.options
            if options.proxy or _is_exempt(self.url):  # curl ignores ports in no_proxy
                self.c.setopt(pycurl.PROXY, os.fsencode(options.proxy))
                self.c.setopt(pycurl.NOPROXY, "" if options.proxy else "*")
            if self.certificates:
                self.c.setopt(pycurl.CAINFO, os.fsencode(self.certificates))
            if options.insecure:
                self.c.setopt(pycurl.SSL_VERIFYPEER, 0)
                self.c.setopt(pycurl.SSL_VERIFYHOST, 0)
            self.c.setopt(pycurl.LOW_SPEED_LIMIT, 1)
            self.c.setopt(pycurl.LOW_SPEED_TIME, SILENCE_SECONDS)
            # curl calls this every second, also while it waits; Python handles a signal then, and not earlier
            self.c.setopt(pycurl.NOPROGRESS, 0)
            self.c.setopt(pycurl.XFERINFOFUNCTION, lambda *_: self.cancellation.is_cancelled)

        def curl_doCall(self) -> dict[str, Any]:
            self.HTTPheaders = [
                os.fsencode(each) for each in self.HTTPheaders
            ]  # as bytes: pycurl accepts only ASCII texts
            answer: dict[str, Any] = super().curl_doCall()
            number, self.failure = _curl_failure(str(answer.get("exception", "")))
            # a proxy that refuses to connect is a CURLE_RECV_ERROR, too
            self.is_broken = number in _BROKEN and not re.search("proxy|CONNECT", self.failure)
            return answer

        def curl_responseProcess(self, d_curlResponse: dict[str, Any]) -> Any:
            """Return the response unchanged: pfurl prints it, and fails if it is not a text."""
            return d_curlResponse["data"]

    return Client


def _curl_failure(failure: str) -> tuple[int, str]:
    """Return the number and the message of a failure of curl, from the text of pfurl. The number is 0 without one.

    >>> _curl_failure("(7, 'Failed to connect to localhost')")
    (7, 'Failed to connect to localhost')
    """
    try:
        number, words = ast.literal_eval(failure)
    except (ValueError, SyntaxError, TypeError):
        return 0, failure
    return int(number), str(words) or f"curl error {number}"


@contextlib.contextmanager
def _quiet() -> Iterator[str]:
    """Redirect the output of pfurl to stderr, and its directory to a temporary one. Yield the temporary directory."""
    home = os.environ.get("HOME")
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        os.environ["HOME"] = scratch
        try:
            yield scratch
        finally:
            if home is None:
                del os.environ["HOME"]
            else:
                os.environ["HOME"] = home
