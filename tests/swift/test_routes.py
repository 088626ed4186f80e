"""The choice of a proxy for a store, and the secrets that a proxy may see."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.backends.http.routes import find_proxy, is_exempt
from pfstorage.cli.main import main
from pfstorage.devswift import DevSwift
from pfstorage.errors import MisconfiguredError, SettingsError, StorageError
from tests.conftest import Command, swift_options
from tests.support.peer import Connecting, Peer, Serving

KEY = "the-secret-key"


class Listener:
    """Accepts connections, sends *greeting*, and keeps all bytes until the client ends the connection."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.received = b""
        self.connections = 0
        self._greeting = greeting
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                sock = self._socket.accept()[0]
                self.connections += 1
                with sock:
                    sock.settimeout(5)
                    with contextlib.suppress(OSError):
                        sock.sendall(self._greeting)
                        self.received += sock.recv(65536)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


KEYSTONE = {"auth_version": "3", "os_options": {"project_name": "research"}}
LOGINS: dict[str, dict[str, Any]] = {
    "v1": {},
    "keystone": KEYSTONE,
    "token": {"os_options": {"auth_token": KEY, "object_storage_url": "http://store.invalid/v1/a"}},
    "https": {"auth_url": "https://store.invalid/auth/v1.0"},
}


@pytest.mark.parametrize("login", LOGINS)
@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4", "https", "SOCKS5", "ftp"])
@pytest.mark.parametrize("variable", ["all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY"])
def test_a_proxy_of_another_scheme_is_named_and_gets_no_byte(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str, login: str
) -> None:
    if login == "https":
        variable = variable.replace("http_", "https_").replace("HTTP_", "HTTPS_")
    monkeypatch.setenv(variable, f"{scheme}://me:canary@127.0.0.1:{listener.port}")
    options = {"auth_url": "http://store.invalid/auth/v1.0", "key": KEY, "retries": 3, **LOGINS[login]}
    with open_storage(type="swift", **options) as storage, pytest.raises(MisconfiguredError) as caught:
        storage.head("a")
    assert f"{variable}: pfstorage speaks plain HTTP to a proxy, not '{scheme}'" in str(caught.value)
    assert "canary" not in f"{caught.value} {caught.value.facts}"
    assert (listener.connections, listener.received) == (0, b"")


@pytest.mark.parametrize("scheme", ["socks5", "https"])
def test_a_proxy_of_another_scheme_is_no_setting(listener: Listener, command: Command, scheme: str) -> None:
    proxy = f"{scheme}://me:canary@127.0.0.1:{listener.port}"
    with pytest.raises(SettingsError, match=rf"httpProxy: .* not '{scheme}'"):
        open_storage(type="swift", http_proxy=proxy)
    done = command("--httpProxy", proxy, "--msg", '{"action": "ls"}')
    assert (done.returncode, f"not '{scheme}'" in done.stderr, "canary" in done.stderr) == (2, True, False)
    with contextlib.closing(StoreHandler()) as handler:
        reply = handler.run({"action": "internalctl", "meta": {"var": "/this/httpProxy", "set": proxy}})
    assert (reply["error"]["type"], "canary" in str(reply)) == ("SettingsError", False)
    assert listener.connections == 0


