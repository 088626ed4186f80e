"""Parse the text of a token file."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

from pfstorage.access.permissions import LEVELS, Permissions
from pfstorage.errors import SettingsError

TOKENS, RIGHTS = "[AUTH TOKENS]", "[TOKEN RIGHTS]"
# the permissions of a token in a file without rights; the level ``admin`` must be written
DEFAULT_PERMISSIONS = Permissions("write")

# lines with their numbers
_Lines = list[tuple[int, str]]
_Section = dict[str, tuple[int, str]]
# makes the error for a line from its number and a problem
_MakeError = Callable[[int, str], "TokenFileError"]

_HASH = re.compile("sha256:([0-9a-f]{64})", re.IGNORECASE)
# such as SHA256=, sha512:, sha-256-, {SSHA}, $2b$ and $argon2id$
_LIKE_HASH = re.compile(r"\{?(s?sha|md)[-_]?\d*\W|\$[a-z0-9-]+\$", re.IGNORECASE)
_VALUE = re.compile(r"(\S+)(?:\s+expires\s*=\s*(.+))?")
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?)?", re.IGNORECASE)


class TokenFileError(SettingsError):
    """The text of a token file is not valid, or incomplete."""


@dataclass(frozen=True)
class Grant:
    """The name and the permissions of a token. It is valid until *expires*, in seconds since the epoch."""

    name: str
    permissions: Permissions
    expires: float = math.inf


@dataclass(frozen=True)
class Entry:
    """A token in line *line* of a file: its SHA-256, and its text, or "" if the file has only the hash."""

    digest: bytes
    text: str
    grant: Grant
    line: int


def digest_of(token: bytes) -> bytes:
    """Return the SHA-256 of *token*."""
    return hashlib.sha256(token).digest()


def is_ini(path: str) -> bool:
    """Return whether the token file *path* is read as INI."""
    return path.endswith(".cfg")


def read_entries(path: str, text: str) -> tuple[list[Entry], list[str] | None]:
    """Return the tokens in *text*, the content of the file *path*, and the names in the section of rights.

    The names are None without that section. A name may have no token any more. Raise `TokenFileError`, which names the
    line and quotes no value.
    """

    def error(number: int, problem: str) -> TokenFileError:
        return TokenFileError(f"{path!r}, line {number}: {problem}")

    lines = list(enumerate(text.split("\n"), 1))
    if lines[-1][1]:
        raise error(len(lines), "the file ends in the middle of this line: end it with a line break")
    for number, line in lines:
        if not line.replace("\t", " ").isprintable():
            raise error(number, "the line has a control character: remove it")
    if is_ini(path):
        sections = _read_sections(_without_comments(lines, "#;"), error)
        if TOKENS not in sections:
            raise TokenFileError(f"{path!r} has no section {TOKENS}: add it")
        rights = sections.get(RIGHTS)
        entries = list(_ini_entries(sections[TOKENS], rights, error))
    else:
        rights = None
        entries = [_plain_entry(number, line, error) for number, line in _without_comments(lines, "#")]
    if not entries:
        raise TokenFileError(f"{path!r} has no token: 'pfstorage --makeToken' makes one")
    known = set()
    for entry in entries:
        if entry.digest in known:
            raise error(entry.line, "the token is in the file twice: remove the line, or use another token")
        known.add(entry.digest)
    return entries, None if rights is None else list(rights)


def _without_comments(lines: _Lines, comments: str) -> _Lines:
    return [(number, line) for number, line in lines if line.strip() and line.lstrip()[0] not in comments]


def _plain_entry(number: int, line: str, error: _MakeError) -> Entry:
    if line.lstrip().startswith("["):
        raise error(number, "the name of an INI file of tokens must end in .cfg: rename the file")
    entry = _entry("", (number, line.strip()), DEFAULT_PERMISSIONS, error)
    # The name does not depend on the other lines, and can only be computed from the token.
    named = dataclasses.replace(entry.grant, name=f"token {entry.digest.hex()[:8]}")
    return dataclasses.replace(entry, grant=named)


def _read_sections(lines: _Lines, error: _MakeError) -> dict[str, _Section]:
    """Return the names in each section, with their line numbers and values."""
    sections: dict[str, _Section] = {}
    section: _Section | None = None
    for number, line in lines:
        if line[0] in " \t":  # other INI parsers append such a line to the value above
            raise error(number, "the line begins with a blank: remove it")
        if line.startswith("["):
            title = line.rstrip()
            if title not in (TOKENS, RIGHTS):
                raise error(number, f"an unknown section: use {TOKENS} and {RIGHTS}, in capitals")
            if title in sections:
                raise error(number, "the section is in the file twice: merge both")
            section = sections[title] = {}
            continue
        name, sign, value = (part.strip() for part in line.partition("="))
        if section is None or not sign or not name:
            raise error(
                number, f"not a line of an INI file: write 'NAME = VALUE' in a section, such as {TOKENS}"
            )
        if name in section:
            raise error(number, "the name is in the section twice: remove the line, or use another name")
        section[name] = number, value
    return sections


def _ini_entries(tokens: _Section, rights: _Section | None, error: _MakeError) -> Iterator[Entry]:
    permissions = {}
    if rights is not None:
        if names := sorted(tokens.keys() - rights.keys()):
            text = f"give each token its rights, like 'NAME = read': the section {RIGHTS} lacks"
            raise error(tokens[names[0]][0], f"{text} {', '.join(names)}")
        permissions = {name: _parse_rights(line, error) for name, line in rights.items()}
    return (
        _entry(name, line, permissions.get(name, DEFAULT_PERMISSIONS), error) for name, line in tokens.items()
    )


def _parse_rights(line: tuple[int, str], error: _MakeError) -> Permissions:
    number, text = line
    if re.search(r"(^|\s)expires\s*[=:]", text, re.IGNORECASE):  # otherwise part of the prefix
        raise error(number, f"move 'expires=' behind the token, into the section {TOKENS}")
    try:
        return Permissions.parse(text)
    except ValueError as e:
        raise error(number, str(e)) from None


def _entry(name: str, line: tuple[int, str], permissions: Permissions, error: _MakeError) -> Entry:
    """Parse ``TOKEN`` or ``sha256:HEX``, and ``expires=TIME`` after it."""
    number, value = line
    found = _VALUE.fullmatch(value)
    if found is None:
        form = "'NAME = TOKEN' in a file *.cfg, and 'TOKEN' in others"
        raise error(number, f"write {form}; a token has no blank, and 'expires=DATE' may follow it")
    token, expires = found[1], found[2]
    if hashed := _HASH.fullmatch(token):
        digest, text = bytes.fromhex(hashed[1]), ""
    elif token in LEVELS or re.search("expires\\W", token, re.IGNORECASE):  # easy to guess
        raise error(number, "the token is a keyword of token files: write 'NAME = TOKEN expires=DATE'")
    elif _LIKE_HASH.match(token):  # as a token, this would give access to every reader of the file
        raise error(number, "the hash is not supported: write 'sha256:' and 64 hexadecimal digits")
    else:
        digest, text = digest_of(token.encode()), token
    try:
        end = parse_time(expires) if expires else math.inf
    except ValueError as e:
        raise error(number, str(e)) from None
    return Entry(digest, text, Grant(name, permissions, end), number)


def parse_time(text: str) -> float:
    """Return the seconds since the epoch at the ISO 8601 date or time *text*. It is UTC unless it has another zone.

    A date is the first moment of its day. Raise `ValueError`.

    >>> parse_time("1970-01-02"), parse_time("1970-01-01T01:00Z"), parse_time("1970-01-01 01:00:00+01:00")
    (86400.0, 3600.0, 0.0)
    """
    text = text.strip()
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        moment = datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
        moment = moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError):  # also for a day before the first year, or after the last one
        raise ValueError(
            "'expires' takes a date or a time in UTC, like 2030-12-31 or 2030-12-31T18:00Z"
        ) from None
    return moment.timestamp()


def format_time(seconds: float) -> str:
    """Return the time *seconds* after the epoch as text for a token file.

    >>> format_time(86400.0)
    '1970-01-02T00:00:00Z'
    """
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
