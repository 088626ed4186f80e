"""The tokens of those who may come in."""

from __future__ import annotations

import configparser
import hashlib
import hmac
import logging
import os
import secrets
import shlex
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pfstorage.errors import SettingsError, UnauthorizedError
from pfstorage.rights import Rights

log = logging.getLogger(__name__)

TOKENS, RIGHTS = "AUTH TOKENS", "TOKEN RIGHTS"
MOST_BYTES = 1024 * 1024
SHORT = 16
"""Characters below which a token can be guessed."""

FRESH_NS = 2_000_000_000
"""Nanoseconds after a change in which another may leave the file's time as it is: the coarsest
clock of a file system, FAT's, ticks every two seconds."""

_OPEN_TO_OTHERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP
_State = tuple[int, ...]


@dataclass(frozen=True)
class Grant:
    """What a token is worth: *name* is that of its line in the file, *rights* are what it allows."""

    name: str
    rights: Rights


def make_token() -> str:
    """Return a token of 256 random bits, of letters, digits, ``-`` and ``_``; no flag begins like it."""
    while (token := secrets.token_urlsafe(32)).startswith("-"):
        continue
    return token


class TokenFile:
    """The tokens in the file *path*, which is read again when it has changed: a token ends with its line.

    The file is UTF-8, and so are tokens in a request. One whose name ends in ``.cfg`` is INI:
    ``name = token`` in the section ``[AUTH TOKENS]``, and ``name = read | write | admin``, with a key
    prefix or without, in ``[TOKEN RIGHTS]``. Without that section, each token is for all. So it is
    in any other file, which has a token a line; blank lines and those that begin with ``#`` have none.
    While the file can't be read, nobody comes in. Safe in many threads.
    """

    def __init__(self, path: str) -> None:
        """Read the file. Raise `SettingsError`."""
        self._path = path
        self._lock = threading.Lock()
        self._state: _State | None = None  # None is to be read again
        self._complaint = ""
        self._grants: Mapping[bytes, Grant] = {}
        self._tokens: frozenset[str] = frozenset()
        self._read()

    def __repr__(self) -> str:
        return f"TokenFile({self._path!r})"

    def grant(self, authorization: str | None) -> Grant:
        """Return what the value of the header Authorization allows. Raise `UnauthorizedError`.

        *authorization* is as `http.client` gives it: each character is a byte.
        """
        self._read_if_changed()
        given = _presented(authorization or "")
        # a token is a secret, also with a slip of the pen: it is no local variable of what raises
        del authorization
        if given is None:
            raise UnauthorizedError(
                "the server asks for a token: send 'Authorization: Bearer TOKEN', as --authToken does"
            )
        found = self._found(given)
        if found is None and self._complaint:
            raise UnauthorizedError("the server can't read its tokens, and lets nobody in: its log tells why")
        if found is None:
            raise UnauthorizedError("the server does not know this token")
        return found

    def _found(self, given: bytes) -> Grant | None:
        found = None
        for known, grant in self._grants.items():  # all of them: the time tells nothing
            if hmac.compare_digest(given, known):
                found = grant
        return found

    def secrets(self) -> frozenset[str]:
        """Return the tokens, for whoever writes something to mask them.

        They are those that the file had when it last could be read.
        """
        return self._tokens

    def reload(self) -> None:
        """Read the file again, whether it has changed or not. What is wrong with it is logged, not raised."""
        with self._lock:
            self._state, self._complaint = None, ""
        self._read_if_changed()

    def _read_if_changed(self) -> None:
        with self._lock:
            try:
                if self._state is None or self._state != _state_of(os.stat(self._path)):
                    before = self._grants
                    self._read()
                    if self._grants != before:
                        log.info("the tokens have changed: %d are known", len(self._grants))
                    if self._complaint:
                        log.warning("the tokens in %r are good again", self._path)
                    self._complaint = ""
            except (OSError, SettingsError) as e:
                self._lock_out(str(e) if isinstance(e, SettingsError) else _unreadable(self._path, e))

    def _lock_out(self, complaint: str) -> None:
        if complaint != self._complaint:  # told once, not for each request
            log.error("nobody comes in any more: %s", complaint)
        self._state, self._complaint, self._grants = None, complaint, {}

    def _read(self) -> None:
        text, state = _text(self._path)
        tokens: dict[str, Grant] = {}
        read = _ini if self._path.endswith(".cfg") else _plain
        for token, grant in read(self._path, text):
            if token in tokens:
                raise SettingsError(f"{self._path!r} has a token twice")
            tokens[token] = grant
        if not tokens:
            raise SettingsError(f"{self._path!r} has no token: 'pfstorage --makeToken' makes one")
        short = [
            grant.name for token, grant in tokens.items() if token not in self._tokens and len(token) < SHORT
        ]
        if short:
            log.warning("%r: too short to be safe: %s", self._path, ", ".join(short))
        self._grants = {_digest(token.encode()): grant for token, grant in tokens.items()}
        self._tokens, self._state = frozenset(tokens), state


