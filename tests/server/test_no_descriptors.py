"""A process that can open no more files answers 503, and works again when it can."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.backends import Storage
from pfstorage.errors import UnavailableError
from tests.conftest import make_certificate, serving, swift_options, write_tree
from tests.support.exchange import TOKEN, answered, server_process
from tests.support.waiting import until

TOLD = "this process can open no more files now: try again later, or raise its limit (ulimit -n)"


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Prevent this process from opening more files, or connections, during the block."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    # the numbers below 3 are taken, and a new one must lie below the limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Client:
    """A kept connection to a server."""

    def __init__(self, port: int, **headers: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = headers
        self._connection.connect()

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        content = json.dumps(body) if isinstance(body, dict) else body
        self._connection.request(method, path, content, self._headers)
        answer = self._connection.getresponse()
        data = answer.read()
        return answer.status, json.loads(data) if answer.getheader(
            "Content-Type"
        ) == "application/json" else data

    def say(self, action: str, **meta: Any) -> tuple[int, Any]:
        return self.ask("POST", "/api/v1/cmd", {"action": action, "meta": meta})

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(params=["swift", "filesystem"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """A store with an object, to which there is no connection yet."""
    options: dict[str, Any] = {"type": "filesystem", "store_base": str(tmp_path / "store")}
    if request.param == "swift":
        options = swift_options(request.getfixturevalue("swift"), retries=0)
    with open_storage(**options) as storage:
        storage.put("s/a", io.BytesIO(b"hello"), 5)
    with open_storage(**options) as storage:
        yield storage


ASKED: list[tuple[str, tuple[Any, ...]]] = [
    ("a listing", ("POST", "/api/v1/cmd", {"action": "ls", "meta": {}})),
    ("an object", ("GET", "/api/v1/objects/s/a")),
    ("a head", ("POST", "/api/v1/cmd", {"action": "objStat", "meta": {"obj": "s/a"}})),
    ("a push", ("POST", "/api/v1/cmd", {"action": "objPut", "meta": {"putSpec": "data", "inLocation": "n"}})),
    ("a file", ("POST", "/api/v1/cmd", {"action": "objPut", "meta": {"file": "data/a", "inLocation": "n"}})),
    (
        "a pull",
        ("POST", "/api/v1/cmd", {"action": "objPull", "meta": {"path": "s", "mapLocationOver": "out"}}),
    ),
    ("a PUT", ("PUT", "/api/v1/objects/n", b"body")),
]


@pytest.mark.parametrize("asked", [asked for _, asked in ASKED], ids=[name for name, _ in ASKED])
def test_requests_that_need_a_file_or_a_connection_are_answered_503(
    store: Storage, tmp_path: Path, asked: tuple[Any, ...]
) -> None:
    write_tree(tmp_path, {"data/a": b"a" * 300_000})
    with (
        serving(StoreHandler(store), fs_roots=(str(tmp_path),)) as server,
        contextlib.closing(Client(server.server_port)) as client,
        contextlib.closing(Client(server.server_port)) as other,
    ):
        for each in (client, other):
            assert each.say("hello", askAbout="timestamp")[0] == 200
        with no_descriptors():
            status, reply = client.ask(*asked)
            assert other.say("hello", askAbout="timestamp")[0] == 200
        if status == 200:  # of each file
            assert (reply["status"], TOLD in str(reply["failed"])) == (False, True)
        else:
            assert (status, reply["status"], TOLD in reply["msg"]) == (503, False, True)
        assert client.ask(*asked)[0] in (200, 201)


def test_an_unreadable_file_of_tokens_neither_accepts_nor_refuses_a_token(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"{TOKEN}\n")
    with (
        open_storage(type="memory") as storage,
        serving(StoreHandler(storage), token_path=str(tokens)) as server,
        contextlib.closing(Client(server.server_port, Authorization=f"Bearer {TOKEN}")) as client,
    ):
        assert client.say("hello", askAbout="timestamp")[0] == 200
        tokens.write_text(f"{TOKEN}\nother-{TOKEN}\n")
        with no_descriptors():
            status, reply = client.say("hello", askAbout="timestamp")
            server.router.access.tokens.reload()  # type: ignore[union-attr]
        assert (status, reply["error"]["type"]) == (503, "NoDescriptorError")
        assert client.say("hello", askAbout="timestamp")[0] == 200


def test_a_bundle_of_certificates_that_can_not_be_opened_now_is_no_wrong_setting(tmp_path: Path) -> None:
    cert, _ = make_certificate(tmp_path)
    options = {"auth_url": "https://127.0.0.1:1/auth/v1.0", "cacert": cert, "retries": 0}
    with open_storage(type="swift", **options) as storage:
        with no_descriptors(), pytest.raises(UnavailableError) as caught:
            storage.head("a")
        with pytest.raises(UnavailableError, match="nothing listens there"):
            storage.head("a")
    assert TOLD in str(caught.value)


def test_an_unforeseen_error_is_503_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    class Opening(StoreHandler):
        def opens_process(self, *, request: dict[str, Any]) -> dict[str, Any]:
            with open(os.devnull):
                return {"status": True, **request}

    with (
        open_storage(type="memory") as storage,
        serving(Opening(storage)) as server,
        contextlib.closing(Client(server.server_port)) as client,
    ):
        assert client.say("opens")[0] == 200
        with no_descriptors():
            status, reply = client.say("opens")
    assert (status, reply["error"]["type"], reply["msg"]) == (503, "NoDescriptorError", TOLD)
    assert "Traceback" not in caplog.text


def test_a_connection_that_there_is_no_descriptor_for_is_answered_503(tmp_path: Path) -> None:
    limits = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))"
    program = f"{limits}; import runpy; runpy.run_module('pfstorage', run_name='__main__')"
    flags = ("--type", "memory", "--forever", "--maxConnections", "500")
    with server_process(tmp_path, *flags, program=("-c", program)) as served:
        clients: list[Client] = []
        status, reply = 200, None
        while status == 200 and len(clients) < 100:
            clients.append(Client(served.port))
            status, reply = clients[-1].say("hello", askAbout="timestamp")
        assert (status, reply["error"]["type"], reply["msg"]) == (503, "NoDescriptorError", TOLD)
        assert len(clients) > 50
        assert clients[0].say("hello", askAbout="timestamp")[0] == 200
        for each in clients:
            each.close()
        until(lambda: answered(served.port, "hello", askAbout="timestamp")[0] == 200)
        served.process.terminate()
        status, said = served.ends()
    assert (status, "no connection can be accepted, too many files are open" in said) == (0, True)