@pytest.mark.parametrize(
    ("host", "port", "no_proxy", "is_so"),
    [
        ("127.0.0.1", 8080, "*", True),
        ("127.0.0.1", 8080, "  a , * ", True),
        ("127.0.0.1", 8080, "127.0.0.0/8", True),
        ("127.0.0.1", 8080, "127.0.0.1:8080", True),
        ("127.0.0.1", 8080, "127.0.0.1:80", False),
        ("127.0.0.1", 8080, "27.0.0.1", False),
        ("127.0.0.1", 8080, ".0.0.1", False),
        ("::1", 8080, "::1", True),
        ("::1", 8080, "[::1]", True),
        ("::1", 8080, "[::1]:8080", True),
        ("::1", 8080, "[::1]:8081", False),
        ("::1", 8080, "0:0:0:0:0:0:0:1", True),
        ("fd12::7", 443, "fd00::/8", True),
        ("fd12::7", 443, "[fd00::]/8:443", True),
        ("fd12::7", 443, "fe00::/8", False),
        ("fe80::1%eth0", 443, "fe80::/10", True),
        ("swift.example.org", 443, "example.org", True),
        ("swift.example.org", 443, ".example.org", True),
        ("swift.example.org", 443, "*.example.org", True),
        ("example.org", 443, ".example.org", True),
        ("swift.example.org.", 443, "EXAMPLE.ORG:443", True),
        ("swift.example.org", 443, "example.org:80", False),
        ("badexample.org", 443, "example.org", False),
        ("swift.example.org", 443, "a\n\tswift.example.org", True),
        ("swift.example.org", 443, "., ,:80,[]", False),
        ("swift", 80, "10.0.0.0/8", False),
        ("10.0.0.1", 80, "swift", False),
    ],
)
def test_no_proxy_names_hosts_addresses_networks_and_ports(
    host: str, port: int, no_proxy: str, is_so: bool
) -> None:
    assert is_exempt(host, port, no_proxy) is is_so
    place = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    found = find_proxy(place, "", {"all_proxy": "proxy:3128", "NO_PROXY": no_proxy})
    assert found == ("" if is_so else "http://proxy:3128")
    assert find_proxy(place, "other:1", {"no_proxy": no_proxy}) == "http://other:1"  # that is an order


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({"http_proxy": "a:1", "HTTP_PROXY": "b:1", "all_proxy": "c:1"}, "http://a:1"),
        ({"HTTP_PROXY": " b:1\n", "all_proxy": "c:1"}, "http://b:1"),
        ({"http_proxy": "", "HTTP_PROXY": "b:1"}, ""),
        ({"https_proxy": "a:1", "ALL_PROXY": "http://c:1"}, "http://c:1"),
        ({"Http_Proxy": "a:1"}, "http://a:1"),
        ({"http_proxy": "HTTP://a:1"}, "http://a:1"),
        ({"http_proxy": "a:1", "no_proxy": "", "NO_PROXY": "*"}, "http://a:1"),
    ],
)
def test_the_variables_count_as_for_curl(environ: dict[str, str], proxy: str) -> None:
    assert find_proxy("http://swift:8080", "", environ) == proxy


@pytest.mark.parametrize("no_proxy", ["*", "127.0.0.0/8", "127.0.0.1:{}", " 10.0.0.0/8 ,127.0.0.1 "])
def test_a_store_that_is_named_in_no_proxy_is_reached_directly(
    swift: DevSwift, listener: Listener, monkeypatch: pytest.MonkeyPatch, no_proxy: str
) -> None:
    monkeypatch.setenv("all_proxy", f"socks5://127.0.0.1:{listener.port}")
    monkeypatch.setenv("no_proxy", no_proxy.format(swift.port))
    with open_storage(**swift_options(swift)) as storage, pytest.raises(StorageError, match="no container"):
        list(storage.list())
    assert listener.connections == 0


