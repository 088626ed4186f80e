"""The published pfurl, the client of the pf* family, and ``--remote``, which uses it."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, errors, open_storage
from pfstorage.backends import Storage
from pfstorage.cli.remote import send
from pfstorage.server.options import ServerOptions
from pfstorage.wire.message import Message
from tests.conftest import ROOT, Command, ask, running_server, serving, unmeasured
from tests.support.exchange import HELLO, TOKEN, message

PFURL = str(Path(sys.executable).with_name("pfurl"))
LS = {"action": "ls", "meta": {"path": "chris/", "retSpec": ["name", "bytes"]}}
FOUND = {"status": True, "ls": [{"name": "chris/it's.dcm", "bytes": 3}]}
OLD_VERSIONS = ["2.2.4.6", "2.2.2.2", "2.1.2.2"]


@pytest.fixture
def server() -> Iterator[ThreadedHTTPServer]:
    """Run a server over a memory storage with the objects that `FOUND` lists."""
    with open_storage(type="memory") as storage, serving(StoreHandler(storage)) as server:
        storage.put("chris/it's.dcm", io.BytesIO(b"abc"), 3)
        yield server


Client = Callable[..., Any]


@pytest.fixture
def client(server: ThreadedHTTPServer, tmp_path: Path) -> Client:
    """Return a function that runs pfurl as a process against the server, and decodes its output."""

    def run(*flags: str, program: str = PFURL) -> Any:
        address = f"127.0.0.1:{server.server_port}/api/v1/cmd"
        done = subprocess.run(
            [program, "--quiet", "--raw", "--http", address, *flags],
            capture_output=True,
            text=True,
            env={**os.environ, "HOME": str(tmp_path)},
            timeout=60,
        )
        assert done.returncode == 0, done
        return json.loads(done.stdout)

    return run


@pytest.mark.parametrize(
    ("content", "flags"),
    [(LS, []), (LS, ["--jsonwrapper", "payload"]), ({"payload": LS}, ["--verb", "POST"])],
)
def test_pfurl_gets_an_answer_to_a_post(client: Client, content: Any, flags: list[str]) -> None:
    assert client("--msg", json.dumps(content), *flags) == FOUND


def test_pfurl_gets_an_answer_to_a_get(client: Client) -> None:
    assert client("--verb", "GET", "--msg", json.dumps(LS)) == {"status": True, "data": FOUND}


@pytest.mark.parametrize("verb", ["POST", "GET"])
def test_pfurl_gets_an_answer_to_a_wrong_message(client: Client, verb: str) -> None:
    reply = client("--verb", verb, "--msg", message("fly", to="the moon"))
    received = reply if verb == "POST" else reply["data"]
    assert (received["status"], received["error"]["type"]) == (False, "UnknownActionError")


def test_pfurl_gets_an_answer_to_an_action_that_it_takes_for_its_own(client: Client, tmp_path: Path) -> None:
    own = message("pullPath", local={"path": str(tmp_path / "a")}, remote={"path": "chris"})
    assert client("--msg", own)["stdout"]["status"] is False


def guarded(
    storage: Storage, tokens: Path, cert: str = "", key: str = ""
) -> contextlib.AbstractContextManager[ThreadedHTTPServer]:
    """Serve *storage* to clients with `TOKEN`, by TLS if there is a certificate."""
    options = ServerOptions(token_path=str(tokens), tls_cert=cert, tls_key=key)
    return running_server(ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), options))


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.cfg"
    path.touch(0o600)
    path.write_text(f"[AUTH TOKENS]\nclient = {TOKEN}\n[TOKEN RIGHTS]\nclient = write chris/\n")
    return path


@pytest.fixture
def filled() -> Iterator[Storage]:
    """Open a memory storage with the objects that `FOUND` lists."""
    with open_storage(type="memory") as storage:
        storage.put("chris/it's.dcm", io.BytesIO(b"abc"), 3)
        yield storage


def pfurl(*flags: str, home: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [PFURL, "--quiet", "--raw", *flags],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(home)},
        timeout=60,
    )
    assert done.returncode == status, done
    assert TOKEN not in done.stdout + done.stderr
    return done


def test_pfurl_is_accepted_with_its_token(filled: Storage, tokens: Path, tmp_path: Path) -> None:
    with guarded(filled, tokens) as server:
        flags = ("--http", server.url, "--msg", json.dumps(LS), "--authToken", TOKEN)
        posted, got = pfurl(*flags, home=tmp_path), pfurl("--verb", "GET", *flags, home=tmp_path)
    assert json.loads(posted.stdout) == FOUND
    assert json.loads(got.stdout) == {"status": True, "data": FOUND}


@pytest.mark.parametrize(
    ("flags", "text"),
    [(["--authToken", "wrong-0123456789"], "does not know this token"), ([], "asks for a token")],
)
def test_pfurl_prints_the_error_about_its_token_and_exits_with_0(
    filled: Storage, tokens: Path, tmp_path: Path, flags: list[str], text: str
) -> None:
    with guarded(filled, tokens) as server:
        given = ("--http", server.url, "--msg", json.dumps(LS), *flags)
        posted, got = pfurl(*given, home=tmp_path), pfurl("--verb", "GET", *given, home=tmp_path)
    received = json.loads(posted.stdout)
    assert (received["status"], received["error"]) == (False, {"type": "UnauthorizedError"})
    assert text in received["msg"]
    assert json.loads(got.stdout) == {
        "status": True,
        "data": received,
    }  # pfurl's own: it does not look at HTTP's
    assert "wrong-0123456789" not in posted.stdout + posted.stderr + got.stdout + got.stderr


def test_a_message_that_the_token_of_pfurl_does_not_permit_is_refused(
    filled: Storage, tokens: Path, tmp_path: Path
) -> None:
    with guarded(filled, tokens) as server:
        for order in (message("x", ctl={"serverCmd": "quit"}), message("objStat", obj="other/a.dcm")):
            done = pfurl("--http", server.url, "--msg", order, "--authToken", TOKEN, home=tmp_path)
            assert json.loads(done.stdout)["error"]["type"] in ("ForbiddenError", "PermissionDeniedError")


BY_TLS = """
import json, sys, pycurl, pfurl
url, message, token, cert, file = sys.argv[1:]
class Curl(pycurl.Curl):  # as if the certificate were among those that libcurl was built to trust
    def __init__(self):
        super().__init__()
        self.setopt(pycurl.CAINFO, cert)
