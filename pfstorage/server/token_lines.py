"""The text of a file of tokens: what its lines say, and the lines of a new token."""

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
UNNAMED = Permissions("write")
"""The rights of a token in a file that does not say which: those of an administrator are always written."""

_Lines = list[tuple[int, str]]
_Section = dict[str, tuple[int, str]]
_Refused = Callable[[int, str], "RefusedError"]

_HASH = re.compile("sha256:([0-9a-f]{64})", re.IGNORECASE)
# such as SHA256=, sha512:, sha-256-, {SSHA}, $2b$ and $argon2id$
_LIKE_HASH = re.compile(r"\{?(s?sha|md)[-_]?\d*\W|\$[a-z0-9-]+\$", re.IGNORECASE)
_VALUE = re.compile(r"(\S+)(?:\s+expires\s*=\s*(.+))?")
_WHEN = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?)?", re.IGNORECASE)


class RefusedError(SettingsError):
    """The text of a file of tokens is not valid, or not yet whole."""


@dataclass(frozen=True)
class Grant:
    """What a token is worth: *name* is that of its line in the file, *permissions* are what it allows.

    *expires* is the time, in seconds since the epoch, from which on it is worth nothing.
    """

    name: str
    permissions: Permissions
    expires: float = math.inf


@dataclass(frozen=True)
class Entry:
    """A token in a file, in the line *line*: its SHA-256, and its text, "" where the file has the hash alone."""

    digest: bytes
    text: str
    grant: Grant
    line: int


