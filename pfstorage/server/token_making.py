"""``--makeToken``: make a new token, and add its lines to a token file."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import time
from collections.abc import Iterator, Mapping

from pfstorage.access.permissions import Permissions
from pfstorage.errors import SettingsError
from pfstorage.local import LocalTree, local_errors
from pfstorage.server.token_lines import (
    DEFAULT_PERMISSIONS,
    RIGHTS,
    TOKENS,
    digest_of,
    format_time,
    is_ini,
    parse_time,
    read_entries,
)
from pfstorage.server.tokens import TokenFile, make_token


def new_token(level: str = "", prefix: str | None = None, expires: str = "", path: str = "") -> str:
    """Make a token with the rights *level* for keys with *prefix*, valid until *expires*, and return it.

    Without *level*, the token may write. With *path*, add its lines to that token file, and create the file if it is
    missing. Without *path*, the returned text includes the lines if *level*, *prefix* or *expires* is given. Raise
    `SettingsError` or `LocalFileError`.
    """
    permissions, end = _permissions(level, prefix), _end(expires)
    token = make_token()
    lines = _lines(token, permissions, end)
    if path:
        with local_errors(path):
            _add_to_file(os.path.realpath(path), lines, permissions)
    elif level or prefix or expires:
        return "\n".join([token, *(text for section in lines.items() for text in section)])
    return token


def _permissions(level: str, prefix: str | None) -> Permissions:
    if prefix is not None and (not prefix or prefix != prefix.strip()):  # often an unset shell variable
        raise SettingsError(
            "--prefix is empty, or has blanks around it: leave it out for all keys, or correct it"
        )
    try:
        return Permissions.parse(f"{level or DEFAULT_PERMISSIONS.level} {prefix or ''}")
    except ValueError as e:
        raise SettingsError(f"--prefix: {e}") from None


def _end(expires: str) -> float:
    try:
        end = parse_time(expires) if expires else math.inf
    except ValueError as e:
        raise SettingsError(f"--expires: {e}") from None
    if end <= time.time():
        raise SettingsError(f"--expires: {format_time(end)} is over; name a later time")
    return end


def _lines(token: str, permissions: Permissions, end: float) -> dict[str, str]:
    """Return the line of a new token in each section. The lines have the hash instead of the token."""
    digest = digest_of(token.encode()).hex()
    until = "" if end == math.inf else f" expires={format_time(end)}"
    name = f"token-{digest[:8]}"
    return {
        TOKENS: f"{name} = sha256:{digest}{until}",
        RIGHTS: f"{name} = {permissions.level} {permissions.prefix}".rstrip(),
    }


def _add_to_file(path: str, lines: dict[str, str], permissions: Permissions) -> None:
    directory, name = os.path.split(path)
    with _locked(directory):
        exists = os.path.exists(path)
        text = _checked_text(path) if exists else ""
        entries, named = read_entries(path, text) if text else ([], None)
        if is_ini(path):
            if named is None:  # once the section exists, each token needs a line in it
                others = [f"{each.grant.name} = {DEFAULT_PERMISSIONS.level}" for each in entries]
                lines = {**lines, RIGHTS: "\n".join([*others, lines[RIGHTS]])}
            text = _with_lines(text, lines)
        elif permissions == DEFAULT_PERMISSIONS:
            text += lines[TOKENS].partition(" = ")[2] + "\n"
        else:
            raise SettingsError(
                f"{path!r} is not an INI file, and can't hold rights: use a name that ends in .cfg"
            )
        read_entries(path, text)
        # the group of an existing file may need to read it
        with LocalTree(directory).atomic_file((name,), mode=0o640 if exists else 0o600) as file:
            file.write(text.encode())


def _checked_text(path: str) -> str:
    """Return the text of the file. Raise `SettingsError` if a server would refuse the file, unless it is empty."""
    if not os.path.isfile(path):
        raise SettingsError(f"{path!r} is not a token file, but a directory or a device: see --tokenPath")
    if os.path.getsize(path):
        TokenFile(path)
    with open(path, encoding="utf-8-sig") as file:
        return file.read()


def _with_lines(text: str, lines: Mapping[str, str]) -> str:
    """Return *text*, an INI file, with each line of *lines* added at the end of its section.

    >>> _with_lines("[a]\\nx = 1\\n\\n[b]\\n", {"[a]": "y = 2", "[c]": "z = 3"})
    '[a]\\nx = 1\\ny = 2\\n\\n[b]\\n\\n[c]\\nz = 3\\n'
    """
    rows = text.rstrip().split("\n") if text.strip() else []
    for title, line in lines.items():
        titles = [row.rstrip() for row in rows]
        if title not in titles:
            rows += ["", title, line] if rows else [title, line]
            continue
        start = titles.index(title) + 1
        end = next((n for n in range(start, len(rows)) if rows[n].startswith("[")), len(rows))
        while not titles[end - 1]:
            end -= 1
        rows.insert(end, line)
    return "\n".join([*rows, ""])


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Lock *directory*, so that two processes do not add a token at the same time and lose one of them."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
