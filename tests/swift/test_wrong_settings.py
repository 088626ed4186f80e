"""Wrong settings are no outages: the error names the setting and its correction at once, without retries."""

from __future__ import annotations

import contextlib
import io
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from pfstorage import StoreHandler, open_storage
from pfstorage.backends.http.connection import HttpConnection
from pfstorage.backends.http.dialing import NetworkRoute
from pfstorage.backends.http.errors import Mistake
from pfstorage.devswift import DevSwift
from pfstorage.errors import (
    MisconfiguredError,
    NotFoundError,
    SettingsError,
    UnauthenticatedError,
    UnavailableError,
)
from pfstorage.jobs.model import JobRequest
from pfstorage.jobs.queue import QueuedJob
from pfstorage.jobs.running import RunningJob
from pfstorage.settings.loading import load_settings
from pfstorage.settings.model import SwiftSettings
from tests.conftest import Command, ask, serving, swift_options
from tests.support.faults import proxy_to
from tests.support.peer import Peer, Serving
from tests.support.tls import DAY, NOW, Authority, Fronted
from tests.support.wire import wire_to

pytestmark = pytest.mark.usefixtures("no_certificates_of_the_machine")

PULL = {"fromLocation": "s", "mapLocationOver": "out"}


def round_trip(options: dict[str, Any]) -> None:
    with open_storage(**options) as storage:
        storage.put("s/a", io.BytesIO(b"abc"), 3)
        assert [row.key for row in storage.list()] == ["s/a"]
        storage.delete("s/a")


