"""The data classes of a plan and of its report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pfstorage.backends import ObjectInfo
from pfstorage.errors import PfstorageError, without_traceback
from pfstorage.keys.mapping import is_directory_marker
from pfstorage.local import LocalTree, NewFile
from pfstorage.wire.packed import PackedStrings

# Failures that a report lists. It only counts further ones.
MAX_FAILURES = 10_000
# Characters of all listed failures. Each failure of a long location repeats the location.
MAX_FAILURE_TEXT = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Transfer:
    """A file to push, pull or compare: the object *key* and the local *path* in the form of a reply.

    *known* is the object that the store has under the key, as far as a listing or a HEAD has shown it. *tree* and
    *parts* locate the file below an open directory; a path component can't lead out of it. Without *tree*, a push opens
    *path*. If *needs_head*, a comparison sends a HEAD. If *confirmed*, *known* comes from
    a HEAD.
    """

    key: str
    path: str
    known: ObjectInfo | None = None
    tree: LocalTree | None = None
    parts: tuple[str, ...] = ()
    needs_head: bool = False
    confirmed: bool = False

    @property
    def is_directory(self) -> bool:
        """Whether the object marks a directory: by its row if that is known, otherwise by its key."""
        return self.known.is_directory if self.known else is_directory_marker(self.key)


class Failure:
    """A file that was not transferred, and the error."""

    def __init__(self, key: str, path: str, error: PfstorageError) -> None:
        self.key = key
        self.path = path
        self.error = without_traceback(error)  # a report may hold many, and a traceback holds local variables

    @property
    def length(self) -> int:
        """The number of characters of its row."""
        return len(self.key) + len(self.path) + len(str(self.error))

    def as_row(self) -> dict[str, str]:
        return {"object": self.key, "local": self.path, "msg": str(self.error)}


Plan = Iterable[Transfer | Failure]


def sum_of(*sizes: int | None) -> int | None:
    """Return the sum of *sizes*, None if one of them is None.

    >>> sum_of(1, 2), sum_of(1, None), sum_of()
    (3, None, 0)
    """
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


@dataclass(frozen=True, slots=True)
class TransferResult:
    """The result of a transfer: *size* bytes were transferred; or none, for the reason *verdict*.

    *size* is None in a dry run if the store does not report a size. *file* is a complete file that has no final name
    yet.
    """

    size: int | None = 0
    verdict: str = ""
    file: NewFile | None = None

    @property
    def is_same(self) -> bool:
        return self.verdict == "same"


SAME = TransferResult(verdict="same")
# The file was modified so recently that a program may still write to it. It was not transferred.
UNSTABLE = TransferResult(verdict="unstable")


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a run. *done*, *failed* and *skipped* count files; *skipped* ones are among those *done*.

    *size* counts bytes, also those of unfinished files; *seconds* is the time since the start. *total* is the number of
    files of the plan, None until the whole plan is read. *workers* is the present concurrency. *is_last* is true once,
    at the end.
    """

    done: int
    failed: int
    skipped: int
    size: int
    seconds: float
    total: int | None = None
    workers: int = 0
    is_last: bool = False


@dataclass
class TransferReport:
    """The results of a run, in the order of the plan.

    *keys* and *paths* name the *count* files that were transferred or skipped; they stay empty without *keep_names*.
    *skipped* counts the files that were the same already. *failed* lists up to `MAX_FAILURES` of the *failed_count*
    failures. *unstable* has the paths of files that a program may still write to; they are in no other list. *size* is
    the number of bytes transferred, None if a size is unknown; *seconds* is the duration of the run. *error* is the
    error that ended the plan early, such as a failed listing or `StoppedError`.

    One thread at a time may call a method.
    """

    keep_names: bool = True
    keys: PackedStrings = field(default_factory=PackedStrings)
    paths: PackedStrings = field(default_factory=PackedStrings)
    failed: list[Failure] = field(default_factory=list)
    failed_count: int = 0
    unstable: PackedStrings = field(default_factory=PackedStrings)
    count: int = 0
    size: int | None = 0
    skipped: int = 0
    seconds: float = 0.0
    error: PfstorageError | None = None
    _failure_text: int = field(default=0, init=False, repr=False)

    @property
    def first_error(self) -> PfstorageError | None:
        """The error that ended the plan early, or else that of the first failure."""
        return self.error or (self.failed[0].error if self.failed else None)

    def note(self, item: Transfer, result: TransferResult) -> None:
        """Add the result of *item*."""
        if result is UNSTABLE:
            self.unstable.append(item.path)
            return
        self.count += 1
        self.size = sum_of(self.size, result.size)
        self.skipped += result.is_same
        if self.keep_names:
            self.keys.append(item.key)
            self.paths.append(item.path)

    def add_again(self, again: TransferReport) -> None:
        """Replace the results of files of this report by those of a second run, *again*."""
        failed_paths = {*again.unstable, *(failure.path for failure in again.failed)}
        if failed_paths and self.keep_names:
            rows = [row for row in zip(self.keys, self.paths, strict=True) if row[1] not in failed_paths]
            self.keys, self.paths = (
                PackedStrings(key for key, _ in rows),
                PackedStrings(path for _, path in rows),
            )
        self.count -= again.failed_count + len(again.unstable)
        self.size = sum_of(self.size, again.size)
        self.skipped = max(0, self.skipped - again.count - again.failed_count - len(again.unstable))
        self.seconds += again.seconds
        self._add_failures(again)

    def add(self, later: TransferReport) -> None:
        """Append the results of further files."""
        self.count += later.count
        self.size = sum_of(self.size, later.size)
        self.skipped += later.skipped
        self.seconds += later.seconds
        for mine, theirs in ((self.keys, later.keys), (self.paths, later.paths)):
            for text in theirs:
                mine.append(text)
        self._add_failures(later)

    def _add_failures(self, later: TransferReport) -> None:
        for path in later.unstable:
            self.unstable.append(path)
        for failure in later.failed:
            self.note_failure(failure)
        self.failed_count += later.failed_count - len(later.failed)
        self.error = self.error or later.error

    def note_failure(self, failure: Failure) -> None:
        """Add a failure."""
        self.failed_count += 1
        if len(self.failed) < MAX_FAILURES and self._failure_text < MAX_FAILURE_TEXT:
            self.failed.append(failure)
            self._failure_text += failure.length
