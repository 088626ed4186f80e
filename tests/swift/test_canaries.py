"""No output shows a secret, and no log the name of a patient: the tests put canaries everywhere, and search all output.

A server is a process over a real Swift. It is asked for everything that it does, well and badly;
then each thing that it has written or answered is searched for each canary, in each form that it could have.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.devswift import KEY, USER, DevSwift
from pfstorage.errors import PfstorageError, UnauthorizedError
from pfstorage.server.access import Access
from pfstorage.server.options import ServerOptions
from pfstorage.server.tokens import TokenFile
from pfstorage.settings.loading import load_settings
from tests.conftest import ROOT, Command, swift_options, write_tree
from tests.support.exchange import Served, Transport, connected, message, multipart
from tests.support.faults import Exchange, Fault, Proxy, is_listing, is_login
from tests.support.old_jobs import unpacked

PATIENT = "DOE^JANE-canary"
"""Part of names and keys: no line of the log at verbosity 0 and 1 has it."""

SECRETS = {
    "the Swift key": 'swift key"&+%<canary-01',
    "a new Swift key": 'new/key\\+&"canary-02',
    "a Swift key that could not be set": "unset/key+&canary-03",
    "a Swift key that was not allowed": "forbidden key&canary-04",
    "a Swift key to be replaced, with a slip": "mistaken key&canary-05",
    "the password in the address of the login": "url-p%40ss-canary-06",
    "the password in an address that was set": "set-p@ss-canary-07",
    "the password of a proxy": "proxy-p%26ss-canary-08",
    "the password of a proxy in the environment": "proxy-canary-09",
    "an option in the configuration": "option/canary-10",
    "a key in the configuration": "config-key&canary-11",
    "another key in the environment": "ST-key-canary-12",
    "a password in the environment": "OS-password-canary-13",
    "a token in the environment": "OS-token-canary-14",
    "the token for all": "admin+token/canary-15",
    "the token to write": "write+token/canary-16",
    "the token that was revoked": "revoked+token/canary-17",
    "a token with a slip": "admin+tokem/canary-18",
    "a token in the query": "query+token&canary-19",
    "a password of Basic": "basic+password&canary-20",
    "a password of the wrong type in a meta": "typed+password&canary-21",
    "a token of an unknown name in a meta": "unknown+token&canary-22",
    "a password in a form": "form+password&canary-23",
    "a secret of a job": "job+secret&canary-24",
    "a secret beside the settings": "beside+secret&canary-25",
    "the token of a cookie": "cookie+token&canary-26",
}


ECHO = re.compile(rb'"msg": "there is no action|"echoBack": {')
"""The parts of an answer that repeat the message for its sender."""


def forms(secret: str) -> set[bytes]:
    """Return the forms of *secret* to search: the plain one, and those of URLs, JSON, Python and base64."""
    plain = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}
    plain |= {json.dumps(each)[1:-1] for each in plain}
    found = {each.encode() for each in plain}
    for start in range(3):  # earlier bytes move it within the groups of base64
        coded = base64.b64encode(b"x" * start + secret.encode())
        coded = coded[4 if start else 0 : -4]
        found |= {coded, coded.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def found_in(content: bytes, secrets: dict[str, str]) -> list[str]:
    return [name for name, secret in secrets.items() if any(form in content for form in forms(secret))]


class Keeper(Proxy):
    """A proxy to a Swift with a canary as its key. It keeps the tokens that the Swift grants."""

    def note(self, exchange: Exchange) -> list[Fault]:
        given = exchange.headers.get("X-Auth-Key")
        if given is not None and given in (SECRETS["the Swift key"], SECRETS["a new Swift key"]):
            exchange.headers.replace_header("X-Auth-Key", KEY)
        return super().note(exchange)

    @property
    def given(self) -> set[str]:
        return {*self._tokens, *self._tokens.values()}


PROGRAM = """
import sys, threading
from dataclasses import dataclass
from pfstorage.actions.registry import action
from pfstorage.cli.main import main
@dataclass(frozen=True)
class Meta:
    path: str = ""