def test_a_store_with_a_certificate_of_its_own_authority_is_used(
    authority: Authority, fronted: Fronted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, options = fronted(authority.context())
    round_trip({**options, "cacert": authority.cert})
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(name, authority.cert)
        round_trip(options)
        monkeypatch.delenv(name)
    monkeypatch.setenv("SSL_CERT_FILE", authority.cert)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nothing/there")  # it counts behind the other
    round_trip(options)


@pytest.fixture(params=["utf-8-sig", "utf-16"])
def marked(request: pytest.FixtureRequest, authority: Authority, tmp_path: Path) -> str:
    """A file of certificates as tools of Windows write it; the one that counts comes first."""
    other = tmp_path / "other"
    other.mkdir()
    certs = "".join(Path(each).read_text() for each in (authority.cert, Authority(other).cert))
    path = tmp_path / "marked.pem"
    path.write_text(certs + "# für später\n", encoding=request.param)
    return str(path)


def test_a_byte_order_mark_hides_no_certificate(
    fronted: Fronted, authority: Authority, marked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, options = fronted(authority.context())
    round_trip({**options, "cacert": marked})
    monkeypatch.setenv("SSL_CERT_FILE", marked)
    round_trip(options)


def test_a_file_of_certificates_that_was_mended_is_read_again(
    authority: Authority, fronted: Fronted, tmp_path: Path
) -> None:
    _, options = fronted(authority.context())
    bundle = tmp_path / "bundle.pem"
    other = tmp_path / "other"
    other.mkdir()
    bundle.write_bytes(Path(Authority(other).cert).read_bytes())
    with open_storage(**options, cacert=str(bundle)) as storage:
        with pytest.raises(MisconfiguredError, match="certificate verify failed"):
            storage.head("a")
        bundle.write_bytes(Path(authority.cert).read_bytes())
        with pytest.raises(NotFoundError):
            storage.head("a")


def test_an_insecure_store_is_used_with_a_warning(
    authority: Authority, fronted: Fronted, command: Command
) -> None:
    _, options = fronted(authority.context("another.example.org", NOW - DAY))
    round_trip({**options, "insecure": True})
    [warning] = load_settings({"this": {"insecure": True}})[1]
    assert "--insecure" in warning
    assert "--caCert" in warning


WRONG: dict[str, tuple[Callable[[Authority], ssl.SSLContext], str]] = {
    "unknown": (
        lambda ca: ca.context(),
        "unable to get local issuer certificate .*--caCert FILE, OS_CACERT or SSL_CERT",
    ),
    "hostname": (lambda ca: ca.context("swift.example.org"), "IP address mismatch.*--swiftAuthUrl"),
    "expired": (lambda ca: ca.context(until=NOW - DAY), "certificate has expired.*new certificate"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("login", ["v1", "keystone", "token"])
def test_a_certificate_that_can_not_be_trusted_is_named_and_asked_for_once(
    authority: Authority, fronted: Fronted, wrong: str, login: str
) -> None:
    make, expected = WRONG[wrong]
    front, options = fronted(make(authority))
    if wrong != "unknown":
        options["cacert"] = authority.cert
    if login == "keystone":
        options |= {"auth_version": "3", "os_options": {"project_name": "p"}}
    elif login == "token":
        options["os_options"] = {**options["os_options"], "auth_token": "t"}
    with open_storage(**options) as storage, pytest.raises(MisconfiguredError, match=expected) as caught:
        storage.head("a")
    assert "certificate verify failed" in str(caught.value)
    assert (front.connections, front.handshakes) == (1, 0)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({"key": rsa.generate_private_key(65537, 1024)}, "key too weak"),
        ({"purpose": ExtendedKeyUsageOID.CLIENT_AUTH}, "purpose"),
    ],
)
def test_for_a_certificate_that_no_setting_mends_the_error_asks_for_a_new_one(
    authority: Authority, fronted: Fronted, made: dict[str, Any], expected: str
) -> None:
    front, options = fronted(authority.context(**made))
    with (
        open_storage(**options, cacert=authority.cert) as storage,
        pytest.raises(
            MisconfiguredError, match=f"verify failed: .*{expected}.*its issuer must issue"
        ) as caught,
    ):
        storage.head("a")
    assert "--caCert" not in str(caught.value)
    assert front.connections == 1


def test_the_strictness_of_python_3_13_is_named(authority: Authority, fronted: Fronted) -> None:
    front, _ = fronted(authority.context(is_strict=False))
    context = ssl.create_default_context(cafile=authority.cert)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    route = NetworkRoute(f"https://127.0.0.1:{front.port}", "", 2.0, 5.0, context)
    expected = "Missing Authority Key Identifier.*Python 3.13 .*VERIFY_X509_STRICT"
    with contextlib.closing(HttpConnection(route)) as connection, pytest.raises(Mistake, match=expected):
        connection.request("GET", "/a", {})


@pytest.mark.parametrize("name", ["cacert", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_file_without_certificates_is_named(
    authority: Authority, fronted: Fronted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    front, options = fronted(authority.context())
    garbage = tmp_path / "garbage.pem"
    shown = "--caCert" if name == "cacert" else name
    for content in (
        b"",
        b"garbage",
        b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n",
        b"\xef\xbb\xbfgarbage",
        b"\xff\xfe",
    ):
        garbage.write_bytes(content)
        more = {"cacert": str(garbage)} if name == "cacert" else {}
        if not more:
            monkeypatch.setenv(name, str(garbage))
        expected = rf"{shown}: '\S+garbage.pem' holds no certificates"
        with open_storage(**options, **more) as storage, pytest.raises(MisconfiguredError, match=expected):
            storage.head("a")
    garbage.unlink()
    expected = "--caCert" if name == "cacert" else rf"{shown}: '\S+garbage.pem' can't be read: No such file"
    with (
        pytest.raises((SettingsError, MisconfiguredError), match=expected),
        open_storage(**options, **more) as storage,
    ):
        storage.head("a")
    assert front.connections == 0


def test_plain_http_to_a_port_of_tls_is_named(authority: Authority, fronted: Fronted) -> None:
    front, options = fronted(authority.context())
    for url in (f"http://127.0.0.1:{front.port}/auth/v1.0", f"http://127.0.0.1:{front.port}/v3"):
        more = {"auth_version": "3", "os_options": {"project_name": "p"}} if url.endswith("v3") else {}
        refused = pytest.raises(MisconfiguredError, match="the port speaks TLS: use an address with https")
        with open_storage(**{**options, "auth_url": url, **more}) as storage, refused:
            storage.head("a")


def test_an_alert_of_tls_is_no_outage(serve_peers: Serving) -> None:
    server = serve_peers(lambda peer: peer.send(b"\x15\x03\x03\x00\x02\x02\x46") if peer.head() else None)
    options = {"type": "swift", "auth_url": f"http://127.0.0.1:{server.port}/auth/v1.0", "retries": 3}
    with open_storage(**options) as storage, pytest.raises(MisconfiguredError, match="the port speaks TLS"):
        storage.head("a")
    assert server.connections == 1


def test_a_storage_url_of_plain_http_behind_tls_is_named(
    swift: DevSwift, authority: Authority, fronted: Fronted
) -> None:
    """A Swift behind a load balancer that ends TLS reports its own URL, without TLS."""
    _, options = fronted(authority.context(), cacert=authority.cert, allow_plain_storage=True)
    refused = pytest.raises(MisconfiguredError, match="the port speaks TLS")
    with open_storage(**{**options, "os_options": {}}) as storage, refused:
        storage.head("a")


def test_a_store_that_breaks_connections_is_still_an_outage(swift: DevSwift) -> None:
    with wire_to(swift.port) as wire:
        wire.to_client = lambda _: None
        address = f"http://127.0.0.1:{wire.port}/auth/v1.0"
        with open_storage(**{**swift_options(swift, retries=2), "auth_url": address}) as storage:
            with pytest.raises(UnavailableError, match="the connection broke"):
                storage.head("a")
            wire.to_client = lambda data: data
            with pytest.raises(Exception, match="no object"):
                storage.head("a")


def test_tls_to_a_port_of_plain_http_is_named(swift: DevSwift) -> None:
    with wire_to(swift.port) as wire:
        options = {**swift_options(swift, retries=3), "auth_url": f"https://127.0.0.1:{wire.port}/auth/v1.0"}
        with (
            open_storage(**options) as storage,
            pytest.raises(MisconfiguredError, match="the port does not speak TLS"),
        ):
            storage.head("a")
        assert wire.connections == 1


def test_a_store_that_wants_a_certificate_of_its_client_is_named(
    authority: Authority, fronted: Fronted
) -> None:
    context = authority.context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.cert)
    _, options = fronted(context, cacert=authority.cert)
    with (
        open_storage(**options) as storage,
        pytest.raises(MisconfiguredError, match="client certificate"),
    ):
        storage.head("a")


def test_no_common_version_of_tls_is_named(authority: Authority, fronted: Fronted) -> None:
    context = authority.context()
    context.set_ciphers("NULL-SHA256")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    front, options = fronted(context, cacert=authority.cert)
    with (
        open_storage(**options) as storage,
        pytest.raises(MisconfiguredError, match="the TLS handshake failed"),
    ):
        storage.head("a")
    assert front.connections == 1


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"key": "one\ntwo"}, r"the key of the store \(--swiftKey, SWIFT_KEY\) contains a line break"),
        ({"key": "one\n two"}, r"the key of the store \(--swiftKey"),
        ({"key": "one\x00two"}, r"the key of the store \(--swiftKey"),
        ({"key": "one\rtwo\n"}, r"the key of the store \(--swiftKey"),
        ({"key": "one\udc80"}, r"the key of the store \(--swiftKey"),
        ({"username": "chris:\nchris1234"}, r"the user of the store \(--swiftUsername"),
        ({"os_options": {"auth_token": "a\r\nX: y", "object_storage_url": "http://127.0.0.1:{}/v1"}}, "the token of"),
        ({"auth_url": "http://127.0.0.1:{}/ä"}, "the path of the address .* as %XX"),
        ({"auth_url": "http://a..example.org/auth"}, "the host name is not valid"),
        ({"auth_url": "http://" + "a" * 64 + ".example.org/auth"}, "the host name is not valid"),
        ({"os_options": {"object_storage_url": "store.example.org/v1/a"}}, "storage URL 'store.example.org/v1/a'"),
        ({"os_options": {"object_storage_url": "ftp://store/v1/a"}}, "storage URL 'ftp://store/v1/a'"),
        ({"os_options": {"object_storage_url": "http://me:canary@store:0/v1"}}, r"storage URL 'http://\*+@store:0"),
        ({"auth_version": "4"}, "auth_version '4'"),
        ({"auth_version": "3", "username": "me"}, "OS_PROJECT_NAME"),
    ],
)  # fmt: skip
def test_a_value_that_can_never_be_sent_is_named_and_nothing_is_sent(
    swift: DevSwift, more: dict[str, Any], expected: str
) -> None:
    with wire_to(swift.port) as wire:
        sent: list[bytes] = []
        wire.to_server = lambda data: sent.append(data) or data  # type: ignore[func-returns-value]
        options = {**swift_options(swift, retries=3), "auth_url": f"http://127.0.0.1:{wire.port}/auth/v1.0"}
        options |= {name: _filled(value, wire.port) for name, value in more.items()}
        with open_storage(**options) as storage, pytest.raises(MisconfiguredError, match=expected) as caught:
            storage.head("a")
    assert len(sent) <= ("object_storage_url" in str(more) and "auth_token" not in str(more))
    assert not {"one", "two", "canary"} & set(str(caught.value).replace("@", " ").split())


