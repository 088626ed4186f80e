"""``--remote``: a message to a running pfstorage server, through the pfurl library.

pfurl prints to stdout, makes a directory ``tmp`` in the home, waits without end for
a server that is silent, and answers nothing where nothing listens. All of that
ends here.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from pfstorage.console import import_tidily
from pfstorage.errors import PfstorageError, RemoteError
from pfstorage.message import Message, Reply

CONNECT_SECONDS = 5
SILENCE_SECONDS = 3600
"""An objPull answers when it is done, so a server may well be silent for long."""


def send(address: str, message: Message, token: str = "") -> Reply:
    """Return what the server at *address*, ``HOST:PORT`` or a URL, replies to *message*.

    Raise `RemoteError` if nothing there answers, or what answers is no pfstorage.
    """
    url = address if address.startswith(("http://", "https://")) else f"http://{address}"
    if url.count("/") == 2:
        url += "/api/v1/cmd"
    text = json.dumps({"action": message.action, "meta": message.meta})
    with _quiet():
        client = _client_class()(msg=text, http=url, verb="POST", authToken=token, b_quiet=True, b_raw=True)
        answer = client.push_core(client.d_msg)
    if client.failure:
        raise RemoteError(f"no pfstorage server answers at {address}: {client.failure}", address=address)
    if not isinstance(answer, dict) or "status" not in answer:
        raise RemoteError(f"what answers at {address} is no pfstorage server", address=address)
    error = answer.get("error")
    known = PfstorageError(str(answer.get("msg", ""))) if isinstance(error, dict) else None
    return Reply(answer, known)


def _client_class() -> Any:
    import pycurl

    class Client(import_tidily("pfurl").Pfurl):  # type: ignore[misc]
        """A `Pfurl` that doesn't wait for ever, and remembers why there was no answer."""

        failure = ""

        def curl_init(self, **kwargs: Any) -> None:
            super().curl_init(**kwargs)
            self.c.setopt(pycurl.CONNECTTIMEOUT, CONNECT_SECONDS)
            self.c.setopt(pycurl.LOW_SPEED_LIMIT, 1)
            self.c.setopt(pycurl.LOW_SPEED_TIME, SILENCE_SECONDS)

        def curl_doCall(self) -> dict[str, Any]:
            answer: dict[str, Any] = super().curl_doCall()
            self.failure = str(answer.get("exception", ""))
            return answer

    return Client


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Send to stderr what pfurl prints, and let it have its directory in a place that goes away."""
    home = os.environ.get("HOME")
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        os.environ["HOME"] = scratch
        try:
            yield
        finally:
            if home is None:
                del os.environ["HOME"]
            else:
                os.environ["HOME"] = home
