"""A login by Keystone (version 3), as the ``OS_*`` variables describe it, to a real Swift.

The Keystone is a stand-in that speaks the few words of its protocol that a login
needs, and hands out a token of the real Swift.
"""

from __future__ import annotations

import http.client
import http.server
import io
import json
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

import pytest

from pfstorage import open_storage
from pfstorage.backends.swift.session import SwiftSession
from pfstorage.devswift import DevSwift
from pfstorage.errors import (
    MisconfiguredError,
    PfstorageError,
    StoppedError,
    UnauthenticatedError,
    UnavailableError,
)
from pfstorage.settings.model import Settings, SwiftSettings
from tests.conftest import swift_options
from tests.support.keystone import login_of


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning"
)  # about an argument that swiftclient passes to keystoneclient
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
            storage.abort("the end")  # type: ignore[attr-defined]
            client.join(30)
            assert [type(e) for e in failed] == [StoppedError]
        is_over.set()
        server.join()
    assert heads[0].startswith(b"POST /v3/auth/tokens")


@pytest.mark.parametrize(
    ("status", "kind"), [(404, MisconfiguredError), (404, UnavailableError), (503, UnavailableError)]
)
def test_errors_of_a_keystone_are_about_the_login(status: int, kind: type[Exception]) -> None:
    class Keystone(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            if kind is MisconfiguredError:  # Keystone names its requests, an ingress before it does not
                self.send_header("X-Openstack-Request-Id", "req-1")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keystone) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        options = {"auth_version": "3", "os_options": {"project_name": "p"}, "retries": 1}
        refused = pytest.raises(kind, match=rf"the login at {url} answered {status}")
        with open_storage(type="swift", auth_url=url, **options) as storage, refused:
            storage.head("a")
        server.shutdown()


@pytest.mark.parametrize("is_renewal", [False, True])
@pytest.mark.parametrize(
    "junk", [b"<html>", b"[]", b'{"token": null}', b'{"token": {"catalog": 1}}', b'{"token":']
)
def test_an_answer_of_no_keystone_is_a_wrong_setting_unless_it_was_right_before(
    junk: bytes, is_renewal: bool
) -> None:
    logins = []

    class Keystone(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            logins.append(self.path)
            endpoint = {"interface": "public", "id": "1", "url": f"http://{self.headers['Host']}/v1/a"}
            catalog = [{"type": "object-store", "name": "swift", "id": "2", "endpoints": [endpoint]}]
            token = {"catalog": catalog, "expires_at": "2099-01-01T00:00:00.000000Z"}
            good = json.dumps({"token": token}).encode()
            self.answer(201, good if is_renewal and len(logins) == 1 else junk)

        def do_HEAD(self) -> None:
            self.answer(401, b"")

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("X-Subject-Token", "token")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keystone) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        options = {"auth_version": "3", "os_options": {"project_name": "p"}, "retries": 1 - is_renewal}
        kind = UnavailableError if is_renewal else MisconfiguredError
        refused = pytest.raises(
            kind, match=rf"the login at {url} answered 200 without the fields of a Keystone"
        )
        with open_storage(type="swift", auth_url=url, **options) as storage, refused:
            storage.head("a")
        server.shutdown()
    assert len(logins) == 1 + is_renewal


CATALOG = [
    {"interface": "public", "region": "north", "region_id": "north", "id": "1", "url": "http://north/v1/a/"},
    {"interface": "internal", "region": "south", "region_id": "south", "id": "2", "url": "http://south/v1/a"},
]
GRANTED_V3 = {
    "token": {
        "catalog": [{"type": "object-store", "name": "swift", "id": "2", "endpoints": CATALOG}],
        "methods": ["password"],
        "expires_at": "2099-01-01T00:00:00.000000Z",
        "issued_at": "2026-01-01T00:00:00.000000Z",
        "user": {"id": "3", "name": "me", "domain": {"id": "default", "name": "Default"}},
    }
}
GRANTED_V2 = {
    "access": {
        "token": {"id": "the-token", "expires": "2099-01-01T00:00:00Z", "tenant": {"id": "4", "name": "p"}},
        "user": {"id": "3", "name": "me", "roles": []},
        "serviceCatalog": [
            {
                "type": "object-store",
                "name": "swift",
                "endpoints": [{"publicURL": "http://north/v1/a", "region": "north", "id": "1"}],
            }
        ],
    }
}
PASSWORD = {"user": {"name": "me", "password": "pw", "domain": {"id": "default"}}}
SCOPE = {"project": {"name": "p", "domain": {"id": "default"}}}


@pytest.mark.parametrize(
    ("version", "user", "options", "path", "sent", "url"),
    [
        ("3", "me", {"project_name": "p"}, "/v3/auth/tokens",
         {"identity": {"methods": ["password"], "password": PASSWORD}, "scope": SCOPE}, "http://north/v1/a"),
        ("3", "p:me", {"region_name": "south", "endpoint_type": "internal"}, "/v3/auth/tokens",
         {"identity": {"methods": ["password"], "password": PASSWORD}, "scope": SCOPE}, "http://south/v1/a"),
        ("3", "", {"auth_type": "v3applicationcredential", "application_credential_id": "i",
                   "application_credential_secret": "s\n"}, "/v3/auth/tokens",
         {"identity": {"methods": ["application_credential"],
                       "application_credential": {"id": "i", "secret": "s"}}}, "http://north/v1/a"),
        ("3", "me", {"project_id": "7", "auth_token": "t"}, "/v3/auth/tokens",
         {"identity": {"methods": ["token"], "token": {"id": "t"}}, "scope": {"project": {"id": "7"}}},
         "http://north/v1/a"),
        ("2.0", "me", {"tenant_name": "p"}, "/v2.0/tokens",
         {"passwordCredentials": {"username": "me", "password": "pw"}, "tenantName": "p"}, "http://north/v1/a"),
        ("3", "me", {"project_name": "p", "object_storage_url": "http://own/v1/b/"}, "/v3/auth/tokens",
         {"identity": {"methods": ["password"], "password": PASSWORD}, "scope": SCOPE}, "http://own/v1/b"),
        ("3", "me", {"project_name": "p", "region_name": "west"}, "", {}, ""),
    ],
)  # fmt: skip
def test_each_kind_of_login_sends_a_request_that_keystone_accepts(
    version: str, user: str, options: dict[str, str], path: str, sent: Any, url: str
) -> None:
    asked: list[tuple[str, Any]] = []

    class Keystone(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, content["auth"]))
            body = json.dumps(GRANTED_V2 if "v2" in self.path else GRANTED_V3).encode()
            self.send_response(201)
            self.send_header("X-Subject-Token", "the-token")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keystone) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        block = SwiftSettings(
            auth_url=address, username=user, key="pw", auth_version=version, os_options=options
        )
        session = SwiftSession(Settings(swift=block))
        if url:
            assert session.log_in() == (url, "the-token")
            assert asked == [(path, sent)]
        else:
            with pytest.raises(MisconfiguredError, match="object-store"):
                session.log_in()
        server.shutdown()
