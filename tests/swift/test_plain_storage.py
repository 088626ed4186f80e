"""Refuse a storage URL without TLS after a login with TLS: the token is as good as the key."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.devswift import DevSwift
from pfstorage.errors import MisconfiguredError, UnavailableError
from tests.conftest import Command, ask, serving, swift_options
from tests.support.faults import Proxy
from tests.support.keystone import login_of
from tests.support.peer import Peer, Serving
from tests.support.tls import Authority

Granting = Callable[..., dict[str, Any]]


@pytest.fixture
def granting(authority: Authority, serve_peers: Serving, swift: DevSwift, proxy: Proxy) -> Granting:
    """Make a login by TLS that grants a token of the real Swift and a storage URL, and options that lead to it.

    *spelled* is how the storage URL, that of *proxy*, begins; *regions* has a Keystone's URLs by their regions.
    """
    _, token = login_of(swift)

    def make(spelled: str = "http", login: str = "https", regions: Any = (), **more: Any) -> dict[str, Any]:
        url = f"{spelled}://127.0.0.1:{proxy.port}/v1/AUTH_chris"

        def answer(peer: Peer) -> None:
            peer.head()
            content = b""
            if regions:
                endpoints = [
                    {
                        "interface": "public",
                        "region": name,
                        "region_id": name,
                        "id": name,
                        "url": each,
                    }
                    for name, each in dict(regions).items()
                ]
                catalog = [{"type": "object-store", "name": "swift", "id": "2", "endpoints": endpoints}]
                times = {"issued_at": "2026-01-01T00:00:00Z", "expires_at": "2036-01-01T00:00:00Z"}
                content = json.dumps(
                    {"token": {"catalog": catalog, "methods": ["password"], **times}}
                ).encode()
            head = "HTTP/1.1 201 Yes\r\nX-Storage-Url: {}\r\nX-Auth-Token: {}\r\nX-Subject-Token: {}\r\n"
            length = f"Content-Length: {len(content)}\r\nContent-Type: application/json\r\n\r\n"
            peer.send((head.format(url, token, token) + length).encode() + content)

        port = serve_peers(answer, authority.context()).port
        options = {"auth_url": f"{login}://127.0.0.1:{port}/auth/v1.0", "cacert": authority.cert}
        if regions:
            options |= {"auth_url": f"{login}://127.0.0.1:{port}/v3", "auth_version": "3"}
        return {**swift_options(swift), **options, **more}

    return make


def require_refusal(options: dict[str, Any], proxy: Proxy) -> None:
    with (
        open_storage(**options) as storage,
        pytest.raises(
            MisconfiguredError, match=r"uses TLS, but the storage URL does not: (?i:http)://.*--allowPlain"
        ),
    ):
        storage.put("a", io.BytesIO(b"abc"), 3)
    assert proxy.exchanges == []


@pytest.mark.parametrize(("spelled", "login"), [("http", "https"), ("HTTP", "https"), ("http", "HTTPS")])
def test_a_login_by_tls_that_leads_to_plain_text_is_refused(
    granting: Granting, proxy: Proxy, spelled: str, login: str
) -> None:
    require_refusal(granting(spelled, login), proxy)


@pytest.mark.parametrize("has_token", [False, True])
def test_a_plain_text_storage_url_of_the_settings_is_refused(
    granting: Granting, proxy: Proxy, has_token: bool
) -> None:
    override = {"object_storage_url": f" http://127.0.0.1:{proxy.port}/v1/AUTH_chris "}
    token = {"auth_token": "canary"} if has_token else {}
    require_refusal(granting("https", os_options={**override, **token}), proxy)


def test_each_region_of_a_keystone_is_judged_by_its_own_url(granting: Granting, proxy: Proxy) -> None:
    regions = {"safe": "https://127.0.0.1:1/v1/a", "plain": f"http://127.0.0.1:{proxy.port}/v1/AUTH_chris"}
    scope = {"project_name": "p", "region_name": "plain"}
    require_refusal(granting(regions=regions, os_options=scope), proxy)
    options = granting(regions=regions, os_options={**scope, "region_name": "safe"})
    with open_storage(**options) as storage, pytest.raises(UnavailableError, match="nothing listens there"):
        storage.head("a")


def test_the_sdk_gets_no_token_for_plain_text_either(granting: Granting, proxy: Proxy) -> None:
    with (
        open_storage(**granting()) as storage,
        pytest.raises(Exception, match="uses TLS, but the storage URL does not"),
    ):
        storage._session.sdk_connection().head_account()  # type: ignore[attr-defined]
    assert proxy.exchanges == []


def test_plain_text_is_used_with_a_warning_if_a_setting_allows_it(
    granting: Granting, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    with open_storage(**granting(allow_plain_storage=True)) as storage:
        storage.put("a", io.BytesIO(b"abc"), 3)
        assert storage.head("a").size == 3
    assert f"the storage URL does not: http://127.0.0.1:{proxy.port}/v1/AUTH_chris" in caplog.text
    assert "are sent in plain text (--allowPlainStorage)" in caplog.text


def test_a_login_in_plain_text_may_lead_to_plain_text(swift: DevSwift, proxy: Proxy) -> None:
    with open_storage(**swift_options(swift, auth_url=proxy.auth_url)) as storage:
        storage.put("a", io.BytesIO(b"abc"), 3)


def test_each_interface_reports_the_refusal(granting: Granting, command: Command, tmp_path: Path) -> None:
    options = granting()
    with open_storage(**options) as storage, serving(StoreHandler(storage)) as server:
        status, reply = ask(server, {"action": "ls"})
    assert (status, reply["error"]["type"]) == (502, "MisconfiguredError")
    flags = (
        "--swiftAuthUrl",
        options["auth_url"],
        "--caCert",
        options["cacert"],
        "--msg",
        '{"action": "ls"}',
    )
    done = command(*flags, "--retries", "0")
    assert (done.returncode, "uses TLS, but the storage URL does not" in done.stdout) == (1, True)
    done = command(*flags, "--retries", "0", "--allowPlainStorage")
    assert "uses TLS, but the storage URL does not" not in done.stdout
    assert "are sent in plain text" in done.stderr
