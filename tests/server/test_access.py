"""Authentication over HTTP, and the permissions of a token."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import logging
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.errors import ForbiddenError, SettingsError
from pfstorage.server.access import Access
from pfstorage.server.http1.head import Headers
from pfstorage.server.options import ServerOptions
from tests.conftest import Command, ask, make_certificate, running_server, write_tree
from tests.support.exchange import (
    MULTIPART,
    Transport,
    exchange,
    multipart,
    request,
    server_process,
)

HELLO = {"action": "hello", "meta": {"askAbout": "timestamp"}}
SYSINFO = {"action": "hello", "meta": {"askAbout": "sysinfo"}}
SET = {"action": "internalctl", "meta": {"var": "/this/verbosity", "set": 2}}
QUIT = {"meta": {"ctl": {"serverCmd": "quit"}}}
LS = {"action": "ls", "meta": {"path": ""}}

READER, WRITER, BOSS = "r-0123456789abcdef%(x)s", "w-0123456789abcdef", "b-0123456789abcdef"
CHIEF = "c-0123456789abcdef"

Serving = Callable[..., ThreadedHTTPServer]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """Serve a store in memory with the options that are given."""
    with contextlib.ExitStack() as stack:
        storage = stack.enter_context(contextlib.closing(open_storage("memory")))
        handler = StoreHandler(storage)

        def serve(address: str = "127.0.0.1", **options: Any) -> ThreadedHTTPServer:
            given = ServerOptions(**options)
            server = ThreadedHTTPServer((address, 0), handler, given)
            return stack.enter_context(running_server(server))

        yield serve


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# tokens


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic Zm9v", "Bearer nobody", READER, "Bearer \xe4"]
)
def test_a_request_without_a_token_is_refused(serving: Serving, token_file: str, header: str | None) -> None:
    server = serving(token_path=token_file)
    headers = {} if header is None else {"Authorization": header}
    for message in (HELLO, LS, QUIT, SET):
        status, reply = ask(server, message, **headers)
        assert (status, reply["status"], reply["error"]["type"]) == (401, False, "UnauthorizedError")
    status, _ = ask(server, None, "GET", "/api/v1/cmd?action=ls", **headers)
    assert status == 401


def test_the_refusal_names_the_scheme_and_no_token(serving: Serving, token_file: str) -> None:
    import http.client

    server = serving(token_path=token_file)
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    with contextlib.closing(connection):
        connection.request("POST", "/api/v1/cmd", json.dumps(LS), bearer("secret-that-nobody-knows"))
        answer = connection.getresponse()
        text = answer.read().decode()
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "secret-that" not in text
    assert "r-0123" not in text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_request_with_a_token_is_accepted(serving: Serving, token_file: str, scheme: str) -> None:
    server = serving(token_path=token_file)
    assert ask(server, HELLO, Authorization=f"{scheme} {READER}")[0] == 200


def test_a_token_ends_with_its_line(serving: Serving, token_file: str) -> None:
    server = serving(token_path=token_file)
    assert ask(server, HELLO, **bearer(BOSS))[0] == 200
    text = Path(token_file).read_text()
    Path(token_file).write_text(text.replace(f"boss = {BOSS}\n", "").replace("boss = admin\n", ""))
    assert ask(server, HELLO, **bearer(BOSS))[0] == 401
    assert ask(server, HELLO, **bearer(READER))[0] == 200
    Path(token_file).chmod(0o644)
    assert ask(server, HELLO, **bearer(READER))[0] == 401
    Path(token_file).chmod(0o600)
    assert ask(server, HELLO, **bearer(READER))[0] == 200


def test_a_token_does_what_its_rights_allow_and_no_more(
    serving: Serving, token_file: str, tmp_path: Path
) -> None:
    server = serving(token_path=token_file)
    write_tree(tmp_path, {"data/a.dcm": b"a"})

    def status(token: str, message: dict[str, Any]) -> int:
        return ask(server, message, **bearer(token))[0]

    def put(location: str) -> dict[str, Any]:
        data = str(tmp_path / "data")
        return {
            "action": "objPut",
            "meta": {"putSpec": data, "inLocation": location, "mapLocationOver": data},
        }

    assert status(READER, put("chris/feed_1/x")) == 403
    assert status(WRITER, put("chris/feed_1/x")) == 200
    assert status(WRITER, put("chris/feed_10/x")) == 403
    assert status(WRITER, put("chris/feed_1/../x")) in (400, 403)
    assert status(CHIEF, put("chris/feed_1/x")) == 200
    assert status(CHIEF, put("chris/feed_10/x")) == 403
    dry = put("chris/feed_10/x")
    dry["meta"]["dryRun"] = True
    assert [status(token, dry) for token in (WRITER, CHIEF, BOSS)] == [403, 403, 200]
    assert status(BOSS, put("chris/feed_10/x")) == 200
    listed = {token: ask(server, LS, **bearer(token))[1]["ls"] for token in (READER, WRITER, BOSS)}
    assert listed[READER] == listed[WRITER] == [{"name": "chris/feed_1/x/a.dcm"}]
    assert len(listed[BOSS]) == 2
    for message in (SET, QUIT):
        assert [status(token, message) for token in (READER, WRITER, CHIEF)] == [403] * 3
    assert status(BOSS, SET) == 200
    for token, expected in (
        (READER, 403),
        (WRITER, 403),
        (CHIEF, 403),
        (BOSS, 200),
    ):  # they see a part of the store alone
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics", headers=bearer(token))
            assert connection.getresponse().status == expected


@pytest.mark.parametrize(
    ("name", "text"), [("tokens", f"{BOSS}\n"), ("tokens.cfg", f"[AUTH TOKENS]\nboss = {BOSS}\n")]
)
def test_a_token_without_rights_reads_and_writes_and_administers_nothing(
    serving: Serving, tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).touch(0o600)
    (tmp_path / name).write_text(text)
    write_tree(tmp_path, {"data/a.dcm": b"a"})
    server = serving(token_path=str(tmp_path / name), fs_roots=(str(tmp_path),))
    put = {"action": "objPut", "meta": {"file": "data/a.dcm", "inLocation": "x"}}
    assert [ask(server, message, **bearer(BOSS))[0] for message in (put, LS, SYSINFO)] == [200] * 3
    assert [ask(server, message, **bearer(BOSS))[0] for message in (SET, QUIT)] == [403] * 2


def test_a_web_page_can_not_administer_with_any_token(serving: Serving, token_file: str) -> None:
    server = serving(token_path=token_file, cors_origins=("https://chris.example.org",))
    headers = {**bearer(BOSS), "Origin": "https://chris.example.org"}
    assert ask(server, HELLO, **headers)[0] == 200
    assert ask(server, QUIT, **headers)[0] == 403
    form = "meta[ctl][serverCmd]=quit"
    assert ask(server, form, **bearer(BOSS))[0] == 403


def test_an_expired_token_is_named_in_the_reply_and_an_upload_that_ends_later_is_not_stored(
    serving: Serving, token_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pfstorage.server import tokens

    text = Path(token_file).read_text().replace(f"boss = {BOSS}", f"boss = {BOSS} expires=2030-01-01")
    Path(token_file).write_text(text)
    now = [1893456000 - 1.0]
    monkeypatch.setattr(tokens.time, "time", lambda: now[0])
    server = serving(token_path=token_file)
    assert ask(server, HELLO, **bearer(BOSS))[0] == 200
    put = "PUT /api/v1/objects/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(f"{put}Authorization: Bearer {BOSS}\r\n\r\n".encode())
        assert b"100 Continue" in connection.recv(1000)
        now[0] += 1
        connection.sendall(b"hello")
        assert b"HTTP/1.1 401 " in connection.recv(1000)
    status, reply = ask(server, LS, **bearer(BOSS))
    assert (status, reply["error"]["type"]) == (401, "UnauthorizedError")
    assert reply["msg"] == "this token has expired, at 2030-01-01T00:00:00Z: ask for a new one"
    assert ask(server, LS, **bearer(READER))[1].get("ls", []) == []


@pytest.mark.parametrize("verbosity", ["1", "2"])
def test_a_token_whose_hash_alone_is_on_file_is_in_no_log_and_no_record(
    tmp_path: Path, verbosity: str
) -> None:
    digest = hashlib.sha256(BOSS.encode()).hexdigest()
    tokens = tmp_path / "tokens.cfg"
    tokens.touch(0o600)
    tokens.write_text(f"[AUTH TOKENS]\nboss = sha256:{digest}\n[TOKEN RIGHTS]\nboss = admin\n")
    flags = ("--enableTokenAuth", "--tokenPath", str(tokens), "--debugToDir", "records", "-v", verbosity)
    with server_process(tmp_path, "--type", "memory", "--forever", *flags) as served:
        for message in (LS, {"action": "objPut", "meta": {"file": BOSS, "inLocation": BOSS}}):
            body = json.dumps(message)
            head = request(
                "POST", f"/api/v1/cmd?{BOSS}", f"Authorization: Bearer {BOSS}", f"Content-Length: {len(body)}"
            )
            assert exchange(served.port, head + body.encode()).startswith(b"HTTP/1.1 ")
        served.process.terminate()
        _, said = served.ends()
    assert "boss" in said
    records = "".join(path.read_text() for path in (tmp_path / "records").iterdir())
    assert (BOSS in said, BOSS in records, "********" in records) == (False, False, True)


# pages


@pytest.mark.parametrize(
    "origin", ["https://evil.example.org", "null", "http://127.0.0.1", "http://127.0.0.1:1"]
)
def test_a_page_of_another_origin_sends_nothing(serving: Serving, origin: str) -> None:
    server = serving()
    status, reply = ask(server, LS, Origin=origin)
    assert (status, reply["error"]["type"]) == (403, "ForbiddenError")


def test_the_own_pages_of_the_server_may_send(serving: Serving) -> None:
    server = serving()
    assert ask(server, HELLO, Origin=f"http://127.0.0.1:{server.server_port}")[0] == 200


def test_an_origin_that_is_named_may_send_and_read(serving: Serving) -> None:
    import http.client

    server = serving(cors_origins=("https://chris.example.org",))

    def headers_of(method: str, origin: str) -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        with contextlib.closing(connection):
            body = json.dumps(HELLO) if method == "POST" else None
            connection.request(method, "/api/v1/cmd", body, {"Origin": origin})
            answer = connection.getresponse()
            answer.read()
            return answer.status, dict(answer.headers)

    for method, expected in (("POST", 200), ("OPTIONS", 204)):
        status, headers = headers_of(method, "https://chris.example.org")
        assert (status, headers["Access-Control-Allow-Origin"]) == (expected, "https://chris.example.org")
        assert headers["Vary"] == "Origin"
    for method, expected in (("POST", 403), ("OPTIONS", 405), ("GET", 400)):
        status, headers = headers_of(method, "https://evil.example.org")
        assert status == expected
        assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "name", ["evil.example.org", "127.0.0.1.evil.example.org", "10.0.0.1", "localhost.example.org", "[", ""]
)
def test_a_name_that_is_not_this_host_is_refused(serving: Serving, name: str) -> None:
    server = serving()
    expected = 403 if name else 200  # none at all comes from no browser
    assert ask(server, HELLO, Host=f"{name}:80" if name else "")[0] == expected


def test_names_of_this_host_are_accepted(serving: Serving) -> None:
    server = serving(allow_hosts=("store.example.org",))
    for name in ("localhost", "localhost:4055", "LOCALHOST", "127.0.0.1", "[::1]:80", "store.example.org:80"):
        assert ask(server, HELLO, Host=name)[0] == 200


def test_a_local_probe_is_accepted_with_each_list_of_allowed_names() -> None:
    access = Access(ServerOptions(allow_hosts=("store.example.org",)), "10.0.0.1")
    for name, is_known in (("127.0.0.1:4055", True), ("store.example.org", True), ("10.0.0.1", False)):
        headers = Headers()
        headers["host"] = name
        with contextlib.nullcontext() if is_known else pytest.raises(ForbiddenError):
            access.check("GET", headers)


# other addresses


def test_nobody_listens_for_others_without_tokens_by_mistake(serving: Serving, token_file: str) -> None:
    storage = open_storage("memory")
    with (
        contextlib.closing(storage),
        ThreadedHTTPServer(("0.0.0.0", 0), StoreHandler(storage)) as server,
        pytest.raises(SettingsError, match="--allowAnonymous"),
    ):
        server.serve_forever()
    assert ask(serving("0.0.0.0", token_path=token_file), HELLO, **bearer(READER))[0] == 200


def test_a_server_without_tokens_neither_shows_nor_changes_its_settings(serving: Serving) -> None:
    server = serving("0.0.0.0", allow_anonymous=True)
    assert ask(server, HELLO)[0] == 200
    assert [ask(server, message)[0] for message in (SYSINFO, SET, QUIT)] == [403] * 3


def test_a_token_for_a_part_of_the_store_learns_nothing_about_the_machine(
    serving: Serving, token_file: str
) -> None:
    server = serving(token_path=token_file)
    statuses = {token: ask(server, SYSINFO, **bearer(token))[0] for token in (READER, WRITER, CHIEF, BOSS)}
    assert statuses == {READER: 403, WRITER: 403, CHIEF: 403, BOSS: 200}


def test_a_read_token_uploads_nothing_by_a_form(serving: Serving, token_file: str) -> None:
    server = serving(token_path=token_file)
    message = b'{"action": "objPut", "meta": {"toObject": "chris/feed_1/x"}}'
    content = multipart(("d_msg", message), ("local", b"hello"))
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    for token, status in ((READER, 403), (WRITER, 200)):
        with contextlib.closing(connection):
            connection.request(
                "POST",
                "/api/v1/cmd",
                content,
                {**bearer(token), "Content-Type": MULTIPART.partition(": ")[2]},
            )
            assert connection.getresponse().status == status


# TLS


def test_a_server_with_a_certificate_accepts_only_tls(serving: Serving, certificate: tuple[str, str]) -> None:
    import http.client
    import urllib.request

    cert, key = certificate
    server = serving(tls_cert=cert, tls_key=key)
    trusts = ssl.create_default_context(cafile=cert)
    assert server.url.startswith("https://")
    for _ in range(3):
        with urllib.request.urlopen(
            server.url, json.dumps(HELLO).encode(), context=trusts, timeout=30
        ) as answer:
            assert json.load(answer)["status"] is True
    with pytest.raises((OSError, http.client.HTTPException)):
        urllib.request.urlopen(server.url.replace("https", "http"), json.dumps(HELLO).encode(), timeout=30)
    old = ssl.create_default_context(cafile=cert)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError, match=r"(?i)tls|ssl|protocol"):
        urllib.request.urlopen(server.url, b"{}", context=old, timeout=30)


def test_a_signal_loads_a_new_certificate_and_rejects_a_bad_one(
    serving: Serving, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def presented() -> str:
        return ssl.get_server_certificate(("127.0.0.1", server.server_port), timeout=30).strip()

    cert, key = make_certificate(tmp_path)
    server = serving(tls_cert=cert, tls_key=key)
    first = presented()
    make_certificate(tmp_path)
    assert presented() == first
    server.reload()
    second = presented()
    assert second == Path(cert).read_text().strip() != first
    Path(cert).write_text("no certificate")
    server.reload()
    assert presented() == second
    assert "can't be used" in caplog.text
    assert "the old certificate stays in use" in caplog.text


def test_bad_tokens_are_reported_when_a_signal_makes_the_server_read_them(
    serving: Serving, token_file: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = serving(token_path=token_file)
    Path(token_file).write_text("[AUTH TOKENS]\n")
    server.reload()
    assert "the previous tokens stay valid: " in caplog.text  # and not only once somebody asks
    Path(token_file).unlink()
    server.reload()
    assert "no token is valid any more" in caplog.text


def speak_plainly(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            client.recv(100)


def disbelieve(port: int) -> None:
    plain = socket.create_connection(("127.0.0.1", port))
    with plain, pytest.raises(ssl.SSLCertVerificationError):
        ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")


@pytest.mark.parametrize(("greet", "reason"), [(speak_plainly, "HTTP_REQUEST"), (disbelieve, r"\w*ALERT\w*")])
def test_a_failed_tls_handshake_is_logged(
    serving: Serving,
    certificate: tuple[str, str],
    caplog: pytest.LogCaptureFixture,
    greet: Callable[[int], None],
    reason: str,
) -> None:
    server = serving(tls_cert=certificate[0], tls_key=certificate[1])
    with caplog.at_level(logging.INFO):
        greet(server.server_port)
        deadline = time.monotonic() + 20
        while "TLS handshake with" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
    assert re.search(rf"the TLS handshake with 127\.0\.0\.1 failed: {reason}\n", caplog.text)


def test_a_key_with_a_passphrase_is_refused_and_nobody_asked(tmp_path: Path, command: Command) -> None:
    cert, key = make_certificate(tmp_path)
    words = ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", f"{key}.locked"]
    subprocess.run(words, check=True, capture_output=True)
    run = command("--type", "memory", "--server", "--tlsCert", cert, "--tlsKey", f"{key}.locked")
    assert run.returncode == 2
    assert run.stderr.endswith(
        "the key has a passphrase: use a key without one that only its owner can read\n"
    )


def test_a_client_that_sends_a_token_learns_that_the_tokens_can_not_be_read(
    serving: Serving, token_file: str
) -> None:
    server = serving(token_path=token_file)
    os.chmod(token_file, 0o666)
    status, reply = ask(server, HELLO, Authorization=f"Bearer {BOSS}")
    assert (status, reply["error"]["type"]) == (401, "UnauthorizedError")
    assert "the server can't read its token file, so no token is valid: see the log of the server" in str(
        reply
    )


def test_a_connection_without_a_tls_handshake_delays_no_other(
    serving: Serving, certificate: tuple[str, str]
) -> None:
    import urllib.request

    cert, key = certificate
    server = serving(tls_cert=cert, tls_key=key)
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30):
        started = time.monotonic()
        context = ssl.create_default_context(cafile=cert)
        with urllib.request.urlopen(
            server.url, json.dumps(HELLO).encode(), context=context, timeout=30
        ) as answer:
            assert answer.status == 200
        assert time.monotonic() - started < 5.0


def test_a_client_distinguishes_the_end_of_a_reply_from_a_cut_over_tls(
    certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.create_default_context(cafile=certificate[0])
    options = ServerOptions(tls_cert=certificate[0], tls_key=certificate[1])
    asked = request("GET", "/api/v1/objects/chris/a", "Connection: close")
    with contextlib.closing(open_storage("memory")) as storage:
        storage.put("chris/a", io.BytesIO(b"abcd"), 4)
        made = ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), options)
        with running_server(made) as server:
            port = Transport(context=context).port(server.server_port)
            assert exchange(port, asked).endswith(b"\r\n\r\nabcd")

            def abort_requests(_: str, out: Any, __: object) -> None:
                out.write(b"ab")
                out.flush()
                raise ConnectionError

            monkeypatch.setattr(storage, "get", abort_requests)
            with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
                exchange(port, asked)


# the command line


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--enableTokenAuth"], "--tokenPath"),
        (["--tokenPath", "x"], "--enableTokenAuth"),
        (["--enableTokenAuth", "--tokenPath", "missing"], "missing"),
        (["--tlsCert", "x"], "--tlsKey"),
        (["--tlsCert", "x", "--tlsKey", "y"], "--tlsCert"),
        (["--ipSelf", "0.0.0.0"], "--allowAnonymous"),
        (["--maxUpload", "much"], "--maxUpload"),
    ],
)
def test_impossible_flags_are_reported_in_one_line(command: Command, flags: list[str], text: str) -> None:
    run = command("--type", "memory", "--server", "--portSelf", "0", *flags)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1
    assert text in run.stderr


def test_a_token_is_made(command: Command) -> None:
    made = [command("--makeToken").stdout.strip() for _ in range(2)]
    assert made[0] != made[1]
    assert all(len(token) >= 43 for token in made)


def test_a_file_of_tokens_that_others_can_read_is_refused(token_file: str) -> None:
    os.chmod(token_file, 0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler, ServerOptions(token_path=token_file))
    if os.geteuid() == 0:  # else no file can be given away
        os.chown(token_file, 12345, -1)
        with pytest.raises(SettingsError, match="chmod 640"):
            ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler, ServerOptions(token_path=token_file))


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *(
            ("corsOrigin", origin)
            for origin in ("", "null", "*", "https://", "https://*.example.org", "chris.example.org")
        ),
        *(
            ("corsOrigin", origin)
            for origin in ("https://a.org/", "https://A.org", "https://a.org:443", "http://a.org:80")
        ),
        *(
            ("corsOrigin", origin)
            for origin in ("https://a.org https://b.org", "https://me@a.org", "file://", "https://a.org\n")
        ),
        *(
            ("allowHost", name)
            for name in ("", "*", "a.org:80", "http://a.org", "A.org", "a.org.", "a b", "[::1]")
        ),
    ],
)
def test_an_origin_or_a_name_that_no_browser_sends_or_any_page_does_is_refused(flag: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"--{flag} "):
        ServerOptions.from_args({flag: [value]})


def test_an_origin_and_a_name_are_taken_as_browsers_send_them() -> None:
    origins = [
        "https://a.org",
        "http://localhost:3000",
        "https://a.org:80",
        "http://[::1]:8080",
        "capacitor://localhost",
    ]
    names = ["store.example.org", "store", "10.0.0.1", "fd00::1"]
    options = ServerOptions.from_args({"corsOrigin": origins, "allowHost": names})
    assert (options.cors_origins, options.allow_hosts) == (tuple(origins), tuple(names))