pycurl.Curl = Curl
client = pfurl.Pfurl(msg=message, http=url, verb="POST", authToken=token, b_quiet=True, b_raw=True)
print(json.dumps(client.push_core(client.d_msg, fileToPush=file)))
"""


@pytest.mark.parametrize("size", [0, 100_000, 3_000_000])
def test_pfurl_pushes_a_file_by_tls_with_its_token(
    filled: Storage, tokens: Path, tmp_path: Path, certificate: tuple[str, str], size: int
) -> None:
    content = random.Random(size).randbytes(size)
    (tmp_path / "a.dcm").write_bytes(content)
    with guarded(filled, tokens, *certificate) as server:
        order = message("objPut", toObject="chris/a.dcm")
        given = [server.url, order, TOKEN, certificate[0], str(tmp_path / "a.dcm")]
        done = subprocess.run(
            [sys.executable, "-c", BY_TLS, *given],
            capture_output=True,
            env={**os.environ, "HOME": str(tmp_path)},
            timeout=60,
        )
    assert json.loads(done.stdout)["bytes"] == size
    sink = io.BytesIO()
    filled.get("chris/a.dcm", sink)
    assert sink.getvalue() == content


@pytest.mark.parametrize("flags", [[], ["--unverifiedCerts"]])
def test_pfurl_believes_no_certificate_that_signs_itself(
    filled: Storage, tokens: Path, tmp_path: Path, certificate: tuple[str, str], flags: list[str]
) -> None:
    """Its --unverifiedCerts has no effect: it hands the options over by a name that is not looked at."""
    with guarded(filled, tokens, *certificate) as server:
        given = ("--http", server.url, "--msg", json.dumps(LS), "--authToken", TOKEN, *flags)
        posted, got = pfurl(*given, home=tmp_path), pfurl("--verb", "GET", *given, home=tmp_path)
    assert json.loads(posted.stdout) == ""
    assert "certificate" in json.loads(got.stdout)["exception"]


@pytest.mark.parametrize("form", ["{}", "@{}"])
def test_remote_goes_by_tls_with_its_token(
    filled: Storage,
    tokens: Path,
    tmp_path: Path,
    certificate: tuple[str, str],
    command: Command,
    form: str,
) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    token = form.format(TOKEN if form == "{}" else "token")
    with guarded(filled, tokens, *certificate) as server:
        given = ("--remote", server.url, "--msg", json.dumps(LS), "--authToken", token)
        believed, doubted = command(*given, SSL_CERT_FILE=certificate[0]), command(*given)
        plain = command("--remote", server.url.replace("https:", "http:"), *given[2:])
    assert (believed.returncode, json.loads(believed.stdout)) == (0, FOUND)
    assert (doubted.returncode, json.loads(doubted.stdout)["error"]["type"]) == (1, "RemoteError")
    assert "certificate" in doubted.stdout
    assert "SSL_CERT_FILE=FILE" in doubted.stdout
    assert "https://" in json.loads(plain.stdout)["msg"]
    assert TOKEN not in believed.stderr + doubted.stdout + doubted.stderr


FILE_MODE = """
import json, sys, pfurl
port, message, file = sys.argv[1:]
client = pfurl.Pfurl(msg=message, http=f"127.0.0.1:{port}/api/v1/cmd", verb="POST", b_quiet=True, b_raw=True)
print(json.dumps(client.push_core(client.d_msg, fileToPush=file)))
"""


@pytest.mark.parametrize("size", [0, 100_000, 3_000_000])
def test_a_file_that_pfurl_pushes_is_stored(storage: Storage, tmp_path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)
    (tmp_path / "a.dcm").write_bytes(content)
    path = str(tmp_path / "a.dcm")
    with serving(StoreHandler(storage)) as server:
        order = message("objPut", toObject="chris/a.dcm")
        done = subprocess.run(
            [sys.executable, "-c", FILE_MODE, str(server.server_port), order, path],
            capture_output=True,
            env={**os.environ, "HOME": str(tmp_path)},
            timeout=60,
        )
    reply = json.loads(done.stdout)
    assert (reply["objectFileList"], reply["localFileList"], reply["bytes"]) == (
        ["chris/a.dcm"],
        [path],
        size,
    )
    sink = io.BytesIO()
    storage.get("chris/a.dcm", sink)
    assert sink.getvalue() == content


@pytest.fixture(scope="module", params=OLD_VERSIONS)
def old_pfurl(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Install an older pfurl from the package index into a separate directory, and return its program."""
    place = tmp_path_factory.mktemp(f"pfurl-{request.param}")
    with unmeasured():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
        wanted = [f"pfurl=={request.param}", "legacy-cgi; python_version >= '3.13'"]
        pip = [sys.executable, "-m", "pip", "--python", str(place / "bin/python")]
        subprocess.run([*pip, "install", "--quiet", "--no-compile", *wanted], check=True)
    return str(place / "bin/pfurl")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--httpResponseBodyParse"], ["--jsonwrapper", "payload"]])
