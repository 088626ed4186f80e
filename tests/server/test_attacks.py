"""Hostile requests: the server refuses each in JSON, and neither changes nor reveals files outside its roots."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.server.options import ServerOptions
from tests.conftest import read_tree, running_server, write_tree
from tests.support.attacks import ROWS
from tests.support.attacks.row import ADMIN, EXPIRED, HASHED, PART, READER, SECRET, TOKENS, WRITER, Row
from tests.support.exchange import answers, client, exchange, message

TOKEN_FILE = f"""\
[AUTH TOKENS]
writer = {WRITER}
reader = {READER}
admin = {ADMIN}
part = {PART}
hashed = sha256:{hashlib.sha256(HASHED.encode()).hexdigest()}
expired = {EXPIRED} expires=2020-01-01

[TOKEN RIGHTS]
writer = write own/
reader = read own/
admin = admin
part = admin own/
hashed = read own/
expired = admin
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a directory with *root*, which the server serves, and with files that it does not serve."""
    directory = tmp_path_factory.mktemp("attacks")
    write_tree(
        directory, {"secret": SECRET.encode(), "root/data/a": b"ours", "elsewhere/secret": SECRET.encode()}
    )
    (directory / "root" / "link-out").symlink_to(directory / "elsewhere")
    (directory / "tokens.cfg").write_text(TOKEN_FILE)
    (directory / "tokens.cfg").chmod(0o600)
    return directory


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[ThreadedHTTPServer]:
    options = ServerOptions(token_path=str(place / "tokens.cfg"), fs_roots=(str(place / "root"),))
    with open_storage("filesystem", store_base=str(place / "store")) as storage:
        for key, content in (("own/a", b"ours"), ("other/secret", SECRET.encode())):
            path = place / "upload"
            path.write_bytes(content)
            with path.open("rb") as file:
                storage.put(key, file, len(content))
            path.unlink()
        with running_server(ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), options)) as server:
            yield server


@pytest.fixture(scope="module")
def honest(server: ThreadedHTTPServer) -> Iterator[http.client.HTTPConnection]:
    """A client that keeps its connection while others attack."""
    with contextlib.closing(client(server.server_port)) as connection:
        yield connection


def asked(connection: http.client.HTTPConnection, token: str, path: str) -> tuple[int, bytes]:
    """List *path* over the honest *connection*. Return the status and the body."""
    connection.request("POST", "/api/v1/cmd", message("ls", path=path), {"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def outside(place: Path) -> dict[str, bytes]:
    """Return the files that no request may change: all but those of the own keys and the served directory."""
    return {
        name: content
        for name, content in read_tree(place).items()
        if not name.startswith(("root/", "store/users/own/", "store/own/"))
    }


def test_the_rows_of_attacks_are_many_and_different() -> None:
    assert len(ROWS) >= 150
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert len({row.data for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_attack_is_refused_and_changes_nothing(
    server: ThreadedHTTPServer, honest: http.client.HTTPConnection, place: Path, row: Row
) -> None:
    before, directory = outside(place), os.getcwd()
    came = exchange(server.server_port, row.data)
    assert len(came) <= row.most
    found = answers(came, to_head=row.data.startswith(b"HEAD "))
    assert len(found) == row.answers, came[:2000]
    if found:
        assert found[0].status in row.statuses, found[0].body[:2000]
        assert row.text in found[0].body.decode()
    for each in found:
        if not row.may_succeed:
            assert each.json["status"] is False, each.body[:2000]
    for secret in (SECRET, *TOKENS, "root:x:0"):
        assert secret.encode() not in came
    assert outside(place) == before
    assert os.getcwd() == directory
    status, body = asked(honest, READER, "own/a")
    assert (status, b'"own/a"' in body) == (200, True)


def test_the_server_works_as_before_after_all_attacks(
    server: ThreadedHTTPServer, honest: http.client.HTTPConnection
) -> None:
    for token in (WRITER, READER, PART, HASHED):
        status, body = asked(honest, token, "own/x")
        assert status == 200
        assert quote(SECRET).encode() not in body
    status, body = asked(honest, ADMIN, "other/secret")
    assert (status, b'"other/secret"' in body) == (200, True)
