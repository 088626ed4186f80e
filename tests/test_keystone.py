"""A login by Keystone (version 3), as the ``OS_*`` variables describe it, to a real Swift.

The Keystone is a stand-in that speaks the few words of its protocol that a login
needs, and hands out a token of the real Swift.
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import io
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from pfstorage import open_storage
from pfstorage.devswift import DevSwift
from pfstorage.errors import (
    MisconfiguredError,
    PfstorageError,
    StoppedError,
    UnauthenticatedError,
    UnavailableError,
)
from tests.conftest import swift_options


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
            """Keep quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keystone) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/v3"
        server.shutdown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what swiftclient passes to keystoneclient
@pytest.mark.parametrize("password", ["secret", "wrong-secret"])
def test_the_environment_of_openstack_logs_in(
    swift: DevSwift, keystone: str, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    named = {
        "OS_AUTH_URL": keystone,
        "OS_USERNAME": "me",
        "OS_PASSWORD": password,
        "OS_PROJECT_NAME": "research",
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
    }
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    container = swift_options(swift)["container_name"]
    with open_storage(type="swift", container_name=container) as storage:
        if password == "secret":
            storage.put("a", io.BytesIO(b"content"), 7)
            assert [row.key for row in storage.list()] == ["a"]
            return
        with pytest.raises(UnauthenticatedError, match="cannot log in") as caught:
            list(storage.list())
        assert urlsplit(keystone).netloc in str(caught.value)
        assert password not in f"{caught.value!r}{caught.value.facts}"


def test_a_storage_url_and_a_token_need_no_login(swift: DevSwift, monkeypatch: pytest.MonkeyPatch) -> None:
    storage_url, token = login_of(swift)
    monkeypatch.setenv("OS_STORAGE_URL", storage_url)
    monkeypatch.setenv("OS_AUTH_TOKEN", token)
    with open_storage(type="swift", container_name=swift_options(swift)["container_name"]) as storage:
        storage.put("a", io.BytesIO(b"content"), 7)
        assert storage.head("a").size == 7


def test_a_keystone_that_keeps_silent_is_given_up_at_once() -> None:
    heads: list[bytes] = []
    is_asked, is_over = threading.Event(), threading.Event()

    def keep_silent(listener: socket.socket) -> None:
        with listener.accept()[0] as peer:
            heads.append(peer.recv(65536))
            is_asked.set()
            is_over.wait(30)

    failed: list[Exception] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v3"
        options = {"auth_version": "3", "os_options": {"project_name": "p"}}
        server = threading.Thread(target=keep_silent, args=(listener,))
        server.start()
        with open_storage(type="swift", auth_url=url, **options) as storage:

            def ask() -> None:
                try:
                    storage.head("a")
                except PfstorageError as e:
                    failed.append(e)

            client = threading.Thread(target=ask)
            client.start()
            assert is_asked.wait(30)
            storage.give_up("the end")  # type: ignore[attr-defined]
            client.join(30)
            assert [type(e) for e in failed] == [StoppedError]
        is_over.set()
        server.join()
    assert heads[0].startswith(b"POST /v3/auth/tokens")


@pytest.mark.parametrize(
    ("status", "kind"), [(404, MisconfiguredError), (404, UnavailableError), (503, UnavailableError)]
)
def test_what_a_keystone_answers_is_about_the_login(status: int, kind: type[Exception]) -> None:
    class Keystone(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            if kind is MisconfiguredError:  # Keystone names its requests, an ingress before it does not
                self.send_header("X-Openstack-Request-Id", "req-1")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keystone) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        options = {"auth_version": "3", "os_options": {"project_name": "p"}, "retries": 1}
        told = pytest.raises(kind, match=rf"the login at {url} answered {status}")
        with open_storage(type="swift", auth_url=url, **options) as storage, told:
            storage.head("a")
        server.shutdown()