def test_older_pfurls_get_an_answer_to_a_post(client: Client, old_pfurl: str, flags: list[str]) -> None:
    assert client("--verb", "POST", "--msg", json.dumps(LS), *flags, program=old_pfurl) == FOUND


@pytest.mark.slow
def test_older_pfurls_get_an_answer_to_a_get(client: Client, old_pfurl: str) -> None:
    data = client("--verb", "GET", "--msg", json.dumps(LS), program=old_pfurl)["data"]
    assert (json.loads(data) if isinstance(data, str) else data) == FOUND


ROUND_TRIPS = [
    (LS, 0),
    ({"payload": LS}, 0),
    (HELLO, 0),
    ({"action": "ls", "meta": {"path": "nothing/"}}, 1),
    ({"action": "objStat", "meta": {"obj": "chris/b.dcm"}}, 1),
    ({"action": "ls", "meta": {"path": 5}}, 2),
    ({"action": "ls", "meta": {"retSpec": ["colour"]}}, 2),
    ({"action": "fly"}, 2),
]


@pytest.mark.parametrize(("content", "status"), ROUND_TRIPS, ids=lambda value: json.dumps(value)[:50])
def test_remote_prints_the_reply_and_ends_as_if_it_were_here(
    server: ThreadedHTTPServer, command: Command, content: Any, status: int
) -> None:
    done = command("--remote", f"127.0.0.1:{server.server_port}", "--msg", json.dumps(content))
    assert done.returncode == status, done.stderr
    assert json.loads(done.stdout) == ask(server, content)[1]


