"""The swiftclient ``Connection`` for callers of 2.x: it obeys the settings."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import pytest
import swiftclient
from requests.exceptions import SSLError

from pfstorage import swiftStorage
from pfstorage.devswift import DevSwift
from tests.support.faults import proxy_to
from tests.support.peer import Peer, Serving
from tests.support.tls import Authority, Fronted
from tests.support.v2 import old_args

pytestmark = pytest.mark.usefixtures("no_certificates_of_the_machine")

PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@contextlib.contextmanager
def connected(swift: DevSwift, **more: Any) -> Iterator[swiftclient.Connection]:
    old = swiftStorage(args=old_args(swift, **more), name="pfstorage", version="2.0.0.2")
    connection = old.connect()["conn"]
    assert isinstance(connection, swiftclient.Connection)
    connection.retries = 0
    try:
        yield connection
    finally:
        connection.close()
        old.close()
        gc.collect()  # swiftclient's answers know themselves, and keep their sockets until then


def round_trip(connection: swiftclient.Connection) -> None:
    connection.put_container("sdk")
    connection.put_object("sdk", "s/ä b", b"abc")
    _, rows = connection.get_container("sdk")
    assert [row["name"] for row in rows] == ["s/ä b"]
    assert connection.get_object("sdk", "s/ä b")[1] == b"abc"
    connection.delete_object("sdk", "s/ä b")


def by_tls(monkeypatch: pytest.MonkeyPatch, swift: DevSwift, options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments for the store of *options*. Its login returns the address without TLS."""
    for name, value in {
        "OS_AUTH_URL": options["auth_url"],
        "OS_USERNAME": swift.user,
        "OS_PASSWORD": swift.key,
        "OS_STORAGE_URL": options["os_options"]["object_storage_url"],
        "OS_AUTH_VERSION": "1",
    }.items():
        monkeypatch.setenv(name, value)
    return {"ipSwift": None, "portSwift": None}


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")  # --insecure causes this warning
@pytest.mark.parametrize("by", ["caCert", "SSL_CERT_FILE", "insecure"])
def test_the_same_certificates_count(
    authority: Authority, fronted: Fronted, swift: DevSwift, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    front, options = fronted(authority.context())
    arguments = by_tls(monkeypatch, swift, options)
    if by == "SSL_CERT_FILE":
        monkeypatch.setenv(by, authority.cert)
    else:
        arguments[by] = authority.cert if by == "caCert" else True
    with connected(swift, **arguments) as connection:
        round_trip(connection)
    assert front.handshakes == 2  # one for the login, and one that is kept


def test_a_certificate_of_an_unknown_authority_is_not_believed(
    authority: Authority, fronted: Fronted, swift: DevSwift, monkeypatch: pytest.MonkeyPatch
) -> None:
    front, options = fronted(authority.context())
    arguments = by_tls(monkeypatch, swift, options)
    with connected(swift, **arguments) as connection:
        with pytest.raises(swiftclient.ClientException, match="--caCert"):
            connection.head_account()
        connection.url, connection.token = options["os_options"]["object_storage_url"], "token"
        with pytest.raises(SSLError, match="certificate verify failed"):
            connection.head_account()
    assert front.handshakes == 0


def test_the_proxy_of_the_setting_is_taken_for_the_login_and_for_all_else(swift: DevSwift) -> None:
    with proxy_to(swift.port) as proxy:
        with connected(
            swift, ipSwift="store.invalid", httpProxy=f"127.0.0.1:{proxy.port}", swiftKey="testing"
        ) as connection:
            round_trip(connection)
        assert len(proxy.exchanges) == 6


def test_a_proxy_of_another_scheme_gets_no_byte(
    serve_peers: Serving, swift: DevSwift, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(peer: Peer) -> None:
        peer.head()

    server = serve_peers(serve)
    monkeypatch.setenv("all_proxy", f"socks5://127.0.0.1:{server.port}")
    with connected(swift) as connection:
        with pytest.raises(swiftclient.ClientException, match="all_proxy"):
            connection.head_account()
        connection.url, connection.token = "http://127.0.0.1:9/v1/AUTH_chris", "token"
        with pytest.raises(swiftclient.ClientException, match="all_proxy"):
            connection.head_account()
    assert server.connections == 0


def test_the_environment_of_openstack_logs_in(
    keystone: str, swift: DevSwift, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "OS_AUTH_URL": keystone,
        "OS_USERNAME": "me",
        "OS_PASSWORD": "secret",
        "OS_PROJECT_NAME": "research",
    }.items():
        monkeypatch.setenv(name, value)
    with connected(swift, ipSwift=None, portSwift=None) as connection:
        round_trip(connection)


def test_attributes_that_swiftclient_depends_on_are_kept(swift: DevSwift) -> None:
    with connected(swift, swiftKey="wrong") as connection:
        with pytest.raises(swiftclient.ClientException) as error:
            connection.get_auth()
        assert error.value.http_status == 401
    with connected(swift, portSwift="9") as connection, pytest.raises(ConnectionError):
        connection.get_auth()
