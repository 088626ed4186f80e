"""A file of tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from pfstorage.access.permissions import Permissions
from pfstorage.server.tokens import TokenFile

TOKENS = """\
[AUTH TOKENS]
reader = r-0123456789abcdef%(x)s
Writer = w-0123456789abcdef
boss = b-0123456789abcdef
chief = c-0123456789abcdef

[TOKEN RIGHTS]
reader = read chris/feed_1/
Writer = write chris/feed_1/
boss = admin
chief = admin chris/feed_1/
"""


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    path = tmp_path / "tokens.cfg"
    path.write_text(TOKENS)
    path.chmod(0o600)
    return str(path)


def rights_of(token: str, path: str = "tokens.cfg") -> Permissions:
    return TokenFile(path).grant(f"Bearer {token}").permissions
