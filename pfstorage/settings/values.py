"""The text that a flag gives: it stands there itself, in ``@FILE``, or comes on stdin."""

from __future__ import annotations

import os
import sys
from select import POLLIN, poll

MOST_TEXT = 128 * 1024**2
"""Bytes of a message from a file: a list of a million files fits, what never ends does not."""


def text_of(value: str) -> str:
    """Return the text of a flag that may be ``@FILE`` or ``-`` for stdin."""
    from pfstorage.errors import MessageError
    from pfstorage.local import local_errors
    from pfstorage.wire.decoding import decoded

    if not is_elsewhere(value):
        return value
    try:
        if value == "-":
            if sys.stdin is None:
                raise MessageError("stdin is closed: there is no message to read")
            with local_errors("stdin"):
                return decoded(_bounded(sys.stdin.fileno()))
        with local_errors(value[1:]), open(value[1:], "rb", buffering=0) as file:
            return decoded(_bounded(file.fileno()))
    except UnicodeDecodeError:
        raise MessageError(f"what {value!r} holds is not UTF-8") from None


def secret_of(flag: str, value: str) -> str:
    """Return the secret that *flag* gives, "" if it was not given. Raise `SettingsError` if it can't be had.

    A file that is empty has none: to go on without would be to send the one that everybody knows.
    """
    from pfstorage.errors import LocalFileError, MessageError, SettingsError
    from pfstorage.settings.redaction import without_line_end

    try:
        secret = without_line_end(text_of(value))
    except (LocalFileError, MessageError) as e:
        raise SettingsError(f"{flag}: {e}") from e
    if value and not secret.strip():
        raise SettingsError(f"{flag}: there is nothing in it but blanks")
    if not secret.isprintable():
        raise SettingsError(
            f"{flag}: it takes one secret in one line, and this has several lines, or a control"
        )
    return secret


def is_elsewhere(value: str) -> bool:
    return value == "-" or value.startswith("@")


def _bounded(descriptor: int) -> bytes:
    """Return all that comes from *descriptor*, which others may have set not to block, as they may stdout."""
    from pfstorage.errors import MessageError

    text = bytearray()
    waiter = poll()
    waiter.register(descriptor, POLLIN)
    while True:
        try:
            if not (chunk := os.read(descriptor, 1024 * 1024)):
                return bytes(text)
        except BlockingIOError:
            waiter.poll()
            continue
        text += chunk
        if len(text) > MOST_TEXT:
            raise MessageError(f"the message is longer than {MOST_TEXT} bytes")
