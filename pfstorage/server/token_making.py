"""``--makeToken``: a new token, and the lines that let in who has it."""

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
    RIGHTS,
    TOKENS,
    UNNAMED,
    digest_of,
    is_ini,
    moment_of,
    read_entries,
    told_moment,
)
from pfstorage.server.tokens import TokenFile, make_token


def new_token(level: str = "", prefix: str | None = None, expires: str = "", path: str = "") -> str:
    """Make a token with the rights *level*, "" for those of one without any, for keys with *prefix*, until *expires*.

    Add its lines to the file of tokens *path*, which is made if it is missing, and return the token; without *path*,
    return it with these lines if anything is said of its rights or its end. Raise `SettingsError`, `LocalFileError`.
    """
    rights, end = _rights(level, prefix), _end(expires)
    token = make_token()
    lines = _lines(token, rights, end)
    if path:
        with local_errors(path):
            _add(os.path.realpath(path), lines, rights)
    elif level or prefix or expires:
        return "\n".join([token, *(text for section in lines.items() for text in section)])
    return token


def _rights(level: str, prefix: str | None) -> Permissions:
    if prefix is not None and (not prefix or prefix != prefix.strip()):  # an unset variable, most likely
        raise SettingsError(
            "--prefix is empty, or has blanks around it: leave it out for all keys, or correct it"
        )
    try:
        return Permissions.parse(f"{level or UNNAMED.level} {prefix or ''}")
    except ValueError as e:
        raise SettingsError(f"--prefix: {e}") from None


def _end(expires: str) -> float:
    try:
        end = moment_of(expires) if expires else math.inf
    except ValueError as e:
        raise SettingsError(f"--expires: {e}") from None
    if end <= time.time():
        raise SettingsError(f"--expires: {told_moment(end)} is over; name a later time")
    return end


def _lines(token: str, rights: Permissions, end: float) -> dict[str, str]:
    """Return the line of a new token in each section; it has the hash instead of the token."""
    digest = digest_of(token.encode()).hex()
    until = "" if end == math.inf else f" expires={told_moment(end)}"
    name = f"token-{digest[:8]}"
    return {
        TOKENS: f"{name} = sha256:{digest}{until}",
        RIGHTS: f"{name} = {rights.level} {rights.prefix}".rstrip(),
    }


def _add(path: str, lines: dict[str, str], rights: Permissions) -> None:
    directory, name = os.path.split(path)
    with _alone_in(directory):
        is_there = os.path.exists(path)
        text = _checked_text(path) if is_there else ""
        entries, named = read_entries(path, text) if text else ([], None)
        if is_ini(path):
            if named is None:  # with the section, each token needs a line there
                others = [f"{each.grant.name} = {UNNAMED.level}" for each in entries]
                lines = {**lines, RIGHTS: "\n".join([*others, lines[RIGHTS]])}
            text = _with_lines(text, lines)
        elif rights == UNNAMED:
            text += lines[TOKENS].partition(" = ")[2] + "\n"
        else:
            raise SettingsError(
                f"{path!r} takes no rights, as an INI file does: give it a name that ends in .cfg"
            )
        read_entries(path, text)
        # the group may read one that is there, and goes on to
        with LocalTree(directory).atomic_file((name,), mode=0o640 if is_there else 0o600) as file:
            file.write(text.encode())


def _checked_text(path: str) -> str:
    """Return what is in the file, "" if it is still empty. Raise `SettingsError` if a server would not take it."""
    if os.path.getsize(path):
        TokenFile(path)
    with open(path, encoding="utf-8-sig") as file:
        return file.read()


def _with_lines(text: str, lines: Mapping[str, str]) -> str:
    """Return *text*, an INI file, with each of *lines* at the end of its section.

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
def _alone_in(directory: str) -> Iterator[None]:
    """Wait until no other process adds a token to a file in *directory*: one of both lines would be lost."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
