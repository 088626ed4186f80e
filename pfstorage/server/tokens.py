"""The tokens of those who may come in."""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import secrets
import shlex
import stat
import threading
import time
from collections.abc import Mapping, Set

from pfstorage.errors import NoDescriptorError, SettingsError, UnauthorizedError
from pfstorage.runtime.unexpected import NO_DESCRIPTORS, is_out_of_descriptors
from pfstorage.server.token_lines import RIGHTS, Grant, RefusedError, digest_of, read_entries, told_moment

__all__ = ["Grant", "TokenFile", "make_token"]

log = logging.getLogger(__name__)

MOST_BYTES = 1024 * 1024
SHORT = 16
"""Characters below which a token can be guessed."""

TRIES = 8
"""How often a file is read at once that changes meanwhile, also by another one that takes its name."""

FRESH_NS = 2_000_000_000
"""Nanoseconds after a change in which another may leave the file's time as it is: the coarsest
clock of a file system, FAT's, ticks every two seconds."""

_State = tuple[int, ...]
_OPEN_TO_OTHERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP


def make_token() -> str:
    """Return a token of 256 random bits, of letters, digits, ``-`` and ``_``; no flag begins like it."""
    while (token := secrets.token_urlsafe(32)).startswith("-"):
        continue
    return token


class TokenFile:
    """The tokens in the file *path*, which is read again when it has changed: a token ends with its line.

    The file is UTF-8, and so are tokens in a request. One whose name ends in ``.cfg`` is INI:
    ``name = token`` in the section ``[AUTH TOKENS]``, and ``name = read | write | admin``, with a key
    prefix or without, in ``[TOKEN RIGHTS]``. Without that section, each token may write. So it is
    in any other file, which has a token a line; blank lines and those that begin with ``#`` have none.
    ``sha256:HEX`` stands for the token of that hash, and ``expires=WHEN`` may follow each.

    While the file is not valid, what it said before holds. While it can't be read, or others can get at
    it, nobody comes in. Safe in many threads.
    """

    def __init__(self, path: str) -> None:
        """Read the file. Raise `SettingsError`."""
        self._path = path
        self._lock = threading.Lock()
        self._state: _State | None = None  # None is to be read again
        self._complaint = ""
        self._is_closed = False
        self._bound: frozenset[bytes] = frozenset()  # tokens that had a line in the section of rights
        self._warned: dict[str, set[str]] = {}
        self._grants: Mapping[bytes, Grant] = {}
        self._texts: dict[bytes, str] = {}  # of tokens, as far as they are known
        self._secrets: frozenset[str] = frozenset()
        try:
            self._read()
        except OSError as e:
            raise SettingsError(_unreadable(path, e)) from e

    def __repr__(self) -> str:
        return f"TokenFile({self._path!r})"

    def grant(self, authorization: str | None) -> Grant:
        """Return what the value of the header Authorization allows. Raise `UnauthorizedError`.

        *authorization* is as `http.client` gives it: each character is a byte.
        """
        self._read_if_changed()
        given = _presented(authorization or "")
        found = self._found(given) if given is not None else None
        if given is not None and found is not None and given not in self._texts:
            self._remember(given, authorization or "")
        # a token is a secret, also with a slip of the pen: it is no local variable of what raises
        del authorization
        if given is None:
            raise UnauthorizedError(
                "the server asks for a token: send 'Authorization: Bearer TOKEN', as --authToken does"
            )
        if found is None and self._is_closed:
            raise UnauthorizedError("the server can't read its tokens, and lets nobody in: its log tells why")
        if found is None:
            raise UnauthorizedError("the server does not know this token")
        if found.expires <= time.time():
            raise UnauthorizedError(
                f"this token has expired, at {told_moment(found.expires)}: ask for a new one"
            )
        return found

    def _found(self, given: bytes) -> Grant | None:
        found = None
        for known, grant in self._grants.items():  # all of them: the time tells nothing
            if hmac.compare_digest(given, known):
                found = grant
        return found

    def _remember(self, digest: bytes, authorization: str) -> None:
        """Keep the text of a token whose hash alone is in the file, for whoever masks it."""
        text = _token_in(authorization).encode("latin-1").decode(errors="replace")
        with self._lock:
            if digest in self._grants:
                self._know({**self._texts, digest: text})

    def _know(self, texts: dict[bytes, str]) -> None:
        self._texts, self._secrets = texts, frozenset(texts.values())

    def secrets(self) -> Set[str]:
        """Return the tokens, for whoever writes something to mask them.

        They are those that the file had when it was last valid. One that it has as a hash alone is known
        from the first time on that somebody sends it.
        """
        return self._secrets

    def reload(self) -> None:
        """Read the file again, whether it has changed or not. What is wrong with it is logged, not raised."""
        with self._lock:
            self._state, self._complaint = None, ""
        try:
            self._read_if_changed()
        except NoDescriptorError as e:  # the next request reads it
            log.warning("%s", e)

    def _read_if_changed(self) -> None:
        # most often it has not changed, and many requests ask at once: none waits for another then
        with contextlib.suppress(OSError):
            if (state := self._state) is not None and state == _state_of(os.stat(self._path)):
                return
        with self._lock:
            try:
                if self._state is None or self._state != _state_of(os.stat(self._path)):
                    self._read_again()
            except RefusedError as e:
                (self._close if self._is_closed else self._keep)(str(e))
            except SettingsError as e:
                self._close(str(e))
            except OSError as e:
                if is_out_of_descriptors(e):  # that passes: nobody is told that their token is not known
                    raise NoDescriptorError(f"the tokens can't be read: {NO_DESCRIPTORS}") from None
                self._close(_unreadable(self._path, e))

    def _read_again(self) -> None:
        before = self._grants
        self._read()
        if self._grants != before:
            log.info("the tokens have changed: %d are known", len(self._grants))
        if self._complaint:
            level = logging.WARNING if self._is_closed else logging.INFO
            log.log(level, "the tokens in %r are good again", self._path)
        self._complaint, self._is_closed = "", False

    def _keep(self, complaint: str) -> None:
        """Warn that the file is refused, once: not for each request, nor for each state of one that is rewritten."""
        is_rewritten = self._complaint and self._state is None
        if complaint != self._complaint and not is_rewritten:
            log.warning("the tokens stay as they were: %s", complaint)
            self._complaint = complaint

    def _close(self, complaint: str) -> None:
        if complaint != self._complaint:
            log.error("nobody comes in any more: %s", complaint)
        self._state, self._complaint, self._is_closed = None, complaint, True
        self._grants = {}

    def _read(self) -> None:
        text, self._state = _text(self._path)
        entries, named = read_entries(self._path, text)
        if named is None and any(each.digest in self._bound for each in entries):
            # the rest may be on its way, and a token that may read would write until it is there
            raise RefusedError(
                f"{self._path!r} has no section {RIGHTS} any more: give it back, or start the server anew"
            )
        self._warn(
            "too short to be safe:", {each.grant.name for each in entries if 0 < len(each.text) < SHORT}
        )
        names = {each.grant.name for each in entries}  # a token is revoked by its line alone
        self._warn("there are rights and no token of", set(named or ()) - names)
        self._grants = {each.digest: each.grant for each in entries}
        self._bound = frozenset(self._grants) if named is not None else frozenset()
        seen = {digest: text for digest, text in self._texts.items() if digest in self._grants}
        self._know({**seen, **{each.digest: each.text for each in entries if each.text}})

    def _warn(self, what: str, names: set[str]) -> None:
        """Warn of *names*, once: the file may be read for each request."""
        if names - self._warned.get(what, set()):
            log.warning("%r: %s %s", self._path, what, ", ".join(sorted(names)))
        self._warned[what] = names


