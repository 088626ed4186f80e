"""``pfstorage --server`` as a process: its end, its memory, and clients that disconnect."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Command, transports, write_tree
from tests.support.exchange import (
    HELLO,
    MULTIPART,
    ROOT,
    Answer,
    Served,
    answer,
    answers,
    client,
    connected,
    message,
    multipart,
    post,
    request,
    server_process,
)

pytestmark = pytest.mark.usefixtures("transport")
CMD = "/api/v1/cmd"
QUIT = message("quit", ctl={"serverCmd": "quit"})
SHUT_DOWN = {"msg": "Server shut down", "status": True}
MIB = 1024 * 1024


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A server of a directory, which runs until it is stopped."""
    with server_process(tmp_path, "--forever", "--type", "filesystem", "--storeBase", "store") as served:
        yield served


class SlowUpload:
    """An upload that the server has begun to read, and whose rest is still to be sent."""

    def __init__(self, port: int) -> None:
        self._content = multipart(
            ("d_msg", message("objPut", toObject="chris/slow").encode()), ("local", b"a" * 100_000)
        )
        length = f"Content-Length: {len(self._content)}"
        self._connection = connected(port)
        self._connection.sendall(request("POST", CMD, length, MULTIPART, "Expect: 100-continue"))
        assert b"100 Continue" in self._connection.recv(1000)
        self._connection.sendall(self._content[:1000])

    def end(self) -> Answer:
        with self._connection as connection:
            connection.sendall(self._content[1000:])
            (reply,) = answers(b"".join(iter(lambda: connection.recv(65536), b"")))
        return reply


@contextlib.contextmanager
def kept_connection(port: int) -> Iterator[http.client.HTTPConnection]:
    connection = client(port)
    with contextlib.closing(connection):
        yield connection


def says_that_it_ends(connection: http.client.HTTPConnection) -> bool:
    connection.request("POST", CMD, json.dumps(HELLO))
    reply = connection.getresponse()
    reply.read()
    return reply.getheader("connection") == "close"


def cancellation(served: Served, how: str) -> None:
    if how == "quit":
        reply = answer(served.port, post(QUIT))
        assert (reply.status, reply.json, reply.headers["connection"]) == (200, SHUT_DOWN, "close")
    else:
        served.process.send_signal(signal.Signals[how])


WAYS = ["quit", "SIGTERM", "SIGINT", "SIGQUIT"]


@pytest.mark.parametrize("how", WAYS)
def test_a_server_that_is_stopped_finishes_what_runs_and_ends_well(
    served: Served, how: str, tmp_path: Path
) -> None:
    upload = SlowUpload(served.port)
    with kept_connection(served.port) as connection, connected(served.port):
        assert not says_that_it_ends(connection)
        cancellation(served, how)
        deadline = time.monotonic() + 30
        while not says_that_it_ends(connection):
            assert time.monotonic() < deadline
    reply = upload.end()
    assert (reply.status, reply.json["status"]) == (200, True)
    status, said = served.ends()
    assert (status, "Traceback" in said) == (0, False), said
    assert (tmp_path / "store" / "chris" / "slow").stat().st_size == 100_000


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(port)), timeout=30).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # the connection came just as the server closed its listener
        return False
    return False


def test_a_server_that_is_stopped_takes_no_more_connections(served: Served) -> None:
    upload = SlowUpload(served.port)
    cancellation(served, "SIGTERM")
    deadline = time.monotonic() + 30
    while not refuses_connections(served.port):
        assert time.monotonic() < deadline
    assert upload.end().status == 200


def test_stdout_of_a_server_stays_empty(served: Served) -> None:
    answer(served.port, post(QUIT))
    assert served.process.communicate(timeout=60)[0] == ""


@pytest.mark.parametrize("how", WAYS)
def test_without_forever_a_server_can_be_stopped_before_its_request(tmp_path: Path, how: str) -> None:
    with server_process(tmp_path, "--type", "memory") as served:
        cancellation(served, how)
        assert served.ends()[0] == 0


@pytest.mark.parametrize(
    ("data", "status"), [(post(json.dumps(HELLO)), 200), (post("junk"), 400), (b"junk\r\n", 400)]
)
def test_without_forever_a_server_answers_one_request(tmp_path: Path, data: bytes, status: int) -> None:
    with server_process(tmp_path, "--type", "memory") as served:
        connected(served.port).__exit__()  # asks nothing, and does not count
        with connected(served.port) as connection:
            connection.sendall(data)
            (reply,) = answers(b"".join(iter(lambda: connection.recv(65536), b"")))
        assert (reply.status, reply.headers["connection"]) == (status, "close")
        assert served.ends()[0] == 0


def test_a_port_in_use_is_reported_in_one_line(served: Served, command: Command) -> None:
    done = command("--server", "--forever", "--type", "memory", "--portSelf", str(served.port))
    assert (done.returncode, done.stdout) == (1, "")
    address = f"127.0.0.1:{served.port}"
    assert done.stderr == (
        f"pfstorage: cannot listen on {address}: Address already in use; see --ipSelf and --portSelf\n"
    )


def peak_memory(served: Served) -> int:
    """Return the most bytes of memory that the server ever had."""
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match
    return int(match[1]) * 1024


