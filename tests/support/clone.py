"""A stand-in for stores that implement a part of Swift."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from hashlib import md5
from typing import Any

import pytest


class Clone:
    """A store that implements a part of Swift and names no transactions.

    *status* is for paths that end so, *once* for one request each; *headers* go with all answers.
    """

    def __init__(self) -> None:
        self.status: dict[str, int] = {}
        self.once: dict[str, list[int]] = {}
        self.headers: dict[str, str] = {}
        self.body = b""
        self.location = ""
        self.asked: list[str] = []
        clone = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                clone.asked.append(f"{self.command} {self.path}")
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                found = [status for end, status in clone.status.items() if self.path.endswith(end)]
                if clone.once.get(clone.asked[-1]):
                    found = [clone.once[clone.asked[-1]].pop(0)]
                if "format=json" in self.path:
                    found = found or [204]  # no rows
                body = clone.body if found and found[0] != 204 else b""
                self.send_response(found[0] if found else 200)
                self.send_header("X-Storage-Url", f"http://{self.headers['Host']}/v1/a/")
                self.send_header("X-Auth-Token", "token")
                self.send_header("ETag", md5(content, usedforsecurity=False).hexdigest())
                if clone.location:
                    self.send_header("Location", clone.location)
                for name, value in clone.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_HEAD = do_DELETE = do_COPY = answer

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.options = {
            "type": "swift",
            "retries": 1,
            "auth_url": f"http://127.0.0.1:{self.server.server_port}/auth/v1.0",
        }


@pytest.fixture
def clone() -> Iterator[Clone]:
    made = Clone()
    with made.server:
        threading.Thread(target=made.server.serve_forever, daemon=True).start()
        yield made
        made.server.shutdown()