def _token_in(authorization: str) -> str:
    """Return the token in the value of the header Authorization, "" if it has none."""
    scheme, _, token = authorization.strip(" \t").partition(" ")
    return token.strip(" \t") if scheme.lower() == "bearer" else ""


def _presented(authorization: str) -> bytes | None:
    """Return the digest of the token in the value of the header Authorization, None if it has none."""
    try:
        return digest_of(token.encode("latin-1")) if (token := _token_in(authorization)) else None
    except UnicodeEncodeError:  # no header has such characters
        return b""


def _state_of(status: os.stat_result) -> _State:
    """Return what is another when the file is."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev


def _text(path: str) -> tuple[str, _State | None]:
    """Return what is in the file, and its state, None if it was changed just now.

    Raise `SettingsError`, too, if others can get at it. What is judged is what is read.
    """
    try:
        for _ in range(TRIES):
            text, status, after = _read_once(path)
            if _state_of(status) == _state_of(after):
                is_fresh = time.time_ns() - status.st_ctime_ns < FRESH_NS
                return text, None if is_fresh else _state_of(status)
    except OSError as e:
        if is_out_of_descriptors(e):
            raise
        raise SettingsError(_unreadable(path, e)) from e
    except UnicodeDecodeError:
        raise RefusedError(f"cannot read the tokens in {path!r}: it is not UTF-8") from None
    raise RefusedError(f"{path!r} is written while it is read: put a new file in its place instead")


def _read_once(path: str) -> tuple[str, os.stat_result, os.stat_result]:
    """Return what is in the file, and its status before and after it was read."""
    with open(path, encoding="utf-8-sig", opener=_without_waiting) as file:
        status = os.fstat(file.fileno())
        _check(path, status)
        text = file.read(MOST_BYTES + 1)  # whatever the system says of its size
        if len(text) > MOST_BYTES:
            raise _too_large(path)
        return text, status, os.fstat(file.fileno())


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # for who writes into a pipe


def _unreadable(path: str, error: OSError) -> str:
    return f"cannot read the tokens in {path!r}: {error.strerror}"


def _check(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SettingsError(f"{path!r} is no file of tokens, but a directory or a device")
    if status.st_size > MOST_BYTES:
        raise _too_large(path)
    if status.st_mode & _OPEN_TO_OTHERS:
        mode = 600 if status.st_uid == os.geteuid() else 640  # it is read by its group, then
        raise SettingsError(
            f"others can get at the tokens in {path!r}: run  chmod {mode} {shlex.quote(path)}"
        )


def _too_large(path: str) -> RefusedError:
    return RefusedError(f"{path!r} is no file of tokens: that has up to {MOST_BYTES} bytes")