def _filled(value: Any, port: int) -> Any:
    if isinstance(value, dict):
        return {name: _filled(each, port) for name, each in value.items()}
    return value.replace("{}", str(port))


@pytest.mark.parametrize("url", ["http://store:0/auth", "http://store:x/auth", "http://store:99999", "ftp://store/a",
                                 "http://st ore/auth", "store:8080", "http:///auth", "http://[::1/auth"])  # fmt: skip
def test_an_address_that_is_none_is_no_setting(url: str) -> None:
    with pytest.raises(SettingsError, match=r"swift\.auth_url"):
        open_storage(type="swift", auth_url=url)


def test_blanks_around_an_address_are_no_part_of_it(swift: DevSwift) -> None:
    with proxy_to(swift.port) as proxy:
        options = {**swift_options(swift), "auth_url": f"\t{swift.auth_url} \n"}
        override = {"object_storage_url": f" http://127.0.0.1:{proxy.port}/v1/AUTH_chris/ "}
        round_trip({**options, "http_proxy": f" 127.0.0.1:{proxy.port} ", "os_options": override})
        assert len(proxy.exchanges) >= 4


def test_names_and_keys_go_as_utf_8(serve_peers: Serving) -> None:
    heads: list[bytes] = []

    def refuse(peer: Peer) -> None:
        heads.append(peer.head())
        peer.send(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")

    server = serve_peers(refuse)
    login = {
        "auth_url": f"http://127.0.0.1:{server.port}/auth/v1.0",
        "username": "źle:Jürgen",
        "key": "schlüssel-ł",
    }
    with open_storage(type="swift", **login) as storage, pytest.raises(UnauthenticatedError):
        storage.head("a")
    assert "\r\nX-Auth-User: źle:Jürgen\r\nX-Auth-Key: schlüssel-ł\r\n".encode() in heads[0]


def test_a_token_that_is_no_ascii_goes_back_as_it_came(serve_peers: Serving) -> None:
    heads: list[bytes] = []

    def answer(peer: Peer) -> None:
        while head := peer.head():
            heads.append(head)
            url = f"http://127.0.0.1:{server.port}/v1/a"
            fields = (
                f"X-Storage-Url: {url}\r\nX-Auth-Token: tökenł\r\nX-Trans-Id: t\r\nContent-Length: 0\r\n\r\n"
            )
            peer.send(f"HTTP/1.1 200 Yes\r\n{fields}".encode())

    server = serve_peers(answer)
    with open_storage(type="swift", auth_url=f"http://127.0.0.1:{server.port}/auth/v1.0") as storage:
        storage.head("a")
    assert "\r\nX-Auth-Token: tökenł\r\n".encode() in heads[1]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_a_final_line_end_is_no_part_of_a_secret(
    swift: DevSwift, tmp_path: Path, command: Command, end: str
) -> None:
    message = ["--msg", '{"action": "ls"}', "--swiftContainer", "line-end"]
    login = {"SWIFT_AUTH_URL": swift.auth_url, "SWIFT_USERNAME": swift.user + end}
    path = tmp_path / "key"
    path.write_bytes(f"{swift.key}{end}".encode())
    for flags, environ in (
        (["--swiftKey", f"@{path}"], login),
        (["--swiftKey", f"{swift.key}{end}"], login),
        ([], {**login, "SWIFT_KEY": swift.key + end}),
    ):
        assert "there is no container 'line-end'" in command(*message, *flags, **environ).stdout
    assert SwiftSettings(key=f" a b {end}").key == " a b "
    options = SwiftSettings(os_options={"auth_token": f"t{end}", "region_name": f"r{end}", "n": 1}).os_options
    assert options == {"auth_token": "t", "region_name": "r", "n": 1}
    document = {"swift": {"key": f"k{end}"}}
    assert load_settings(document)[0].swift.key == "k"


def test_a_job_does_not_wait_for_a_wrong_setting(authority: Authority, fronted: Fronted) -> None:
    _, options = fronted(authority.context())
    message = {"action": "objPull", "meta": PULL}
    order = JobRequest(message)
    with open_storage(**options) as storage, contextlib.closing(StoreHandler(storage)) as handler:
        reply = RunningJob(QueuedJob("1", "", 1, 1), lambda _: None).run(
            lambda *_: handler.answer(message), order
        )
    assert reply.body["error"]["type"] == "MisconfiguredError"


def test_readiness_names_a_wrong_setting(
    authority: Authority, fronted: Fronted, caplog: pytest.LogCaptureFixture
) -> None:
    _, options = fronted(authority.context())
    with (
        open_storage(**options) as storage,
        contextlib.closing(StoreHandler(storage)) as handler,
        caplog.at_level(logging.WARNING, "pfstorage"),
        serving(handler) as server,
    ):
        assert ask(server, method="GET", path="/readyz")[0] == 503
    [logged] = [record.getMessage() for record in caplog.records if "not ready" in record.getMessage()]
    assert "certificate verify failed" in logged
    assert "--caCert" in logged


def test_a_run_ends_at_a_wrong_setting(authority: Authority, fronted: Fronted, tmp_path: Path) -> None:
    front, options = fronted(authority.context())
    (tmp_path / "data").mkdir()
    for number in range(50):
        (tmp_path / "data" / f"{number}").write_bytes(b"x")
    with open_storage(**options) as storage, contextlib.closing(StoreHandler(storage)) as handler:
        reply = handler.run(
            {"action": "objPut", "meta": {"putSpec": "data", "inLocation": "s", "overwrite": "always"}}
        )
    assert reply["error"]["type"] == "MisconfiguredError"
    assert front.connections < 50


def test_a_message_to_a_server_takes_the_same_certificates(
    authority: Authority, command: Command, serve_peers: Serving, marked: str
) -> None:
    def answer(peer: Peer) -> None:
        peer.head()
        peer.send(b'HTTP/1.1 200 Yes\r\nContent-Length: 16\r\nConnection: close\r\n\r\n{"status": true}')

    server = serve_peers(answer, authority.context())
    flags = ["--remote", f"https://127.0.0.1:{server.port}", "--action", "ls"]
    assert "--caCert FILE" in command(*flags).stdout
    assert command(*flags, "--caCert", authority.cert).returncode == 0
    assert command(*flags, SSL_CERT_FILE=authority.cert).returncode == 0
    assert command(*flags, "--caCert", marked).returncode == 0
    assert command(*flags, SSL_CERT_FILE=marked).returncode == 0
    done = command(*flags, "--insecure")
    assert (done.returncode, "not verify certificates (--insecure)" in done.stderr) == (0, True)


def test_all_that_goes_to_a_server_may_have_any_letters(
    authority: Authority, command: Command, serve_peers: Serving, tmp_path: Path
) -> None:
    heads = []

    def answer(peer: Peer) -> None:
        heads.append(peer.head())
        peer.send(b'HTTP/1.1 200 Yes\r\nContent-Length: 16\r\nConnection: close\r\n\r\n{"status": true}')

    plain, tls = serve_peers(answer), serve_peers(answer, authority.context())
    certs = tmp_path / "Müller.pem"
    certs.write_bytes(Path(authority.cert).read_bytes())
    message = ("--action", "ls", "--authToken", "@token")
    (tmp_path / "token").write_text("schlüssel", encoding="utf-8")
    for flags in (
        ("--remote", f"http://127.0.0.1:{plain.port}/ä"),
        ("--remote", f"https://127.0.0.1:{tls.port}", "--caCert", str(certs)),
        ("--remote", "127.0.0.1:9", "--httpProxy", f"ü:ß@127.0.0.1:{plain.port}"),
    ):
        done = command(*flags, *message)
        assert done.returncode == 0
        assert all("list of processes" in line for line in done.stderr.splitlines())
        assert "authorization: bearer schlüssel\r\n".encode() in heads.pop().replace(b"Auth", b"auth")
