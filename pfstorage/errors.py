"""Every error that pfstorage raises on purpose.

::

    PfstorageError
    ├── MessageError                the message is malformed; nothing was done
    │   ├── UnknownActionError      no such action
    │   ├── UnknownPathError        nothing is served at this path
    │   ├── UnknownJobError         no such job, or it is somebody else's
    │   ├── JobConflictError        the jid is that of another job, or the job is for another store
    │   ├── MethodNotAllowedError   the action is not offered by this HTTP method
    │   ├── NoLengthError           the HTTP request does not say how long it is
    │   ├── SlowRequestError        the HTTP request did not arrive in time
    │   └── TooLargeError           the message is longer than the server reads
    ├── SettingsError               a flag, a configuration file or the environment is wrong
    ├── UnauthorizedError           the request has no token that the server knows
    ├── ForbiddenError              the caller may not do this here
    ├── BusyError                   the server has too much to do
    ├── LocalFileError              a local file or directory can't be read or written
    │   ├── FileChangedError        a local file changed while it was read
    │   ├── FullDiskError           the local file system has no room left
    │   ├── NoDescriptorError       this process may open no more files now
    │   └── StateFileError          the server can't read or write the file of its jobs now
    ├── StoppedError                the work was told to stop before its end
    ├── RemoteError                 the pfstorage server of ``--remote`` did not answer
    └── StorageError                the store refused, failed or did not answer
        ├── NotFoundError           no such object
        │   └── ContainerNotFoundError
        ├── ExistsError             there is such an object, and it was not to be replaced
        ├── InvalidKeyError         the key can't be stored, or can't be a local path
        ├── UnauthenticatedError    the store does not accept the credentials
        ├── PermissionDeniedError   the credentials may not do this
        ├── RejectedError           the store refuses this request for good
        │   ├── MisconfiguredError  a setting is wrong: an address, a proxy, a certificate
        │   ├── ConflictError       the store was busy with the same name, each time it was asked
        │   └── NoSpaceError        the store has no room
        │       └── ObjectTooLargeError  for an object as large as this one
        ├── IntegrityError          what was stored or read is not what was sent
        └── UnavailableError        no answer, or a passing failure: worth another try

The text of an error is one line that says what failed and what to do about it.
Facts for programs are attributes; `PfstorageError.facts` is what a reply shows
of them. No text and no fact holds a secret.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, TypeVar

E = TypeVar("E", bound=BaseException)

Fact = str | int | float | bool | None


class PfstorageError(Exception):
    """Base of all; catch this to catch whatever pfstorage raises on purpose."""

    # The type that a reply names: a class that is not public has that of its base.
    reported_as: ClassVar[str] = "PfstorageError"

    def __init_subclass__(cls, *, is_public: bool = True) -> None:
        super().__init_subclass__()
        if is_public:
            cls.reported_as = cls.__name__

    def __init__(self, message: str, **facts: Fact) -> None:
        super().__init__(one_line(message))
        self._facts = facts

    @property
    def facts(self) -> Mapping[str, Fact]:
        """What a reply shows under ``error``: JSON scalars by name, ``type`` first."""
        return {"type": self.reported_as, **self._facts}


def without_traceback(error: E) -> E:
    """Return *error* without the calls that led to it, which with all their variables are kept as long as it is."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def one_line(text: str) -> str:
    """Return *text* on one line: a reply's ``msg`` and a log entry are one line each.

    >>> one_line("cannot open\\r\\n  'a  b'")
    "cannot open 'a  b'"
    """
    return " ".join(line.strip() for line in text.splitlines())


class MessageError(PfstorageError):
    pass


class UnknownActionError(MessageError):
    pass


class UnknownPathError(MessageError):
    pass


class UnknownJobError(MessageError):
    pass


class JobConflictError(MessageError):
    pass


class MethodNotAllowedError(MessageError):
    pass


class NoLengthError(MessageError):
    pass


class SlowRequestError(MessageError):
    pass


class TooLargeError(MessageError):
    pass


class SettingsError(PfstorageError):
    pass


class UnauthorizedError(PfstorageError):
    pass


class ForbiddenError(PfstorageError):
    pass


class BusyError(PfstorageError):
    pass


class LocalFileError(PfstorageError):
    pass


class FileChangedError(LocalFileError):
    pass


class FullDiskError(LocalFileError):
    pass


class NoDescriptorError(LocalFileError):
    pass


class StateFileError(LocalFileError):
    pass


class StoppedError(PfstorageError):
    pass


class RemoteError(PfstorageError):
    pass


class StorageError(PfstorageError):
    # How often a request that fails so may be repeated, whatever the settings allow.
    max_retries: ClassVar[float] = math.inf

    @property
    def retry_after(self) -> int | None:
        """The pause in seconds that the store asks for, None if it asks for none."""
        seconds = self._facts.get("retry_after")
        return seconds if isinstance(seconds, int) else None


class NotFoundError(StorageError):
    pass


class ContainerNotFoundError(NotFoundError):
    pass


class ExistsError(StorageError):
    pass


class InvalidKeyError(StorageError):
    pass


class UnauthenticatedError(StorageError):
    pass


class PermissionDeniedError(StorageError):
    pass


class RejectedError(StorageError):
    pass


class MisconfiguredError(RejectedError):
    pass


class ConflictError(RejectedError):
    pass


class NoSpaceError(RejectedError):
    pass


class ObjectTooLargeError(NoSpaceError):
    pass


class IntegrityError(StorageError):
    pass


class UnavailableError(StorageError):
    pass