@action("explode", meta=Meta)
def explode(context, meta):
    def fail(text):
        raise KeyError(text)
    swift = context.settings.swift
    secrets = [swift.key, swift.auth_url, *context.request.secrets()]
    threading.Thread(target=fail, args=(f"{meta.path} {secrets}",)).start()
    try:
        fail(f"{meta.path} {' '.join(secrets)}")
    except KeyError as e:
        raise ValueError(f"{meta.path} {secrets}") from e
sys.exit(main())
"""
"""The server, and an action whose errors say all that they should not."""


@dataclass
class Scene:
    """A server, and its outputs by their places."""

    directory: Path
    proxy: Keeper
    served: Served
    verbosity: int
    ini: bool
    outputs: dict[str, bytes] = field(default_factory=dict)

    def exchange(
        self, method: str, path: str, body: bytes | str = b"", *, token: str | None = "", **headers: str
    ) -> Any:
        """Send one request with *token*, or without one if it is None. Keep the answer, and return its decoded body."""
        token = SECRETS["the token for all"] if token == "" else token
        content = body.encode() if isinstance(body, str) else body
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close"]
        lines += [f"Authorization: Bearer {token}"] * (token is not None)
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if content or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(content)}")
        return self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content)

    def send(self, data: bytes) -> Any:
        with connected(self.served.port) as connection:
            connection.sendall(data)
            came = b"".join(iter(lambda: connection.recv(65536), b""))
        self.outputs[f"answer {len(self.outputs)} to {data[:60]!r}"] = came
        _, _, body = came.partition(b"\r\n\r\n")
        with contextlib.suppress(ValueError):
            return json.loads(body)
        return body

    def ask(self, action: str, *, as_token: str | None = "", **meta: Any) -> Any:
        return self.exchange("POST", "/api/v1/cmd", message(action, **meta), token=as_token)

    def keep_files(self) -> None:
        """Keep the files in the directories of the server, and the files about its process in /proc."""
        for name in ("debug", "state", "tmp"):
            for path in (self.directory / name).rglob("*"):
                if path.is_file():
                    self.outputs[f"name of {path}"] = os.fsencode(path)
                    self.outputs[f"content of {path}"] = unpacked(path)
        process = Path("/proc") / str(self.served.process.pid)
        for name in ("comm", "status"):
            if (process / name).exists():
                self.outputs[f"{name} of the process"] = (process / name).read_bytes()


def all_that_is_asked(scene: Scene) -> None:
    """Send each kind of request to the server, and check the answers."""
    write_tree(scene.directory, {f"root/{PATIENT}/{n}.dcm": bytes(n) for n in range(4)})
    moved = {"inLocation": f"x/{PATIENT}", "mapLocationOver": "."}
    ask = scene.ask
    assert ask("objPut", putSpec=".", **moved)["status"] is True
    assert ask("objPush", file=f"{PATIENT}/1.dcm", inLocation="y")["status"] is True
    assert ask("objPull", path=f"x/{PATIENT}", mapLocationOver=f"back-{PATIENT}")["status"] is True
    assert ask("objVerify", fromLocation=f"x/{PATIENT}", mapLocationOver=".")["status"] is True
    for about in ("timestamp", "sysinfo", "echoBack", PATIENT):
        ask("hello", askAbout=about)
    ask("ls", path=f"x/{PATIENT}", retSpec=[])
    for action in ("objExists", "objStat"):
        ask(action, obj=f"x/{PATIENT}/1.dcm")
        ask(action, obj=f"none/{PATIENT}")
    ask("objPull", path=f"x/{PATIENT}", mapLocationOver=f"../{PATIENT}")
    ask("objPut", putSpec=f"/etc/{PATIENT}")
    ask("objPut", putSpec=f"missing/{PATIENT}", audit=True)
    ask(PATIENT)
    ask(SECRETS["the token to write"])
    ask(f"{PATIENT}", ctl={"serverCmd": "nothing"})


def jobs_are_asked_for(scene: Scene) -> None:
    order = {
        "putSpec": ".",
        "inLocation": f"j/{PATIENT}",
        "mapLocationOver": ".",
        "async": True,
        "jid": "j-1",
    }
    reply = scene.ask("objPut", **order, password=SECRETS["a secret of a job"])
    assert reply["status"] is True, reply
    scene.ask("objPut", **{**order, "inLocation": "k"})  # a conflict
    assert scene.ask("jobStatus", jid="j-1", wait=30)["state"] == "done"
    bad = {"path": "x", "mapLocationOver": "/etc", "async": True, "jid": "j-2"}
    scene.ask("objPull", **bad, authToken=SECRETS["a secret of a job"])
    scene.ask("jobStatus", jid="j-2", wait=30)
    scene.ask("jobList")
    scene.ask("jobCancel", jid="j-1")
    scene.ask("jobStatus", job=PATIENT)
    scene.exchange("GET", f"/api/v1/jobs/{reply['job']}/events")
    scene.exchange("GET", f"/api/v1/jobs/{PATIENT}/events")


def other_interfaces_are_used(scene: Scene) -> None:
    query = quote(SECRETS["a token in the query"], safe="")
    key = f"/api/v1/objects/o/{quote(PATIENT)}"
    send = scene.exchange
    send("PUT", key, b"content")
    send("PUT", f"{key}?token={query}", b"content", If_None_Match="*")
    send("PUT", key, b"content", Content_MD5="d3Jvbmc=")
    for path in (key, f"{key}?access_token={query}", "/api/v1/objects", f"/api/v1/objects?token={query}"):
        for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
            send(method, path)
    send("GET", f"/api/v1/objects?prefix=o/{quote(PATIENT)}")
    for path in ("/healthz", "/readyz", "/metrics", "/", "/api/v1/openapi.json", f"/{quote(PATIENT)}"):
        send("GET", path)
        send("GET", f"{path}?token={query}")
    send("GET", f"/api/v1/cmd?action=ls&meta[path]=x/{quote(PATIENT)}&token={query}")
    send("GET", f"/api/v1/cmd?action=hello&meta={quote(repr({'askAbout': 'timestamp'}))}&authToken={query}")
    send(
        "POST",
        "/api/v1/cmd",
        f"action=ls&meta[path]=x&meta[password]={quote_plus(SECRETS['a password in a form'])}",
    )
    form = multipart(
        ("d_msg", message("objPut", toObject=f"m/{PATIENT}").encode()),
        ("password", SECRETS["a password in a form"].encode()),
        ("local", b"content"),
        ("filename", f"/tmp/{PATIENT}".encode()),
    )
    send("POST", "/api/v1/cmd", form, Content_Type="multipart/form-data; boundary=limit")
    send("POST", "/api/v1/cmd", form[:-30], Content_Type="multipart/form-data; boundary=limit")


def wrong_tokens_come(scene: Scene) -> None:
    slip = SECRETS["a token with a slip"]
    basic = base64.b64encode(f"me:{SECRETS['a password of Basic']}".encode()).decode()
    body = message("ls", path=f"x/{PATIENT}")
    for token in (slip, None):
        scene.exchange(
            "POST", "/api/v1/cmd", body, token=token, Cookie=f"token={SECRETS['the token of a cookie']}"
        )
        scene.exchange("GET", f"/api/v1/objects/{quote(PATIENT)}", token=token)
    for value in (f"Basic {basic}", slip, f"bearer{slip}", f"Token {slip}"):
        scene.exchange("POST", "/api/v1/cmd", body, token=None, Authorization=value)
    scene.exchange("POST", "/api/v1/cmd", body, Authorization=f"Bearer {slip}")  # two of them
    scene.exchange("POST", "/api/v1/cmd", body, X_Request_Id=SECRETS["the token for all"])
    where, came = scene.outputs.popitem()
    scene.outputs[where] = came.replace(SECRETS["the token for all"].encode(), b"", 1)  # as it was named
    admin = SECRETS["the token for all"]
    for data in (
        f"POST /api/v1/cmd\r\nAuthorization: Bearer {admin}\r\n\r\n",
        f"BREW /{PATIENT}?token={admin} HTTP/1.1\r\nAuthorization: Bearer {slip}\r\n\r\n",
        f"POST /api/v1/cmd HTTP/1.1\r\nAuthorization Bearer {admin}\r\n\r\n",
        f"POST /api/v1/cmd HTTP/1.1\r\nAuthorization: Bearer {admin}\r\nContent-Length: -1\r\n\r\n",
        f"POST /api/v1/cmd HTTP/1.1\r\nAuthorization: Bearer {admin}\r\nContent-Length: 9\r\n\r\n{{",
        f"GET /{PATIENT} HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer {admin}\r\n\r\n",
    ):
        with connected(scene.served.port) as connection, contextlib.suppress(OSError):
            connection.sendall(data.encode())
            connection.shutdown(socket.SHUT_WR)
            came = b"".join(iter(lambda: connection.recv(65536), b""))
            scene.outputs[f"answer to {data[:40]!r}"] = re.sub(rb"/DOE.*? HTTP", b"", came)


def metas_hold_secrets(scene: Scene) -> None:
    typed, unknown = (
        SECRETS["a password of the wrong type in a meta"],
        SECRETS["a token of an unknown name in a meta"],
    )
    scene.ask("ls", path={"password": typed, PATIENT: [typed]})
    scene.ask("ls", path="x", token=unknown, more={"apiKey": unknown, "list": [{"Password": unknown}]})
    scene.ask("objPut", fileList={"secret": typed})
    scene.ask("hello", askAbout="echoBack", echoBack={"password": typed})
    scene.ask("objPut", putSpec="missing", swiftKey=unknown, inLocation="x")
    scene.exchange("POST", "/api/v1/cmd", message("ls", password=typed)[:-2])
    scene.exchange("POST", "/api/v1/cmd", json.dumps([{"password": typed}]))


def settings_are_changed(scene: Scene) -> None:
    def ctl(var: str, **meta: Any) -> Any:
        return scene.ask("internalctl", var=var, **meta)

    port, key, new = scene.proxy.port, SECRETS["the Swift key"], SECRETS["a new Swift key"]
    unset, refused = SECRETS["a Swift key that could not be set"], SECRETS["a Swift key that was not allowed"]
    address = f"http://me:{SECRETS['the password in an address that was set']}@127.0.0.1:{port}/auth/v1.0"
    writer = {"as_token": SECRETS["the token to write"]} if scene.ini else {}
    if scene.ini:
        scene.ask("internalctl", var="/swift/key", set=refused, **writer)
        scene.ask("internalctl", var="/swift", set={"key": refused}, **writer)
        scene.ask("internalctl", var=key, valueReplace=refused, **writer)
    scene.exchange(
        "POST", "/api/v1/cmd", message("internalctl", var="/swift/key", set=refused), Origin="http://evil"
    )
    ctl("/swift", set={"key": unset, "auth_url": "nonsense"})
    ctl("/swift/key", set=[unset])
    ctl("/swift/os_options", set={"auth_token": unset, "application_credential_secret": unset, "x": [unset]})
    ctl("/swift/os_options", set={})
    ctl(SECRETS["a Swift key to be replaced, with a slip"], valueReplace=unset)
    ctl("/swift/password", set=SECRETS["a secret beside the settings"])
    ctl("/this/args/authToken", set=SECRETS["a secret beside the settings"])
    for change in ({"key": new, "auth_url": address}, {"key": key}, {"auth_url": address}):
        assert ctl("/swift", set=change)["error"]["type"] == "ForbiddenError"
    assert scene.ask("ls", path="x")["status"] is True
    for var in (
        "/",
        "/swift",
        "/swift/key",
        "/swift/auth_url",
        "/swift/password",
        "/this",
        "/this/args",
        "/none",
    ):
        ctl(var, get="x")
    for guess in (new, key, address):
        assert ctl(guess, valueReplace=new).get("d_ret", {}).get("hits", 0) == 0
    before = (scene.directory / "settings.json").read_text()
    proxy = f"me:{SECRETS['the password of a proxy']}@127.0.0.1:9"
    for text in (
        json.dumps({**json.loads(before), "this": {"httpProxy": proxy}}),  # a new address for an old key
        json.dumps({"this": {"httpProxy": proxy.replace("ss", "/")}}),
        f'{{"swift": {{"key": "{unset}"',
    ):
        (scene.directory / "settings.json").write_text(text)
        scene.served.process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        scene.ask("ls", path="x")
    (scene.directory / "settings.json").write_text(before)


def all_requests_fail(scene: Scene) -> None:
    scene.ask("explode", path=PATIENT)
    for fault, where in (
        (Fault("answer", status=403), is_login),
        (Fault("answer", status=503, retry_after=1), is_listing),
        (Fault("garbage"), is_listing),
        (Fault("expire"), is_listing),
        (Fault("reset"), is_listing),
        (Fault("flip", at=5), is_listing),
    ):
        scene.proxy.forget()
        scene.proxy.fault(fault, where=where)
        scene.ask("ls", path=f"x/{PATIENT}")
        scene.ask("objPut", putSpec=".", inLocation=f"f/{PATIENT}")
    scene.proxy.forget()
    scene.ask(
        "internalctl", var="/swift/key", set=SECRETS["a Swift key that was not allowed"]
    )  # Swift says 401
    scene.ask("ls", path=f"x/{PATIENT}")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    scene.ask("internalctl", var="/swift/auth_url", set=login_url(port))
    scene.ask("ls", path=f"x/{PATIENT}")
    scene.exchange("GET", f"/api/v1/objects/x/{quote(PATIENT)}")
    proxy = f"me:{SECRETS['the password of a proxy']}@127.0.0.1:{port}"
    scene.ask("internalctl", var="/this/httpProxy", set=proxy)
    scene.ask("ls", path=f"x/{PATIENT}")
    scene.ask("internalctl", var="/this/httpProxy", set=proxy.replace("ss", "/"))
    scene.ask("internalctl", var="/this", get="x")
    scene.exchange("GET", "/readyz")


def tokens_change(scene: Scene, tokens: Path) -> None:
    revoked = SECRETS["the token that was revoked"]
    scene.ask("hello", as_token=revoked, askAbout="timestamp")
    before = tokens.read_text()
    tokens.write_text("".join(line for line in before.splitlines(keepends=True) if "revoked" not in line))
    scene.served.process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    scene.ask("hello", as_token=revoked, askAbout="timestamp")
    for text in (
        f"{revoked}\n{revoked}\n",
        f"[AUTH TOKENS]\nx = {revoked}\n  {revoked}\n",
        f"[x]\n{revoked}",
        "short\n",
    ):
        tokens.write_text(text)
        scene.served.process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        scene.ask("hello", as_token=revoked, askAbout="timestamp")
    tokens.chmod(0o644)
    scene.ask("hello", as_token=revoked, askAbout="timestamp")
    tokens.chmod(0o600)
    tokens.write_text(before)


def login_url(port: int) -> str:
    return f"http://me:{SECRETS['the password in the address of the login']}@127.0.0.1:{port}/auth/v1.0"


def written_tokens(path: Path, *, ini: bool) -> Path:
    admin, write, revoked = (
        SECRETS[f"the token {which}"] for which in ("for all", "to write", "that was revoked")
    )
    path.touch(0o600)
    known = f"sha256:{hashlib.sha256(write.encode()).hexdigest()}"  # the token that was sent is masked all the same
    lines = f"boss = {admin}\nwriter = {known}\nrevoked = {revoked}\n"
    permissions = "boss = admin\nwriter = write\nrevoked = read\n"
    path.write_text(
        f"[AUTH TOKENS]\n{lines}[TOKEN RIGHTS]\n{permissions}" if ini else f"{admin}\n{write}\n{revoked}\n"
    )
    return path


def environment(directory: Path, **more: str) -> dict[str, str]:
    proxy = f"http://me:{SECRETS['the password of a proxy in the environment']}@127.0.0.1:9"
    return {
        "TMPDIR": str(directory / "tmp"),
        "http_proxy": proxy,
        "https_proxy": proxy,
        "no_proxy": "127.0.0.1",
        "ST_KEY": SECRETS["another key in the environment"],
        "OS_PASSWORD": SECRETS["a password in the environment"],
        "OS_AUTH_TOKEN": SECRETS["a token in the environment"],
        **more,
    }


def configuration(directory: Path) -> Path:
    options = {"auth_token": SECRETS["an option in the configuration"], "project_name": "p"}
    path = directory / "settings.json"
    path.touch(0o600)
    path.write_text(
        json.dumps({"swift": {"key": SECRETS["a key in the configuration"], "os_options": options}})
    )
    return path


SCENES = {
    "silent, tokens in lines": (0, "text", False, False),
    "as it is left running": (1, "text", True, True),
    "as JSON, tokens in lines, key in argv": (1, "json", False, False),
    "wordy": (2, "text", True, False),
    "more than wordy, as JSON": (4, "json", True, True),
}


@pytest.fixture(scope="module", params=SCENES)
def scene(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    swift: DevSwift,
) -> Iterator[Scene]:
    """Return the outputs of a server after each kind of request."""
    verbosity, form, ini, by_tls = SCENES[request.param]
    directory = tmp_path_factory.mktemp("canaries")
    for name in ("tmp", "root", "debug"):
        (directory / name).mkdir()
    tokens = written_tokens(directory / ("tokens.cfg" if ini else "tokens"), ini=ini)
    proxy = Keeper(swift.port)
    box = swift_options(swift)["container_name"]
    flags = [
        *("--forever", "--retries", "0", "-v", str(verbosity), "--logFormat", form, "--fsRoot", "root"),
        *("--enableTokenAuth", "--tokenPath", str(tokens), "--debugToDir", "debug", "--stateDir", "state"),
        *("--configFileLoad", str(configuration(directory)), "--swiftContainer", box),
        *("--swiftAuthUrl", login_url(proxy.port), "--swiftUsername", USER),
    ]
    key = SECRETS["the Swift key"]
    environ = environment(directory, **({} if "argv" in request.param else {"SWIFT_KEY": key}))
    flags += ["--swiftKey", key] if "argv" in request.param else []
    transport = Transport()
    if by_tls:
        cert, tls_key = request.getfixturevalue("certificate")
        transport = Transport(context=ssl.create_default_context(cafile=cert))
        flags += ["--tlsCert", cert, "--tlsKey", tls_key]
    with contextlib.closing(proxy), started(directory, flags, environ, transport) as served:
        scene = Scene(directory, proxy, served, verbosity, ini)
        scene.ask("hello", as_token=SECRETS["the token to write"], askAbout="timestamp")
        for act in (all_that_is_asked, jobs_are_asked_for, other_interfaces_are_used, wrong_tokens_come):
            act(scene)
        metas_hold_secrets(scene)
        settings_are_changed(scene)
        tokens_change(scene, tokens)
        all_requests_fail(scene)
        scene.keep_files()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 0
        scene.outputs |= {name: (directory / name).read_bytes() for name in ("stdout", "stderr")}
        scene.keep_files()
        yield scene
    shutil.rmtree(directory)


@contextlib.contextmanager
def started(
    directory: Path, flags: list[str], environ: dict[str, str], transport: Transport
) -> Iterator[Served]:
    """Run the server on a port that is chosen here, since a silent server does not print its port."""
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    given = ["--server", "--ipSelf", "127.0.0.1", "--portSelf", str(port), *flags]
    with (
        (directory / "stdout").open("w") as stdout,
        (directory / "stderr").open("w") as stderr,
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *given],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
            stdout=stdout,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while not listens(port):
                assert time.monotonic() < deadline
                assert process.poll() is None, (directory / "stderr").read_text()
                time.sleep(0.05)
            yield Served(transport.port(port), process)
        finally:
            process.kill()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False


def test_the_search_finds_a_canary_in_each_form() -> None:
    for secret in SECRETS.values():
        texts = [
            secret,
            quote(secret, safe=""),
            quote_plus(secret),
            json.dumps({"a": secret}),
            repr([secret]),
        ]
        texts += [base64.b64encode(f"{'x' * n}{secret}".encode()).decode() for n in range(4)]
        texts += [base64.urlsafe_b64encode(f"{'x' * n}{secret}".encode()).decode() for n in range(4)]
        for text in texts:
            assert found_in(text.encode(), {"it": secret}) == ["it"], text


def test_all_requests_of_the_scene_were_made(scene: Scene) -> None:
    records = [name for name in scene.outputs if name.startswith("content") and "/debug/" in name]
    assert len(records) > 60
    assert any("jobs.sqlite" in name for name in scene.outputs)
    assert sum(content.startswith(b"HTTP/1.1 ") for content in scene.outputs.values()) > 120
    assert scene.proxy.given
    statuses = {content[9:12] for content in scene.outputs.values() if content.startswith(b"HTTP/1.1 ")}
    assert statuses >= {
        b"200",
        b"201",
        b"202",
        b"400",
        b"401",
        b"403",
        b"404",
        b"405",
        b"409",
        b"412",
        b"500",
        b"503",
    }
    log = scene.outputs["stderr"].decode()
    assert (log == "") == (scene.verbosity == 0)
    assert ("Traceback" in log) == (scene.verbosity > 0)


def test_no_output_of_a_server_shows_a_secret(scene: Scene, certificate: tuple[str, str]) -> None:
    secrets = {**SECRETS, **{f"what Swift gave, {n}": token for n, token in enumerate(scene.proxy.given)}}
    lines = Path(certificate[1]).read_text().splitlines()[1:-1]
    secrets |= {f"line {n} of the key of TLS": line for n, line in enumerate(lines[:-1])}
    leaks = {where: found_in(content, secrets) for where, content in scene.outputs.items()}
    echo = [where for where in leaks if where.startswith("answer") and ECHO.search(scene.outputs[where])]
    leaks |= {where: [] for where in echo}  # only the sender gets it back
    assert {where: names for where, names in leaks.items() if names} == {}


def test_no_name_of_a_patient_is_in_the_log_of_a_server_that_is_left_running(scene: Scene) -> None:
    log = scene.outputs["stderr"]
    reported = found_in(log + scene.outputs["stdout"], {"the patient": PATIENT})
    assert reported == (["the patient"] if scene.verbosity > 1 else [])


# the command line


@pytest.mark.parametrize("verbosity", ["0", "1", "3"])
def test_no_output_of_the_command_line_shows_a_secret(
    swift: DevSwift, command: Command, tmp_path: Path, verbosity: str
) -> None:
    (tmp_path / "tmp").mkdir()
    write_tree(tmp_path, {f"data/{PATIENT}/1.dcm": b"1"})
    proxy = f"me:{SECRETS['the password of a proxy']}@127.0.0.1:9"
    key = SECRETS["the Swift key"]
    with contextlib.closing(Keeper(swift.port)) as keeper:
        box = swift_options(swift)["container_name"]
        flags = ["--retries", "0", "-v", verbosity, "--debugToDir", "debug", "--swiftContainer", box]
        flags += ["--swiftAuthUrl", login_url(keeper.port), "--configFileLoad", str(configuration(tmp_path))]
        put = message("objPut", putSpec="data", inLocation=f"x/{PATIENT}", mapLocationOver="data")
        new = message("internalctl", var="/swift/key", set=SECRETS["a new Swift key"])
        url = f"http://me:{SECRETS['the password of a proxy']}@127.0.0.1:9"
        token = SECRETS["a token with a slip"]
        runs = [
            [*flags, "--swiftKey", key, "--msg", put],
            [*flags, "--swiftKey", key, "--msg", message("ls", path=f"x/{PATIENT}", password=key)],
            [*flags, f"--swiftKey={key}wrong", "--msg", message("ls")],
            [*flags, "--swiftKey", key, "--msg", new],
            [*flags, "--swiftKey", key, "--msg", message("internalctl", var="/", get="x")],
            [*flags, "--swiftKey", key, "--httpProxy", proxy, "--msg", message("ls")],
            [*flags, "--swiftKey", key, "--httpProxy", proxy.replace("ss", "/"), "--msg", message("ls")],
            [*flags, "--swiftKey", key, "--configFileSave", "saved.json"],
            [*flags, "--swiftKey", key, "--test"],
            [*flags, "--swiftkey", key, "--msg", put],  # which is no flag
            ["--authToken", token, "--remote", url, "--msg", put],
            ["--authToken", token, "--remote", "127.0.0.1:9", "-v", verbosity, "--msg", put],
        ]
        done = [command(*each, **environment(tmp_path)) for each in runs]
        given = keeper.given
    reported = "".join(each.stdout + each.stderr for each in done)
    kept = [path for name in ("debug", "tmp") for path in (tmp_path / name).rglob("*") if path.is_file()]
    assert len(kept) >= 6
    written = "".join(path.read_text() for path in (*kept, tmp_path / "saved.json"))
    secrets = {**SECRETS, **{f"what Swift gave, {n}": each for n, each in enumerate(given)}}
    assert found_in((reported + written).encode(), secrets) == []
    log = "".join(each.stderr for each in done)
    assert (PATIENT in log) == (verbosity == "3")


@pytest.mark.parametrize(
    ("flags", "warning"),
    [
        (["--swiftKey", "{}"], "--swiftKey in the list of processes: give @FILE, set SWIFT_KEY"),
        (["--swiftKey={}"], "--swiftKey in the list of processes: give @FILE, set SWIFT_KEY"),
        (
            ["--remote", "127.0.0.1:9", "--authToken", "{}"],
            "--authToken in the list of processes: give @FILE",
        ),
        (
            ["--httpProxy", "me:{}@127.0.0.1:9"],
            "--httpProxy in the list of processes: set this.httpProxy in the",
        ),
        (["--swiftKey", "@key"], None),
        (["--httpProxy", "127.0.0.1:9"], None),
    ],
)
def test_a_secret_in_a_flag_is_warned_of_in_one_line(
    command: Command, tmp_path: Path, flags: list[str], warning: str | None
) -> None:
    secret = SECRETS["the Swift key"]
    (tmp_path / "key").write_text(secret)
    given = [each.replace("{}", secret) for each in flags]
    said = command("--retries", "0", *given, "--msg", message("hello")).stderr.splitlines()
    warned = [line for line in said if "list of processes" in line]
    assert len(warned) == (warning is not None)
    assert all(str(warning) in line and " WARNING " in line for line in warned)
    assert secret not in "".join(said)


# values in the memory of a program


def traceback_with_locals(error: BaseException | None) -> Iterator[str]:
    """Yield the lines of a traceback with local variables: those of pfstorage's functions, and each error."""
    while error is not None:
        yield repr(error)
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename.startswith(str(ROOT / "pfstorage")):
                yield from (
                    f"{frame.f_code.co_name}: {name}={each!r}" for name, each in frame.f_locals.items()
                )
        error = error.__cause__ or error.__context__


