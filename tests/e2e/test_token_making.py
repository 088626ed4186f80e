"""``--makeToken``: its output, its flags and its file."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pfstorage.access.permissions import Permissions
from pfstorage.server.tokens import TokenFile
from tests.conftest import Command
from tests.support.tokens import rights_of


def test_a_token_is_printed_once_with_its_lines_which_have_its_hash(command: Command) -> None:
    flags = ("--makeToken", "--rights", "read", "--prefix", "chris/x", "--expires", "2999-12-31")
    token, *lines = command(*flags).stdout.splitlines()
    digest = hashlib.sha256(token.encode()).hexdigest()
    assert re.fullmatch("[A-Za-z0-9_-]{43}", token)
    assert lines == [
        "[AUTH TOKENS]",
        f"token-{digest[:8]} = sha256:{digest} expires=2999-12-31T00:00:00Z",
        "[TOKEN RIGHTS]",
        f"token-{digest[:8]} = read chris/x",
    ]
    path = Path("tokens.cfg")
    path.touch(0o600)
    path.write_text("".join(f"{line}\n" for line in lines))
    grant = TokenFile("tokens.cfg").grant(f"Bearer {token}")
    assert (grant.permissions, grant.expires) == (Permissions("read", "chris/x"), 32503593600.0)


@pytest.fixture
def no_umask() -> Iterator[None]:
    """New files have all the permissions that their program asks for."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
def test_tokens_are_added_to_a_file_that_their_owner_alone_can_read(command: Command) -> None:
    first = command("--makeToken", "--rights", "admin", "--tokenPath", "tokens.cfg")
    second = command("--makeToken", "--rights", "read", "--prefix", "My Files/", "--tokenPath", "tokens.cfg")
    assert (first.returncode, first.stderr, second.returncode) == (0, "", 0)
    [admin], [reader] = first.stdout.splitlines(), second.stdout.splitlines()
    assert (rights_of(admin), rights_of(reader)) == (Permissions(), Permissions("read", "My Files/"))
    assert stat.S_IMODE(os.stat("tokens.cfg").st_mode) == 0o600
    text = Path("tokens.cfg").read_text()
    assert admin not in text
    assert reader not in text
    assert os.listdir() == ["tokens.cfg"]


@pytest.mark.parametrize(
    ("flags", "received"),
    [
        (("--makeToken", "--prefix", ""), "--prefix is empty"),
        (("--makeToken", "--prefix", " a"), "blanks around it"),
        (("--makeToken", "--prefix", "/chris/"), "--prefix: a key prefix is"),
        (("--makeToken", "--prefix", "chris/../"), "--prefix: a key prefix is"),
        (("--makeToken", "--rights", "all"), "argument --rights: invalid choice"),
        (("--makeToken", "--expires", "tomorrow"), "--expires: 'expires' takes a date"),
        (("--makeToken", "--prefix", "chris/ # mine"), "--prefix: a key prefix has no word that begins with"),
        (("--makeToken", "--expires", "9999-12-31T23:00-02:00"), "--expires: 'expires' takes a date"),
        (("--makeToken", "--expires", "2020-01-01"), "--expires: 2020-01-01T00:00:00Z is over"),
        (
            ("--rights", "read", "--expires", "2030-01-01", "--msg", "{}"),
            "--rights and --expires go with --makeToken",
        ),
        (("--prefix", "a/", "--msg", "{}"), "--prefix goes with --makeToken"),
    ],
)
def test_flags_that_make_no_token_are_refused_in_one_line(
    command: Command, flags: tuple[str, ...], received: str
) -> None:
    done = command(*flags)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert received in done.stderr
