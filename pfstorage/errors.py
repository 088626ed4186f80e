"""The errors of pfstorage, in a tree.

::

    PfstorageError
    ├── MessageError
    │   ├── UnknownActionError
    │   ├── UnknownPathError
    │   ├── UnknownJobError
    │   ├── JobConflictError
    │   ├── MethodNotAllowedError
    │   ├── NoLengthError
    │   ├── SlowRequestError
    │   └── TooLargeError
    ├── SettingsError
    ├── UnauthorizedError
    ├── ForbiddenError
    ├── BusyError
    ├── LocalFileError
    │   ├── FileChangedError
    │   ├── FullDiskError
    │   ├── NoDescriptorError
    │   └── StateFileError
    ├── StoppedError
    ├── RemoteError
    └── StorageError
        ├── NotFoundError
        │   └── ContainerNotFoundError
        ├── ExistsError
        ├── InvalidKeyError
        ├── UnauthenticatedError
        ├── PermissionDeniedError
        ├── RejectedError
        │   ├── MisconfiguredError
        │   ├── ConflictError
        │   └── NoSpaceError
        │       └── ObjectTooLargeError
        ├── IntegrityError
        └── UnavailableError

The text of an error is one line. It names the thing that failed and says how to fix it. `PfstorageError.facts` has
the details for programs. Neither contains a secret.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, TypeVar

E = TypeVar("E", bound=BaseException)

Fact = str | int | float | bool | None


class PfstorageError(Exception):
    """The base class of all errors of pfstorage.

    *facts* are JSON scalars by name, such as ``key`` and ``status``.
    """

    # The type in a reply: the class itself or, for a class that is not public, its nearest public base.
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
        """The details that a reply shows under ``error``: JSON scalars by name, ``type`` first."""
        return {"type": self.reported_as, **self._facts}


def without_traceback(error: E) -> E:
    """Remove the traceback and the causes of *error*, which would keep the local variables of all calls alive."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def one_line(text: str) -> str:
    """Join the lines of *text*, because the ``msg`` of a reply and a log entry are single lines.

    >>> one_line("cannot open\\r\\n  'a  b'")
    "cannot open 'a  b'"
    """
    return " ".join(line.strip() for line in text.splitlines())


class MessageError(PfstorageError):
    """The message is malformed. Nothing was done."""


class UnknownActionError(MessageError):
    """There is no such action."""


class UnknownPathError(MessageError):
    """The server has no such path."""


class UnknownJobError(MessageError):
    """There is no such job, or it belongs to another user."""


class JobConflictError(MessageError):
    """Another job has this jid, or the job is for another store."""


class MethodNotAllowedError(MessageError):
    """The action can't be called with this HTTP method."""


class NoLengthError(MessageError):
    """The HTTP request does not state its length."""


class SlowRequestError(MessageError):
    """The HTTP request did not arrive in time."""


class TooLargeError(MessageError):
    """The message is longer than the server accepts."""


class SettingsError(PfstorageError):
    """A flag, a configuration file or an environment variable is wrong."""


class UnauthorizedError(PfstorageError):
    """The request has no valid token."""


class ForbiddenError(PfstorageError):
    """The caller is not allowed to do this."""


class BusyError(PfstorageError):
    """The server is overloaded."""


class LocalFileError(PfstorageError):
    """A local file or directory can't be read or written."""


class FileChangedError(LocalFileError):
    """A local file changed while it was read."""


class FullDiskError(LocalFileError):
    """The local file system is full."""


class NoDescriptorError(LocalFileError):
    """This process has reached its limit of open files."""


class StateFileError(LocalFileError):
    """The server can't read or write the database of its jobs."""


class StoppedError(PfstorageError):
    """The work was cancelled before its end."""


class RemoteError(PfstorageError):
    """The pfstorage server of ``--remote`` did not answer."""


class StorageError(PfstorageError):
    """The store refused, failed or did not answer."""

    # The maximum number of retries after this error, whatever the settings allow.
    max_retries: ClassVar[float] = math.inf

    @property
    def retry_after(self) -> int | None:
        """The pause in seconds that the store asks for; None if it does not ask for one."""
        seconds = self._facts.get("retry_after")
        return seconds if isinstance(seconds, int) else None


class NotFoundError(StorageError):
    """There is no such object."""


class ContainerNotFoundError(NotFoundError):
    """There is no such container."""


class ExistsError(StorageError):
    """The object exists, and the request does not allow replacing it."""


class InvalidKeyError(StorageError):
    """The key can't be stored, or can't be a local path."""


class UnauthenticatedError(StorageError):
    """The store does not accept the credentials."""


class PermissionDeniedError(StorageError):
    """The credentials do not permit this."""


class RejectedError(StorageError):
    """The store rejects this request. Another try will not help."""


class MisconfiguredError(RejectedError):
    """A setting is wrong: an address, a proxy or a certificate."""


class ConflictError(RejectedError):
    """The store was busy with the same name, at each try."""


class NoSpaceError(RejectedError):
    """The store is full."""


class ObjectTooLargeError(NoSpaceError):
    """The store can't hold an object of this size."""


class IntegrityError(StorageError):
    """The stored or received bytes differ from the bytes that were sent."""


class UnavailableError(StorageError):
    """The store did not answer or failed temporarily. Another try may help."""
