"""``--makeToken``: its output, and its changes to a file of tokens."""

from __future__ import annotations

import os
import re
import stat
import threading
from pathlib import Path

import pytest

from pfstorage.access.permissions import Permissions
from pfstorage.errors import LocalFileError, SettingsError
from pfstorage.server.token_making import new_token
from tests.support.tokens import rights_of

ANN = "ann-0123456789abcdef"


def test_a_token_alone_is_printed_without_lines() -> None:
    assert re.fullmatch("[A-Za-z0-9_-]{43}", new_token())


def test_the_content_of_the_file_stays_with_its_mode() -> None:
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
    with pytest.raises(SettingsError, match=r"use a name that ends in \.cfg"):
        new_token("read", path="tokens")
    with pytest.raises(SettingsError, match=r"use a name that ends in \.cfg"):
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


def test_a_token_is_added_to_a_regular_file_only() -> None:
    os.mkfifo("tokens")
    with pytest.raises(SettingsError, match=r"'.*tokens' is not a token file, but a directory or a device"):
        new_token(path="tokens")