def upload_in_pieces(port: int, size: int) -> int:
    """Upload *size* bytes, of which few are in memory at a time; return the status."""
    before, after = multipart(
        ("d_msg", message("objPut", toObject="chris/large").encode()), ("local", b"@")
    ).split(b"@")
    pieces = [before, *[b"a" * MIB] * (size // MIB), after]
    with kept_connection(port) as connection:
        connection.putrequest("POST", CMD)
        connection.putheader("Content-Type", MULTIPART.partition(": ")[2])
        connection.putheader("Content-Length", str(sum(map(len, pieces))))
        connection.endheaders()
        for piece in pieces:
            connection.send(piece)
        return connection.getresponse().status


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_an_upload_is_never_whole_in_memory(served: Served, tmp_path: Path) -> None:
    assert upload_in_pieces(served.port, MIB) == 200  # so that all is imported
    before = peak_memory(served)
    assert upload_in_pieces(served.port, 64 * MIB) == 200
    assert peak_memory(served) - before < 8 * MIB
    assert (tmp_path / "store" / "chris" / "large").stat().st_size == 64 * MIB


def vanish(port: int, data: bytes, *, read: int = 0, reset: bool) -> None:
    """Send *data*, read some bytes of the reply, and disconnect."""
    with connected(port) as connection:
        connection.sendall(data)
        if read:
            connection.recv(read)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


BROKEN_OFF = [
    b"",
    b"POST /api",
    b"POST /api/v1/cmd HTTP/1.1\r\nContent-Le",
    request("POST", CMD, "Content-Length: 500", body=b'{"action":'),
    request("POST", CMD, "Content-Length: 500", "Expect: 100-continue"),
    request("POST", CMD, "Transfer-Encoding: chunked", body=b"50\r\n{"),
    request("POST", CMD, "Content-Length: 500", MULTIPART, body=multipart(*[("d_msg", b"{}")])[:40]),
    request("POST", CMD, "Content-Length: 500", MULTIPART, body=multipart(*[("local", b"a" * 400)])[:300]),
]


@pytest.mark.parametrize("reset", [True, False])
def test_clients_that_vanish_harm_nobody(served: Served, tmp_path: Path, reset: bool) -> None:
    write_tree(tmp_path / "store", {f"chris/{'a' * 100}{number}": b"" for number in range(3000)})
    long_replies = post(message("ls", path="chris", retSpec=[])) * 20
    for data in BROKEN_OFF:
        vanish(served.port, data, reset=reset)
    vanish(served.port, long_replies, reset=reset)
    vanish(served.port, long_replies, read=1000, reset=reset)
    assert answer(served.port, post(json.dumps(HELLO))).status == 200
    cancellation(served, "quit")
    status, said = served.ends()
    assert status == 0
    known = r"[\d-]+ [\d:,]+ INFO (id=\w+ client=|no more requests are accepted|the server has ended)"
    assert all(re.match(known, line) for line in said.splitlines()), said


def test_a_server_that_can_not_keep_its_jobs_does_not_say_that_it_serves(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no directory")
    flags = ("--type", "memory", "--server", "--forever", "--portSelf", "0", "--stateDir", "state")
    done = subprocess.run(
        [sys.executable, "-m", "pfstorage", *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "serves" not in done.stderr
    assert "--stateDir 'state' is no directory: name one, which may be new" in done.stderr


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_secrets_that_others_can_read_are_reported_at_the_start(
    tmp_path: Path, certificate: tuple[str, str], mode: int
) -> None:
    write_tree(tmp_path, {"key.pem": Path(certificate[1]).read_bytes(), "swift key": b"secret"})
    for name in ("key.pem", "swift key"):
        (tmp_path / name).chmod(mode)
    tls = () if "--tlsKey" in transports[-1].flags else ("--tlsCert", certificate[0], "--tlsKey", "key.pem")
    flags = ("--forever", "--type", "memory", "--swiftKey", "@swift key", *tls)
    with server_process(tmp_path, *flags) as served:
        served.process.terminate()
        _, said = served.ends()
    received = [line for line in said.splitlines() if "any user of this host can read" in line]
    expected = ["--tlsKey 'key.pem': run  chmod o-r key.pem"] if tls else []
    expected.append("--swiftKey 'swift key': run  chmod o-r 'swift key'")
    assert [line.partition(" read ")[2] for line in received] == (expected if mode == 0o644 else [])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize("echo", [[["x" * 90] * 9] * 1000, "x" * 1_000_000, "\u00e9" * 500_000], ids=range(3))
def test_clients_that_read_nothing_take_little_memory(served: Served, echo: object) -> None:
    """Each reply is larger than the buffers of the system for a connection."""
    text = json.dumps({**HELLO, "meta": {"askAbout": "echoBack", "echoBack": echo}}, ensure_ascii=False)
    answer(served.port, post(json.dumps(HELLO)))
    before = peak_memory(served)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(connected(served.port)) for _ in range(24)]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            each.sendall(post(text))
        for each in sockets:
            assert each.recv(12).startswith(b"HTTP/1.1 ")
        assert peak_memory(served) - before < 60 * MIB