@pytest.mark.parametrize("form", ["{}", "http://{}", "{}/", "http://{}/api/v1/cmd", "{}/api/v1/cmd/"])
def test_the_address_of_a_remote_may_be_a_url(server: ThreadedHTTPServer, form: str) -> None:
    address = form.format(f"127.0.0.1:{server.server_port}")
    assert send(address, Message("ls", LS["meta"])).body == FOUND  # type: ignore[arg-type]


def test_a_remote_may_have_an_address_of_ipv6(server: ThreadedHTTPServer) -> None:
    with ipv6_server(server.handler) as other:
        assert send(f"[::1]:{other.server_port}", Message("ls", LS["meta"])).body == FOUND  # type: ignore[arg-type]


@contextlib.contextmanager
def ipv6_server(handler: StoreHandler) -> Iterator[ThreadedHTTPServer]:
    try:
        server = ThreadedHTTPServer(("::1", 0), handler)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_the_error_of_a_remote_keeps_its_kind(server: ThreadedHTTPServer) -> None:
    address = f"127.0.0.1:{server.server_port}"
    assert type(send(address, Message("fly")).error) is errors.UnknownActionError
    assert type(send(address, Message("objStat", {"obj": "x"})).error) is errors.NotFoundError
    assert send(address, Message("ls", {"path": "nothing"})).error is None


@pytest.mark.parametrize("kind", ["Exception", "one_line", "", 5, None])
def test_an_error_that_only_the_remote_knows_is_an_error_all_the_same(kind: Any) -> None:
    content = {"status": False, "msg": "newer than this", "error": {"type": kind}}
    with stranger(json.dumps(content).encode()) as (address, _):
        reply = send(address, Message("ls"))
    assert (type(reply.error), str(reply.error)) == (errors.PfstorageError, "newer than this")
    assert reply.body == content


def test_an_order_to_quit_goes_by_remote(command: Command) -> None:
    with open_storage(type="memory") as storage, serving(StoreHandler(storage)) as server:
        order = message("quit", ctl={"serverCmd": "quit"})
        done = command("--remote", f"127.0.0.1:{server.server_port}", "--msg", order)
    assert (done.returncode, json.loads(done.stdout)["msg"]) == (0, "Server shut down")