def test_no_repr_and_no_traceback_with_its_values_shows_a_secret(swift: DevSwift) -> None:
    with contextlib.closing(Keeper(swift.port)) as keeper:
        document = {
            "this": {"httpProxy": f"me:{SECRETS['the password of a proxy']}@127.0.0.1:9", "retries": 0},
            "swift": {
                "key": SECRETS["the Swift key"],
                "auth_url": login_url(keeper.port),
                "os_options": {"auth_token": SECRETS["an option in the configuration"]},
            },
        }
        settings, _ = load_settings(document)
        handler = StoreHandler(settings=settings)
        shown = [repr(each) for each in (settings, settings.swift, handler, handler.state, handler.storage)]
        shown += [repr(vars(handler.storage)), str(settings), f"{settings.swift}"]
        for key in ("the Swift key", "a Swift key that was not allowed"):
            swiftly = {"key": SECRETS[key], "auth_url": login_url(keeper.port), "container_name": "none"}
            with open_storage(type="swift", retries=0, **swiftly) as storage:
                for act in (
                    lambda storage=storage: storage.head(PATIENT),
                    lambda storage=storage: list(storage.list("")),
                ):
                    with pytest.raises(PfstorageError) as caught:
                        act()
                    shown += traceback_with_locals(caught.value)
        with contextlib.closing(handler), pytest.raises(PfstorageError) as caught:
            list(handler.storage.list(""))
        shown += traceback_with_locals(caught.value)
        given = keeper.given
    secrets = {**SECRETS, **{f"what Swift gave, {n}": each for n, each in enumerate(given)}}
    assert given
    assert [text for text in shown if found_in(text.encode(), secrets)] == []


@pytest.mark.parametrize("ini", [True, False])
def test_no_repr_of_the_tokens_shows_one(tmp_path: Path, ini: bool) -> None:
    path = written_tokens(tmp_path / ("tokens.cfg" if ini else "tokens"), ini=ini)
    file = TokenFile(str(path))
    options = ServerOptions(token_path=str(path))
    access = Access(options, "127.0.0.1")
    good = file.grant(f"Bearer {SECRETS['the token for all']}")
    shown = [repr(each) for each in (file, good, options, access, access.tokens)]
    headers = http.client.HTTPMessage()
    headers["Authorization"] = f"Bearer {SECRETS['a token with a slip']}"
    with pytest.raises(UnauthorizedError) as caught:
        access.grant(headers)
    shown += traceback_with_locals(caught.value)
    assert [text for text in shown if found_in(text.encode(), SECRETS)] == []