def digest_of(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def is_ini(path: str) -> bool:
    """Tell whether a file of tokens is read as INI."""
    return path.endswith(".cfg")


def read_entries(path: str, text: str) -> tuple[list[Entry], list[str] | None]:
    """Return the tokens in *text*, that of the file *path*, and the names in the section of their rights.

    These are None without that section. There may be more of them than tokens, since those are revoked by their line.

    Raise `RefusedError`, which names the line and quotes no value.
    """

    def refused(number: int, reason: str) -> RefusedError:
        return RefusedError(f"{path!r}, line {number}: {reason}")

    lines = list(enumerate(text.split("\n"), 1))
    if lines[-1][1]:
        raise refused(len(lines), "the file ends in the middle of this line: end it with a line break")
    for number, line in lines:
        if not line.replace("\t", " ").isprintable():
            raise refused(number, "it has a control character: remove that")
    if is_ini(path):
        sections = _sections(_told(lines, "#;"), refused)
        if TOKENS not in sections:
            raise RefusedError(f"{path!r} has no section {TOKENS}")
        permissions = sections.get(RIGHTS)
        entries = list(_named(sections[TOKENS], permissions, refused))
    else:
        permissions = None
        entries = [_unnamed(number, line, refused) for number, line in _told(lines, "#")]
    if not entries:
        raise RefusedError(f"{path!r} has no token: 'pfstorage --makeToken' makes one")
    known = set()
    for entry in entries:
        if entry.digest in known:
            raise refused(entry.line, "a token twice: remove the line, or give it another token")
        known.add(entry.digest)
    return entries, None if permissions is None else list(permissions)


def _told(lines: _Lines, comments: str) -> _Lines:
    return [(number, line) for number, line in lines if line.strip() and line.lstrip()[0] not in comments]


def _unnamed(number: int, line: str, refused: _Refused) -> Entry:
    if line.lstrip().startswith("["):
        raise refused(number, "an INI file of tokens is called *.cfg: rename it")
    entry = _entry("", (number, line.strip()), UNNAMED, refused)
    # a name that stays when others go, and that only who has the token can tell
    named = dataclasses.replace(entry.grant, name=f"token {entry.digest.hex()[:8]}")
    return dataclasses.replace(entry, grant=named)


def _sections(lines: _Lines, refused: _Refused) -> dict[str, _Section]:
    """Return the names in each section, with the number of their line and their value."""
    sections: dict[str, _Section] = {}
    section: _Section | None = None
    for number, line in lines:
        if line[0] in " \t":  # other readers of INI take it for more of the value above
            raise refused(number, "the line begins with a blank: remove that")
        if line.startswith("["):
            title = line.rstrip()
            if title not in (TOKENS, RIGHTS):
                raise refused(number, f"an unknown section: there are {TOKENS} and {RIGHTS}, in capitals")
            if title in sections:
                raise refused(number, "a section or a name twice: put the lines of both together")
            section = sections[title] = {}
            continue
        name, sign, value = (part.strip() for part in line.partition("="))
        if section is None or not sign or not name:
            raise refused(number, f"this is no INI file: write 'NAME = VALUE' in a section, such as {TOKENS}")
        if name in section:
            raise refused(number, "a section or a name twice: remove the line, or give it another name")
        section[name] = number, value
    return sections


def _named(tokens: _Section, texts: _Section | None, refused: _Refused) -> Iterator[Entry]:
    permissions = {}
    if texts is not None:
        if names := sorted(tokens.keys() - texts.keys()):
            text = f"give each token its rights, like 'NAME = read': the section {RIGHTS} lacks"
            raise refused(tokens[names[0]][0], f"{text} {', '.join(names)}")
        permissions = {name: _rights(line, refused) for name, line in texts.items()}
    return (_entry(name, line, permissions.get(name, UNNAMED), refused) for name, line in tokens.items())


def _rights(line: tuple[int, str], refused: _Refused) -> Permissions:
    number, text = line
    if re.search(r"(^|\s)expires\s*[=:]", text, re.IGNORECASE):  # it would be a part of the prefix
        raise refused(number, f"'expires=' follows the token, in the section {TOKENS}")
    try:
        return Permissions.parse(text)
    except ValueError as e:
        raise refused(number, str(e)) from None


def _entry(name: str, line: tuple[int, str], permissions: Permissions, refused: _Refused) -> Entry:
    """Read ``TOKEN`` or ``sha256:HEX``, and ``expires=WHEN`` behind it if that is there."""
    number, value = line
    found = _VALUE.fullmatch(value)
    if found is None:
        takes = "'NAME = TOKEN' in a file that is called *.cfg, and 'TOKEN' in others"
        raise refused(number, f"a line is {takes}; a token has no blank, and 'expires=DATE' may follow it")
    token, when = found[1], found[2]
    if hashed := _HASH.fullmatch(token):
        digest, text = bytes.fromhex(hashed[1]), ""
    elif token in LEVELS or re.search("expires\\W", token, re.IGNORECASE):  # anybody could guess it
        raise refused(number, "its token is a word of these files: a line is 'NAME = TOKEN expires=DATE'")
    elif _LIKE_HASH.match(token):  # whoever reads the file could come in with it
        raise refused(number, "a hash is 'sha256:' and 64 hexadecimal digits")
    else:
        digest, text = digest_of(token.encode()), token
    try:
        return Entry(digest, text, Grant(name, permissions, moment_of(when) if when else math.inf), number)
    except ValueError as e:
        raise refused(number, str(e)) from None


def moment_of(text: str) -> float:
    """Return the seconds since the epoch at the ISO 8601 date or time *text*, of UTC if it says no other.

    A date is the first moment of its day. Raise `ValueError`.

    >>> moment_of("1970-01-02"), moment_of("1970-01-01T01:00Z"), moment_of("1970-01-01 01:00:00+01:00")
    (86400.0, 3600.0, 0.0)
    """
    text = text.strip()
    try:
        if not _WHEN.fullmatch(text):
            raise ValueError
        moment = datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
        moment = moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError):  # a day before the first year, or after the last one
        raise ValueError(
            "'expires' takes a date or a time of UTC, like 2030-12-31 or 2030-12-31T18:00Z"
        ) from None
    return moment.timestamp()


def told_moment(seconds: float) -> str:
    """Return the time *seconds* after the epoch as a file of tokens has it.

    >>> told_moment(86400.0)
    '1970-01-02T00:00:00Z'
    """
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
