"""Transfer one file, and stop trying once the store or the disk can take no more files."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from pfstorage.errors import (
    ContainerNotFoundError,
    FullDiskError,
    MisconfiguredError,
    NoSpaceError,
    ObjectTooLargeError,
    PfstorageError,
    UnauthenticatedError,
    UnavailableError,
)
from pfstorage.runtime.unexpected import unexpected_error
from pfstorage.transfer.plan import Failure, Transfer, TransferResult

log = logging.getLogger(__name__)

# Transfers one file, and returns its result. It may raise any error.
TransferOne = Callable[[Transfer], TransferResult]

# One error of these ends a run. Of the others, several in a row do.
_FATAL = (UnauthenticatedError, MisconfiguredError, ContainerNotFoundError)
_FATAL_IN_A_ROW = (UnavailableError, FullDiskError, NoSpaceError)


class CircuitBreaker:
    """A wrapper of *transfer_one* that fails at once after an error that would meet all further files.

    Such an error is a refused login, or *max_failures* files in a row without a store or without space. Otherwise, each
    of a hundred thousand files would use up its own retries. Any thread may call a method.
    """

    def __init__(self, transfer_one: TransferOne, max_failures: int) -> None:
        self._transfer_one = transfer_one
        self._max_failures = max_failures
        self._lock = threading.Lock()
        self._failures = 0
        self._fatal_error: PfstorageError | None = None

    def attempt(self, item: Transfer) -> TransferResult | Failure:
        """Transfer *item*. Return an error as a `Failure`, also an unexpected one."""
        try:
            self._check()
            result = self._transfer_one(item)
            self._note(None)
        except PfstorageError as e:
            self._note(e)
            log.debug("%r, %r failed: %s", item.key, item.path, e)
            return Failure(item.key, item.path, e)
        except Exception as e:  # noqa: BLE001 - it is logged
            return Failure(item.key, item.path, unexpected_error(e, "a transfer"))
        log.debug("%r, %r: %s", item.key, item.path, result.verdict or f"{result.size} bytes")
        return result

    def _check(self) -> None:
        if self._fatal_error:
            raise type(self._fatal_error)(f"not tried: {self._fatal_error}")

    def _note(self, error: PfstorageError | None) -> None:
        with self._lock:
            counts = isinstance(error, _FATAL_IN_A_ROW) and not isinstance(error, ObjectTooLargeError)
            self._failures = self._failures + 1 if counts else 0
            if isinstance(error, _FATAL) or self._failures >= self._max_failures:
                self._fatal_error = self._fatal_error or error