def _presented(authorization: str) -> bytes | None:
    """Return the digest of the token in the value of the header Authorization, None if it has none."""
    scheme, _, token = authorization.strip(" \t").partition(" ")
    token = token.strip(" \t")
    if scheme.lower() != "bearer" or not token:
        return None
    try:
        return _digest(token.encode("latin-1"))
    except UnicodeEncodeError:  # no header has such characters
        return b""


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _state_of(status: os.stat_result) -> _State:
    """Return what is another when the file is."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev


def _text(path: str) -> tuple[str, _State | None]:
    """Return what is in the file, and its state, None if it was changed just now.

    Raise `SettingsError`, too, if others can get at it. What is judged is what is read.
    """
    try:
        with open(path, encoding="utf-8-sig", opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            _check(path, status)
            text = file.read(MOST_BYTES + 1)  # whatever the system says of its size
            if len(text) > MOST_BYTES:
                raise _no_tokens(path)
    except OSError as e:
        raise SettingsError(_unreadable(path, e)) from e
    except UnicodeDecodeError:
        raise SettingsError(f"cannot read the tokens in {path!r}: it is not UTF-8") from None
    is_fresh = time.time_ns() - status.st_ctime_ns < FRESH_NS
    return text, None if is_fresh else _state_of(status)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # for who writes into a pipe


def _unreadable(path: str, error: OSError) -> str:
    return f"cannot read the tokens in {path!r}: {error.strerror}"


def _no_tokens(path: str) -> SettingsError:
    return SettingsError(f"{path!r} is no file of tokens: that has up to {MOST_BYTES} bytes")


def _check(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
        raise _no_tokens(path)
    if status.st_mode & _OPEN_TO_OTHERS:
        mode = 600 if status.st_uid == os.geteuid() else 640  # it is read by its group, then
        raise SettingsError(
            f"others can get at the tokens in {path!r}: run  chmod {mode} {shlex.quote(path)}"
        )


def _plain(path: str, text: str) -> Iterator[tuple[str, Grant]]:
    lines = [line.strip() for line in text.split("\n")]
    tokens = [line for line in lines if line and not line.startswith("#")]
    for number, token in enumerate(tokens, 1):  # each line would be a token for all rights
        if token.startswith("[") or " " in token or "\t" in token:
            text = f"{path!r}, line {number} of its tokens: a token has no blank, and an INI file is called *.cfg"
            raise SettingsError(text)
    # a name that stays when others go, and that only who has the token can tell
    return ((token, Grant(f"token {_digest(token.encode()).hex()[:8]}", Rights())) for token in tokens)


def _ini(path: str, text: str) -> Iterator[tuple[str, Grant]]:
    parser = _parsed(path, text)
    if not parser.has_section(TOKENS):
        raise SettingsError(f"{path!r} has no section [{TOKENS}]")
    tokens = dict(parser[TOKENS])
    for name, token in tokens.items():
        if not token or "\n" in token:  # an indented line belongs to the one before it
            raise SettingsError(f"{path!r}: {name!r} has no token, or more than one line of it")
    rights = _rights(path, tokens, dict(parser[RIGHTS])) if parser.has_section(RIGHTS) else {}
    return ((token, Grant(name, rights.get(name, Rights()))) for name, token in tokens.items())


def _parsed(path: str, text: str) -> configparser.ConfigParser:
    # as it is: no section gives others their values, no '%' has a meaning, and names keep their case
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), default_section="\n")
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        parser.read_string(text)
    except configparser.Error:  # whose text may quote a token
        raise SettingsError(f"{path!r} is no INI file, or has a section or a name twice") from None
    return parser


def _rights(path: str, tokens: Mapping[str, str], texts: Mapping[str, str]) -> dict[str, Rights]:
    if names := tokens.keys() - texts.keys():
        raise SettingsError(f"{path!r}: the section [{RIGHTS}] lacks {', '.join(sorted(names))}")
    if names := texts.keys() - tokens.keys():  # of tokens that were revoked, most likely
        log.warning("%r: there are rights and no token of %s", path, ", ".join(sorted(names)))
    rights = {}
    for name, text in texts.items():
        try:
            if "\n" in text:
                raise ValueError("rights are on one line")
            rights[name] = Rights.parse(text)
        except ValueError as e:
            raise SettingsError(f"{path!r}: [{RIGHTS}], {name!r}: {e}") from None
    return rights