def test_the_login_at_a_keystone_goes_by_the_proxy_of_the_setting(serve_peers: Serving) -> None:
    def refuse(peer: Peer) -> None:
        heads.append(peer.head())
        peer.send(b"HTTP/1.1 503 Not now\r\nContent-Length: 0\r\n\r\n")

    heads: list[bytes] = []
    proxy = f"me:canary@127.0.0.1:{serve_peers(refuse).port}"
    options = {"auth_url": "http://127.0.0.1:9/v3", "http_proxy": proxy, "retries": 0, **KEYSTONE}
    with open_storage(type="swift", **options) as storage, pytest.raises(StorageError, match="503") as caught:
        storage.head("a")
    assert heads[0].startswith(b"POST http://127.0.0.1:9/v3/auth/tokens HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6Y2FuYXJ5\r\n" in heads[0]
    assert "canary" not in str(caught.value)


def test_the_password_is_not_sent_to_the_target_of_a_redirection_by_keystone(
    serve_peers: Serving, listener: Listener
) -> None:
    def lead_away(peer: Peer) -> None:
        peer.head()
        target = f"http://127.0.0.1:{listener.port}/v3/auth/tokens"
        peer.send(f"HTTP/1.1 307 There\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())

    options = {"auth_url": f"http://127.0.0.1:{serve_peers(lead_away).port}/v3", "key": KEY, **KEYSTONE}
    with (
        open_storage(type="swift", **options) as storage,
        pytest.raises(MisconfiguredError, match="a redirection to"),
    ):
        storage.head("a")
    assert listener.connections == 0


def test_a_tunnel_to_an_ipv6_address_is_asked_for_in_brackets(
    serve_peers: Serving, connect: Connecting
) -> None:
    from pfstorage.backends.http.connection import HttpConnection
    from pfstorage.backends.http.dialing import NetworkRoute
    from pfstorage.backends.http.errors import Mistake

    def refuse(peer: Peer) -> None:
        heads.append(peer.head())
        peer.send(b"HTTP/1.1 403 Not there\r\nContent-Length: 0\r\n\r\n")

    heads: list[bytes] = []
    proxy = f"http://127.0.0.1:{serve_peers(refuse).port}"
    route = NetworkRoute("https://[::1]:9", proxy, 2.0, 2.0, ssl.create_default_context())
    reported = r"its proxy does not .* answered 403 Not there to CONNECT \[::1\]:9"
    with contextlib.closing(HttpConnection(route)) as made, pytest.raises(Mistake, match=reported):
        made.request("GET", "/a", {})
    assert heads[0].startswith(b"CONNECT [::1]:9 HTTP/1.1\r\nHost: [::1]:9\r\n")


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_a_store_at_an_ipv6_address_gets_it_in_brackets() -> None:
    from pfstorage.backends.http.connection import HttpConnection
    from pfstorage.backends.http.dialing import NetworkRoute

    heads: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        peer = Peer(sock.accept()[0])
        heads.append(peer.head())
        peer.send(b"HTTP/1.1 204 Yes\r\n\r\n")
        peer.end()

    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        place = f"http://[::1]:{listening.getsockname()[1]}"
        with contextlib.closing(HttpConnection(NetworkRoute(place, "", 2.0, 2.0))) as made:
            assert made.request("GET", "/a", {}).status == 204
        thread.join()
    assert f"\r\nHost: {place.removeprefix('http://')}\r\n".encode() in heads[0]


@pytest.mark.parametrize(
    ("variable", "scheme", "begin"), [("all_proxy", "socks5", b"\x05"), ("http_proxy", "https", b"\x16\x03")]
)
def test_a_message_to_a_server_shows_a_proxy_no_token_in_plain_text(
    listener: Listener, command: Command, variable: str, scheme: str, begin: bytes
) -> None:
    environ = {variable: f"{scheme}://127.0.0.1:{listener.port}"}
    done = command("--remote", "127.0.0.1:9", "--authToken", KEY, "--msg", '{"action": "ls"}', **environ)
    assert done.returncode == 1
    assert KEY.encode() not in listener.received
    assert listener.received[: len(begin)] in (begin, b"")


@pytest.mark.parametrize(
    "proxy", ["http://me:canary@127.0.0.1:x", "http://me:canary@[::1", "ftp://me:canary@host"]
)
def test_a_message_to_a_server_reveals_no_password_of_a_proxy(command: Command, proxy: str) -> None:
    done = command("--remote", "127.0.0.1:9", "--action", "ls", "-v", "2", http_proxy=proxy)
    assert (done.returncode, "canary" in done.stdout + done.stderr) == (1, False)


def test_a_message_to_a_server_goes_by_the_proxy_of_the_flag(
    listener: Listener,
    serve_peers: Serving,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    heads: list[bytes] = []

    def answer(peer: Peer) -> None:
        heads.append(peer.head())
        peer.send(b'HTTP/1.1 200 Yes\r\nContent-Length: 16\r\nConnection: close\r\n\r\n{"status": true}')

    server = serve_peers(answer)
    message = ["--action", "ls"]
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{listener.port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1:9")
    assert main(["--remote", "127.0.0.1:9", "--httpProxy", f"127.0.0.1:{server.port}", *message]) == 0
    assert heads[0].startswith(b"POST http://127.0.0.1:9/api/v1/cmd HTTP/1.1\r\n")
    monkeypatch.setenv("no_proxy", f"127.0.0.1:{server.port}")
    assert main(["--remote", f"127.0.0.1:{server.port}", *message]) == 0
    assert heads[1].startswith(b"POST /api/v1/cmd HTTP/1.1\r\n")
    assert listener.connections == 0
    capsys.readouterr()
