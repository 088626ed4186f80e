"""Check tokens against a token file, and read the file again when it changes."""

from __future__ import annotations

import contextlib
import hashlib
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
from pfstorage.server.token_lines import RIGHTS, Grant, TokenFileError, digest_of, format_time, read_entries

__all__ = ["Grant", "TokenFile", "make_token"]

log = logging.getLogger(__name__)

MAX_BYTES = 1024 * 1024
# a token with fewer characters can be guessed
MIN_TOKEN_LENGTH = 16
# attempts to read a file that changes, or is replaced, during the read
READ_ATTEMPTS = 8
# Within this time after a change, a second change may leave the time of the file as it is. The coarsest clock of a file
# system, that of FAT, ticks every two seconds.
FRESH_NS = 2_000_000_000

_TokenFileVersion = tuple[int, ...]
_ACCESSIBLE_TO_OTHERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP


def make_token() -> str:
    """Return a token of 256 random bits, in letters, digits, ``-`` and ``_``. It does not begin like a flag."""
    while (token := secrets.token_urlsafe(32)).startswith("-"):
        continue
    return token


class TokenFile:
    """The tokens in the file *path*. A changed file is read again: a token is revoked by removing its line.

    The file and the tokens are UTF-8. A file whose name ends in ``.cfg`` is INI: ``name = token`` in the section
    ``[AUTH TOKENS]``, and ``name = read | write | admin``, with an optional key prefix, in ``[TOKEN RIGHTS]``. Without
    the second section, each token may write. Any other file has one token on each line, and each token may write; blank
    lines and lines that begin with ``#`` are ignored. ``sha256:HEX`` means the token with that hash, and
    ``expires=TIME`` may follow each token.

    While the file is not valid, the previous tokens stay valid. While the file can't be read, or other users can access
    it, no token is valid. Thread-safe.
    """

    def __init__(self, path: str) -> None:
        """Read the file. Raise `SettingsError`."""
        self._path = path
        self._lock = threading.Lock()
        self._version: _TokenFileVersion | None = None  # None: read the file again
        self._problem = ""
        self._digest = b""  # of the content that was read last
        self._reported: tuple[str, bytes] = (
            "",
            b"",
        )  # the last problem in the log, and the digest of its content
        self._reported_at = 0.0
        self._is_closed = False
        self._restricted: frozenset[bytes] = frozenset()  # tokens with a line in the section of rights
        self._warned: dict[str, set[str]] = {}
        self._grants: Mapping[bytes, Grant] = {}
        self._texts: dict[bytes, str] = {}  # by digest, for the tokens whose text is known
        self._secrets: frozenset[str] = frozenset()
        try:
            self._read()
        except OSError as e:
            raise SettingsError(_unreadable(path, e)) from e

    def __repr__(self) -> str:
        return f"TokenFile({self._path!r})"

    def grant(self, authorization: str | None) -> Grant:
        """Return the grant for the value of the header Authorization. Raise `UnauthorizedError`.

        Each character of *authorization* is a byte, as in the headers of `http.client`.
        """
        self._read_if_changed()
        digest = _digest_in(authorization or "")
        found = self._find(digest) if digest is not None else None
        if digest is not None and found is not None and digest not in self._texts:
            self._remember(digest, authorization or "")
        # Tracebacks may show local variables. Even a mistyped token is a secret.
        del authorization
        if digest is None:
            raise UnauthorizedError(
                "the server asks for a token: send 'Authorization: Bearer TOKEN', as --authToken does"
            )
        if found is None and self._is_closed:
            raise UnauthorizedError(
                "the server can't read its token file, so no token is valid: see the log of the server"
            )
        if found is None:
            raise UnauthorizedError("the server does not know this token: ask its operator for another")
        if found.expires <= time.time():
            raise UnauthorizedError(
                f"this token has expired, at {format_time(found.expires)}: ask for a new one"
            )
        return found

    def _find(self, digest: bytes) -> Grant | None:
        found = None
        for known, grant in self._grants.items():  # always all tokens, so that the time reveals nothing
            if hmac.compare_digest(digest, known):
                found = grant
        return found

    def _remember(self, digest: bytes, authorization: str) -> None:
        """Keep the text of a token whose hash is in the file, so that logs can mask it."""
        text = _token_in(authorization).encode("latin-1").decode(errors="replace")
        with self._lock:
            if digest in self._grants:
                self._set_texts({**self._texts, digest: text})

    def _set_texts(self, texts: dict[bytes, str]) -> None:
        self._texts, self._secrets = texts, frozenset(texts.values())

    def secrets(self) -> Set[str]:
        """Return the tokens of the last valid file, which logs and records must mask.

        A token whose hash is in the file is included after its first use.
        """
        return self._secrets

    def reload(self) -> None:
        """Read the file again even if it has not changed. Log its errors instead of raising them."""
        with self._lock:
            self._version, self._problem, self._reported = None, "", ("", b"")
        try:
            self._read_if_changed()
        except NoDescriptorError as e:  # the next request tries again
            log.warning("%s", e)

    def _read_if_changed(self) -> None:
        # without the lock, because most requests find the file unchanged
        with contextlib.suppress(OSError):
            if (version := self._version) is not None and version == _version_of(os.stat(self._path)):
                return
        with self._lock:
            self._digest = b""
            try:
                if self._version is None or self._version != _version_of(os.stat(self._path)):
                    self._read_again()
            except TokenFileError as e:
                (self._close if self._is_closed else self._keep)(str(e))
            except SettingsError as e:
                self._close(str(e))
            except OSError as e:
                if is_out_of_descriptors(e):  # passes soon; a 401 would make the client drop its token
                    raise NoDescriptorError(f"the tokens can't be read: {NO_DESCRIPTORS}") from None
                self._close(_unreadable(self._path, e))

    def _read_again(self) -> None:
        before = self._grants
        self._read()
        if self._grants != before:
            log.info("the tokens have changed: %d are known", len(self._grants))
        if self._problem:
            level = logging.WARNING if self._is_closed else logging.INFO
            log.log(level, "the token file %r is valid again", self._path)
        self._problem, self._reported, self._is_closed = "", ("", b""), False

    def _keep(self, problem: str) -> None:
        """Keep the previous tokens. Warn once of each content of the file, but not while it is being rewritten."""
        is_rewritten = self._version is None and time.monotonic() - self._reported_at < FRESH_NS / 1e9
        if (problem, self._digest) != self._reported and not (self._problem and is_rewritten):
            log.warning("the previous tokens stay valid: %s", problem)
            self._set_reported(problem)

    def _close(self, problem: str) -> None:
        if (problem, self._digest) != self._reported:
            log.error("no token is valid any more: %s", problem)
            self._set_reported(problem)
        self._version, self._is_closed = None, True
        self._grants = {}

    def _set_reported(self, problem: str) -> None:
        self._problem = problem
        self._reported, self._reported_at = (problem, self._digest), time.monotonic()

    def _read(self) -> None:
        self._version = None
        content, self._version = _read_token_file(self._path)
        self._digest = hashlib.sha256(content).digest()
        text = _decoded(self._path, content)
        entries, named = read_entries(self._path, text)
        if named is None and any(each.digest in self._restricted for each in entries):
            # The file may be half written. A token that may only read must not be able to write meanwhile.
            raise TokenFileError(
                f"{self._path!r} has no section {RIGHTS} any more: restore it, or restart the server"
            )
        short = {each.grant.name for each in entries if 0 < len(each.text) < MIN_TOKEN_LENGTH}
        self._warn("these tokens are too short to be safe:", short)
        names = {each.grant.name for each in entries}
        self._warn(f"these names in {RIGHTS} have no token:", set(named or ()) - names)
        self._grants = {each.digest: each.grant for each in entries}
        self._restricted = frozenset(self._grants) if named is not None else frozenset()
        seen = {digest: text for digest, text in self._texts.items() if digest in self._grants}
        self._set_texts({**seen, **{each.digest: each.text for each in entries if each.text}})

    def _warn(self, problem: str, names: set[str]) -> None:
        """Warn about *names* once, because the file may be read for each request."""
        if names - self._warned.get(problem, set()):
            log.warning("%r: %s %s", self._path, problem, ", ".join(sorted(names)))
        self._warned[problem] = names


