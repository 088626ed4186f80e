"""Requests to a server whose operation is tested."""

from __future__ import annotations

import contextlib
import http.client

from pfstorage import ThreadedHTTPServer

# The path of messages.
CMD = "/api/v1/cmd"
# The flags of a store in the working directory.
STORE = ("--type", "filesystem", "--storeBase", "store")


def get(server: ThreadedHTTPServer, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    """Send a GET, and return the status, the headers and the text of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read().decode()


def metric(server: ThreadedHTTPServer, name: str) -> float:
    """Return a value of /metrics. *name* includes the labels."""
    lines = get(server, "/metrics")[2].splitlines()
    return next(float(line.removeprefix(f"{name} ")) for line in lines if line.startswith(f"{name} "))
