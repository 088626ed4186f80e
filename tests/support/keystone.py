"""A stand-in for OpenStack Keystone that gives out tokens of the real Swift."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pfstorage.devswift import DevSwift


def login_of(swift: DevSwift) -> tuple[str, str]:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", swift.port)) as connection:
        connection.request("GET", "/auth/v1.0", headers={"X-Auth-User": swift.user, "X-Auth-Key": swift.key})
        headers = connection.getresponse().headers
    return headers["X-Storage-Url"], headers["X-Auth-Token"]


@pytest.fixture
def keystone(swift: DevSwift) -> Iterator[str]:
    storage_url, token = login_of(swift)

    class Keystone(http.server.BaseHTTPRequestHandler):
        def answer(self, status: int, content: Any, **headers: str) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Type": "application/json"}.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            links = [{"rel": "self", "href": f"http://{self.headers['Host']}/v3/"}]
            self.answer(200, {"version": {"id": "v3.14", "status": "stable", "links": links}})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["auth"]
            user = asked["identity"]["password"]["user"]
            if (user["name"], user["password"], asked["scope"]["project"]["name"]) != (
                "me",
                "secret",
                "research",
            ):
                self.answer(401, {"error": {"code": 401, "message": "no", "title": "Unauthorized"}})
                return
            endpoint = {
                "interface": "public",
                "region": "here",
                "region_id": "here",
                "id": "1",
                "url": storage_url,
            }
            catalog = [{"type": "object-store", "name": "swift", "id": "2", "endpoints": [endpoint]}]
            domain = {"id": "default", "name": "Default"}
            content = {
                "catalog": catalog,
                "methods": ["password"],
                "expires_at": "2099-01-01T00:00:00.000000Z",
                "issued_at": "2026-01-01T00:00:00.000000Z",
                "user": {"id": "3", "name": "me", "domain": domain},
                "project": {"id": "4", "name": "research", "domain": domain},
                "roles": [{"id": "5", "name": "member"}],
            }
            self.answer(201, {"token": content}, X_Subject_Token=token)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keystone) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v3"
        server.shutdown()