def _token_in(authorization: str) -> str:
    """Return the token in the value of the header Authorization, "" if it has none."""
    scheme, _, token = authorization.strip(" \t").partition(" ")
    return token.strip(" \t") if scheme.lower() == "bearer" else ""


def _digest_in(authorization: str) -> bytes | None:
    """Return the digest of the token in the value of the header Authorization, or None if it has none."""
    try:
        return digest_of(token.encode("latin-1")) if (token := _token_in(authorization)) else None
    except UnicodeEncodeError:  # impossible in a header, but a caller may pass any text
        return b""


def _version_of(status: os.stat_result) -> _TokenFileVersion:
    """Return values of which at least one changes with the file."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev


def _read_token_file(path: str) -> tuple[bytes, _TokenFileVersion | None]:
    """Return the first `MAX_BYTES` + 1 bytes of the file, and its version, or None if it has changed just now.

    Raise `SettingsError`, also if other users can access the file. The checks apply to the file that is read, even if
    another one takes its name meanwhile.
    """
    try:
        for _ in range(READ_ATTEMPTS):
            content, status, after = _read_once(path)
            if _version_of(status) == _version_of(after):
                is_fresh = time.time_ns() - status.st_ctime_ns < FRESH_NS
                return content, None if is_fresh else _version_of(status)
    except OSError as e:
        if is_out_of_descriptors(e):
            raise
        raise SettingsError(_unreadable(path, e)) from e
    raise TokenFileError(f"{path!r} is written while it is read: replace it by a new file instead")


def _decoded(path: str, content: bytes) -> str:
    """Return the text of *content*, the start of the file *path*. Raise `TokenFileError`."""
    if len(content) > MAX_BYTES:
        raise TokenFileError(f"{path!r} is not a token file: such a file has at most {MAX_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TokenFileError(
            f"cannot read the tokens in {path!r}: it is not UTF-8; save it as UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_once(path: str) -> tuple[bytes, os.stat_result, os.stat_result]:
    """Return the start of the file, and its status before and after the read."""
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        _check_status(path, status)
        return file.read(MAX_BYTES + 1), status, os.fstat(file.fileno())


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # otherwise, a named pipe waits for a writer


def _unreadable(path: str, error: OSError) -> str:
    return f"cannot read the tokens in {path!r}: {error.strerror}"


def _check_status(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SettingsError(f"{path!r} is not a token file, but a directory or a device: see --tokenPath")
    if status.st_mode & _ACCESSIBLE_TO_OTHERS:
        mode = 600 if status.st_uid == os.geteuid() else 640  # the server reads it as a member of its group
        raise SettingsError(
            f"other users can access the tokens in {path!r}: run  chmod {mode} {shlex.quote(path)}"
        )
