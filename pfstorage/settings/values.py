"""Read the value of a flag: from the flag itself, from ``@FILE`` or from stdin. Read small files whole."""

from __future__ import annotations

import os
import sys
from select import POLLIN, poll

# Bytes of a message from a file. A list of a million files fits; an endless stream does not.
MAX_INPUT = 128 * 1024**2
# Bytes of a file that is small in practice, such as a configuration. Without a limit, an endless one such as
# /dev/zero would take all memory.
MAX_FILE = 1024**2


def read_text(value: str) -> str:
    """Return the text that the flag value *value* means: ``@FILE``, ``-`` for stdin, or *value* itself.

    Raise `MessageError` or `LocalFileError`.
    """
    from pfstorage.errors import MessageError
    from pfstorage.local import local_errors
    from pfstorage.wire.decoding import decoded

    if not is_reference(value):
        return value
    try:
        if value == "-":
            if sys.stdin is None:
                raise MessageError("stdin is closed: there is no message to read")
            with local_errors("stdin"):
                return decoded(_bounded(sys.stdin.fileno(), MAX_INPUT))
        with local_errors(value[1:]):
            return decoded(read_file(value[1:], MAX_INPUT))
    except UnicodeDecodeError:
        raise MessageError(f"the content of {value!r} is not UTF-8") from None
    except FileTooLongError as e:
        raise MessageError(f"the content of {value!r}: {e}") from None


class FileTooLongError(ValueError):
    """A file has more bytes than its reader accepts."""


def read_file(path: str, most: int = MAX_FILE) -> bytes:
    """Return the content of the file *path*. Raise `OSError`, or `FileTooLongError` if it has over *most* bytes."""
    with open(path, "rb", buffering=0) as file:
        return _bounded(file.fileno(), most)


def read_secret(flag: str, value: str) -> str:
    """Return the secret that the value of *flag* means; "" if the flag was not given. Raise `SettingsError`.

    An empty file is an error: without its secret, pfstorage would send the well-known default.
    """
    from pfstorage.errors import LocalFileError, MessageError, SettingsError
    from pfstorage.settings.redaction import without_line_end

    try:
        secret = without_line_end(read_text(value))
    except (LocalFileError, MessageError) as e:
        raise SettingsError(f"{flag}: {e}") from e
    if value and not secret.strip():
        raise SettingsError(f"{flag}: the secret is empty; write it to the file, without blanks")
    if not secret.isprintable():
        raise SettingsError(
            f"{flag}: a secret is one line without control characters; remove the rest from the file"
        )
    return secret


def is_reference(value: str) -> bool:
    """Return whether the text of a flag is in a file or on stdin."""
    return value == "-" or value.startswith("@")


def _bounded(descriptor: int, most: int) -> bytes:
    """Read *descriptor* to its end. Another process may have made it non-blocking."""
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
        if len(text) > most:
            raise FileTooLongError(f"it is longer than {most} bytes")
