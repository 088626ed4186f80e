"""``--remote``: a message to a running pfstorage server, through the pfurl library.

pfurl prints to stdout, makes a directory ``tmp`` in the home, waits without end for
a server that is silent, and answers nothing where nothing listens. All of that
ends here.
"""

from __future__ import annotations

import ast
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pfstorage import errors
from pfstorage.backends.http.routes import is_exempt, marked_certificates
from pfstorage.errors import PfstorageError, RemoteError
from pfstorage.logs.console import import_tidily
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.settings.redaction import without_password
from pfstorage.wire.message import Message
from pfstorage.wire.reply import Reply

CONNECT_SECONDS = 5
SILENCE_SECONDS = 3600
"""An objPull answers when it is done, so a server may well be silent for long."""


@dataclass(frozen=True)
class Way:
    """How a server is reached: by the URL of a *proxy*, or else as the environment says.

    *ca_cert* is a file of certificates to believe, instead of those of the system or of ``SSL_CERT_FILE``;
    *insecure* believes any.
    """

    proxy: str = ""
    ca_cert: str = ""
    insecure: bool = False


def send(
    address: str,
    message: Message,
    token: str = "",
    cancellation: CancellationToken | None = None,
    way: Way = Way(),
) -> Reply:
    """Return what the server at *address*, ``HOST:PORT`` or a URL, replies to *message*.

    Raise `RemoteError` if nothing there answers, or what answers is no pfstorage, and `StoppedError`
    about a second after *cancellation* is requested.
    """
    shown = without_password(address)
    cancellation = cancellation or CancellationToken()
    with _quiet() as scratch, cancellation.listening():
        client = _client_class()(verb="POST", authToken=token, b_quiet=True, b_raw=True)
        client.url, client.cancellation, client.way = _url(address), cancellation, way
        client.certificates = _certificates(way, scratch)
        answer = client.push_core({"action": message.action, "meta": message.meta, **message.other})
    if cancellation.is_cancelled:
        raise cancellation.error()
    if client.failure:
        failure = without_password(client.failure)  # curl quotes the URL of a proxy
        text = f"no pfstorage server answers at {shown}: {failure}{_hint(client.url, failure)}"
        raise RemoteError(text, address=shown)
    if not isinstance(answer, dict) or not isinstance(answer.get("status"), bool):
        raise RemoteError(f"what answers at {shown} is no pfstorage server", address=shown)
    return Reply(answer, _error_of(answer))


def _url(address: str) -> str:
    """
    >>> _url("localhost:4055"), _url("https://store.example/pfstorage")
    ('http://localhost:4055/api/v1/cmd', 'https://store.example/pfstorage')
    """
    url = address if address.startswith(("http://", "https://")) else f"http://{address}"
    return url if url.count("/") > 2 else url + "/api/v1/cmd"


def _is_exempt(url: str) -> bool:
    target = urlsplit(url)
    port = target.port or (443 if target.scheme == "https" else 80)
    no_proxy = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    return is_exempt(target.hostname or "", port, no_proxy)


def _certificates(way: Way, scratch: str) -> str:
    """Return the file of certificates to believe, "" for those of the system. Raise `RemoteError` if it can't be read.

    Where a byte order mark begins it, that is a copy in *scratch* without the mark.
    """
    path = way.ca_cert or os.environ.get("SSL_CERT_FILE", "")
    try:
        text = marked_certificates(path) if path else ""
    except (OSError, ValueError) as e:
        raise RemoteError(f"--caCert, SSL_CERT_FILE: {path!r} can't be read: {e}") from e
    if not text:
        return path
    copy = Path(scratch) / "certificates"
    copy.write_text(text)
    return str(copy)


def _hint(url: str, failure: str) -> str:
    """Return what may be done about *failure*, if that can be told."""
    if "trust anchors" in failure:
        return "; --caCert FILE or SSL_CERT_FILE=FILE names a file of certificates (PEM)"
    if "proxy" in failure:
        return "; see --httpProxy, or the variables http_proxy, https_proxy, all_proxy and no_proxy"
    if "SSL certificate" in failure:
        return "; --caCert FILE or SSL_CERT_FILE=FILE tells which certificates to believe"
    if url.startswith("http://") and ("reset" in failure or "Empty reply" in failure):
        return "; one that serves by TLS is asked by https://"
    return ""


def _error_of(answer: dict[str, Any]) -> PfstorageError | None:
    """Return the error that *answer* tells of, as the kind that it was at the server, if there is one."""
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
        """A `Pfurl` that doesn't wait for ever, and remembers why there was no answer."""

        url = failure = certificates = ""
        HTTPheaders: list[Any]
        cancellation = CancellationToken()
        way = Way()

        def curl_URL_resolveAndSet(self, *_: Any) -> str:
            """Go to the address as it was given: pfurl splits it at each colon, also of IPv6."""
            self.c.setopt(pycurl.URL, os.fsencode(self.url))
            return self.url

        def curl_init(self, **kwargs: Any) -> None:
            super().curl_init(**kwargs)
            self.c.setopt(pycurl.CONNECTTIMEOUT, CONNECT_SECONDS)
            self.c.setopt(pycurl.FOLLOWLOCATION, 0)  # the message is for the server that was named
            way = self.way
            if way.proxy or _is_exempt(self.url):  # of ports in no_proxy, curl knows nothing
                self.c.setopt(pycurl.PROXY, os.fsencode(way.proxy))
                self.c.setopt(pycurl.NOPROXY, "" if way.proxy else "*")
            if self.certificates:
                self.c.setopt(pycurl.CAINFO, os.fsencode(self.certificates))
            if way.insecure:
                self.c.setopt(pycurl.SSL_VERIFYPEER, 0)
                self.c.setopt(pycurl.SSL_VERIFYHOST, 0)
            self.c.setopt(pycurl.LOW_SPEED_LIMIT, 1)
            self.c.setopt(pycurl.LOW_SPEED_TIME, SILENCE_SECONDS)
            # curl asks this every second, also where nothing comes; a signal is handled then, and not before
            self.c.setopt(pycurl.NOPROGRESS, 0)
            self.c.setopt(pycurl.XFERINFOFUNCTION, lambda *_: self.cancellation.is_cancelled)

        def curl_doCall(self) -> dict[str, Any]:
            self.HTTPheaders = [
                os.fsencode(each) for each in self.HTTPheaders
            ]  # as bytes: pycurl takes no text but ASCII
            answer: dict[str, Any] = super().curl_doCall()
            self.failure = _words(str(answer.get("exception", "")))
            return answer

        def curl_responseProcess(self, d_curlResponse: dict[str, Any]) -> Any:
            """Return what came as it is: pfurl prints it, and breaks on what is no text."""
            return d_curlResponse["data"]

    return Client


def _words(failure: str) -> str:
    """Return what a failure of curl says, without the tuple and the number that pfurl shows it in.

    >>> _words("(7, 'Failed to connect to localhost')")
    'Failed to connect to localhost'
    """
    try:
        number, words = ast.literal_eval(failure)
    except (ValueError, SyntaxError, TypeError):
        return failure
    return str(words) or f"curl error {number}"


@contextlib.contextmanager
def _quiet() -> Iterator[str]:
    """Send to stderr what pfurl prints, and let it have its directory in a place that goes away, which is given."""
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
