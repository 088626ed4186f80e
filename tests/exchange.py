"""Bytes to an HTTP server and back, and a server that is a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HELLO: dict[str, Any] = {"action": "hello", "meta": {"askAbout": "echoBack", "echoBack": "Hi there!"}}


@dataclass(frozen=True)
class Answer:
    """One HTTP response, as it stood on the wire."""

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
    """Return the bytes of a POST whose length is told, rightly."""
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


def exchange(port: int, data: bytes) -> bytes:
    """Send *data*, as much as the server takes, and no more; return all that comes until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def answers(data: bytes, *, to_head: bool = False) -> list[Answer]:
    """Take *data* apart by what the headers say; no byte may be left over."""
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
    """``pfstorage --server`` as the child *process*; it has told its *port* on stderr."""

    port: int
    process: subprocess.Popen[str]

    def ends(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and what else was said on stderr."""
        said = self.process.communicate(timeout=60)[1]
        return self.process.returncode, said


@contextlib.contextmanager
def server_process(directory: Path, *flags: str) -> Iterator[Served]:
    """Run a server in *directory*, on a free port; it is ended with the block, if it did not end itself."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pfstorage", "--server", "--ipSelf", "127.0.0.1", "--portSelf", "0", *flags],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
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


def _port_of(process: subprocess.Popen[str]) -> int:
    assert process.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        assert selector.select(60), "the server does not start"
    line = process.stderr.readline()
    match = re.search(r" serves .* at http://127\.0\.0\.1:(\d+)/api/v1/cmd", line)
    assert match, line + process.communicate(timeout=60)[1]
    return int(match[1])
