"""``--makeToken``: what it prints, and what it adds to a file of tokens."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from pathlib import Path

import pytest

from pfstorage.access.permissions import Permissions
from pfstorage.errors import LocalFileError, SettingsError
from pfstorage.server.token_making import new_token
from pfstorage.server.tokens import TokenFile
from tests.conftest import Command

ANN = "ann-0123456789abcdef"


def rights_of(token: str, path: str = "tokens.cfg") -> Permissions:
    return TokenFile(path).grant(f"Bearer {token}").permissions


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


def test_a_token_alone_is_printed_without_lines() -> None:
    assert re.fullmatch("[A-Za-z0-9_-]{43}", new_token())


def test_tokens_are_added_to_a_file_that_their_owner_alone_can_read(command: Command) -> None:
    os.umask(0)
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


def test_what_is_in_the_file_stays_and_keeps_its_rights() -> None:
    path = Path("tokens.cfg")
    path.touch(0o640)
    os.chmod(path, 0o640)
    path.write_text(f"# ours\n[AUTH TOKENS]\nAnn = {ANN}\n\n# the end\n")
    made = new_token("read", path="tokens.cfg")
    assert (rights_of(ANN), rights_of(made)) == (Permissions("write"), Permissions("read"))
    assert path.read_text().startswith(f"# ours\n[AUTH TOKENS]\nAnn = {ANN}\n")
    assert "# the end\n" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_of_a_token_a_line_takes_a_hash_without_rights() -> None:
    made = [new_token(path="tokens") for _ in range(2)]
    assert [rights_of(token, "tokens") for token in made] == [Permissions("write")] * 2
    with pytest.raises(SettingsError, match=r"give it a name that ends in \.cfg"):
        new_token("read", path="tokens")
    with pytest.raises(SettingsError, match=r"give it a name that ends in \.cfg"):
        new_token(prefix="chris/", path="tokens")
    assert len(Path("tokens").read_text().splitlines()) == 2


def test_a_link_to_the_file_stays_one() -> None:
    os.symlink("real.cfg", "tokens.cfg")
    made = new_token(path="tokens.cfg")
    assert os.path.islink("tokens.cfg")
    assert rights_of(made, "real.cfg") == Permissions("write")


@pytest.mark.parametrize(
    "text", ["[AUTH TOKENS]\nAnn\n", f"[AUTH TOKENS]\nAnn = {ANN}", f"[AUTH TOKENS]\nAnn = {ANN}\n[x]\n"]
)
def test_a_file_that_is_not_valid_is_left_as_it_is(text: str) -> None:
    path = Path("tokens.cfg")
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(SettingsError, match="line "):
        new_token(path="tokens.cfg")
    assert path.read_text() == text


def test_a_file_that_others_can_read_gets_no_token() -> None:
    path = Path("tokens.cfg")
    path.write_text(f"[AUTH TOKENS]\nAnn = {ANN}\n")
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        new_token(path="tokens.cfg")
    with pytest.raises(LocalFileError, match="No such file"):
        new_token(path="missing/tokens.cfg")


def test_tokens_that_are_made_at_once_are_all_added() -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.append(new_token("read", path="tokens.cfg"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [rights_of(token) for token in made] == [Permissions("read")] * 8


@pytest.mark.parametrize(
    ("flags", "told"),
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
        (("--rights", "read", "--msg", "{}"), "--rights, --prefix and --expires go with --makeToken"),
        (("--prefix", "", "--msg", "{}"), "--rights, --prefix and --expires go with --makeToken"),
    ],
)
def test_flags_that_make_no_token_are_refused_in_one_line(
    command: Command, flags: tuple[str, ...], told: str
) -> None:
    done = command(*flags)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert told in done.stderr
