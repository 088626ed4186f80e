"""A server over a real Swift that holds canaries, and requests of all kinds, whose outputs are kept."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from tests.conftest import ROOT, write_tree
from tests.support.canaries import PATIENT, SECRETS, Keeper, login_url
from tests.support.exchange import Served, Transport, connected, message, multipart
from tests.support.faults import Fault, is_listing, is_login
from tests.support.old_jobs import unpacked

# The server, and an action whose errors have all secrets in their texts.
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


def send_each_action(scene: Scene) -> None:
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


def start_jobs(scene: Scene) -> None:
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


def use_other_interfaces(scene: Scene) -> None:
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


def send_wrong_tokens(scene: Scene) -> None:
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


def send_secrets_in_metas(scene: Scene) -> None:
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


def change_settings(scene: Scene) -> None:
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
    ctl("/swift/password", set=SECRETS["a secret next to the settings"])
    ctl("/this/args/authToken", set=SECRETS["a secret next to the settings"])
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


def fail_all_requests(scene: Scene) -> None:
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


def change_tokens(scene: Scene, tokens: Path) -> None:
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