@contextlib.contextmanager
def stranger(content: bytes, status: int = 200, location: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Run a server that answers whatever comes with *content*; yield its address and the headers it got."""
    got: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.headers)
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if location:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(content)

        def log_request(self, *_: Any) -> None:
            """Log nothing on stderr."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", got
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("flags", "header"), [(["--authToken", "s3cr3t"], "bearer s3cr3t"), ([], None)])
def test_a_token_is_sent_if_there_is_one(command: Command, flags: list[str], header: str | None) -> None:
    with stranger(b'{"status": true}') as (address, got):
        done = command("--remote", address, "--msg", json.dumps(LS), *flags)
    assert done.returncode == 0
    assert [headers["authorization"] for headers in got] == [header]
    assert "s3cr3t" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"<html>It works!</html>", 200),
        (b"<html>Bad gateway</html>", 502),
        (b"", 200),
        (b"[]", 200),
        (b"5", 200),
        (b'{"hello": "there"}', 200),
        (b"\xff\xfe", 200),
        (b'{"status": "no"}', 200),
    ],
)
def test_remote_recognises_a_server_that_is_no_pfstorage(
    command: Command, content: bytes, status: int
) -> None:
    with stranger(content, status) as (address, _):
        done = command("--remote", address, "--msg", json.dumps(LS))
    reply = json.loads(done.stdout)
    assert (done.returncode, reply["error"]["type"]) == (1, "RemoteError")
    assert reply["msg"] == f"the server at {address} is not a pfstorage server"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_message_goes_to_no_other_server_than_the_one_that_was_named(command: Command, status: int) -> None:
    with stranger(b'{"status": true}') as (other, got):
        with stranger(b"elsewhere", status, f"http://{other}/api/v1/cmd") as (address, _):
            done = command("--remote", address, "--msg", json.dumps(LS))
        assert (done.returncode, json.loads(done.stdout)["error"]["type"]) == (1, "RemoteError")
        assert got == []


@pytest.mark.parametrize("answer", [b"", b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"st'])
@pytest.mark.parametrize("reads", [True, False])
def test_remote_distinguishes_a_server_that_hangs_up_from_none(answer: bytes, reads: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shut_down() -> None:
            with listener.accept()[0] as connection:
                if reads:
                    connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=shut_down)
        thread.start()
        with pytest.raises(errors.RemoteError, match=r"broke before its reply: .* may have done") as caught:
            send(f"127.0.0.1:{listener.getsockname()[1]}", Message("ls"))
        thread.join()
    assert "no pfstorage server answers" not in str(caught.value)


def test_where_nothing_listens_the_error_says_so_in_words(command: Command) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        done = command("--remote", address, "--msg", json.dumps(LS))
    reply = json.loads(done.stdout)
    assert (done.returncode, reply["error"]["type"]) == (1, "RemoteError")
    assert reply["msg"].startswith(f"no pfstorage server answers at {address}: ")
    assert "connect to" in reply["msg"]
    assert not {"(", "'"} & set(reply["msg"])


def test_remote_writes_nothing_to_the_home_and_to_stderr(
    server: ThreadedHTTPServer, command: Command, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    done = command(
        "--remote",
        f"127.0.0.1:{server.server_port}",
        "--msg",
        json.dumps(LS),
        HOME=str(home),
        XDG_CONFIG_HOME="",
    )
    assert (json.loads(done.stdout), done.stderr) == (FOUND, "")
    assert list(home.iterdir()) == []


HOST = """
import json, logging, os, sys
from pfstorage.wire.message import Message
from pfstorage.cli.remote import send
logging.getLogger().addHandler(handler := logging.NullHandler())
logging.getLogger().setLevel(logging.ERROR)
before = dict(os.environ)
reply = send(sys.argv[1], Message("hello", {"askAbout": "timestamp"}))
root = logging.getLogger()
print(reply.body["status"], root.handlers == [handler], root.level == logging.ERROR, logging.root.manager.disable)
print(before == dict(os.environ), sys.stdout is sys.__stdout__)
"""


def test_a_program_that_sends_keeps_its_own_logging_and_environment(server: ThreadedHTTPServer) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOST, f"127.0.0.1:{server.server_port}"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert done.stdout.split() == ["True", "True", "True", "0", "True", "True"], done.stderr
