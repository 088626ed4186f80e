"""What is to be moved, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pfstorage.backends import ObjectInfo
from pfstorage.errors import PfstorageError, without_traceback
from pfstorage.keys.mapping import is_directory_marker
from pfstorage.local import LocalTree, NewFile
from pfstorage.wire.packed import PackedStrings

MAX_FAILURES = 10_000
"""Failures that a report names; further ones are counted."""
MAX_FAILURE_TEXT = 8 * 1024 * 1024
"""Characters of those: a message that names a long location once would be told of it with each file."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """One file to copy either way: the object *key* and the local *path* as a reply spells it.

    *known* is what the store is known to hold under the key. *tree* and *parts* are
    where the file lies below a directory that nothing may lead out of; a push of what
    is not confined has none, and opens the path. If *needs_head*, a comparison does not take a
    listing for it, and asks the store for the object; *confirmed* says that *known* is what the store answered.
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
        """Whether the object marks a directory, as far as is known."""
        return self.known.is_directory if self.known else is_directory_marker(self.key)


class Failure:
    """A file that was not copied, and why."""

    def __init__(self, key: str, path: str, error: PfstorageError) -> None:
        self.key = key
        self.path = path
        self.error = without_traceback(error)  # a report may hold many

    @property
    def length(self) -> int:
        """How many characters of text its row has."""
        return len(self.key) + len(self.path) + len(str(self.error))

    def as_row(self) -> dict[str, str]:
        return {"object": self.key, "local": self.path, "msg": str(self.error)}


Plan = Iterable[Transfer | Failure]


def sum_of(*sizes: int | None) -> int | None:
    """Return the sum of *sizes*, None if one of them is not known.

    >>> sum_of(1, 2), sum_of(1, None), sum_of()
    (3, None, 0)
    """
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


@dataclass(frozen=True, slots=True)
class TransferResult:
    """What came of a transfer: *size* bytes were moved, or, with a *verdict*, none.

    *size* is None where nothing is moved, and nobody tells how many there would be.
    *file* has the bytes already and is yet to get its name.
    """

    size: int | None = 0
    verdict: str = ""
    file: NewFile | None = None

    @property
    def is_same(self) -> bool:
        return self.verdict == "same"


SAME = TransferResult(verdict="same")
UNSTABLE = TransferResult(verdict="unstable")
"""A file that was modified just now, and may be written still: it is not moved."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a plan is. *size* counts bytes on their way, too; *total* is None while the plan goes on.

    *workers* files are moved at once now. *is_last* is said once, at the end.
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
    """What came of a plan, in its order. *size* counts the bytes that were moved, None if nobody tells of some.

    *error* is what ended the plan before its end, such as a listing that broke off. *unstable* are the paths of
    files that were left for later, and are in no other list.
    *keep_names* is false where only numbers are wanted.
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
        """Add what came of files of this report that were moved a second time."""
        not_moved = {*again.unstable, *(failure.path for failure in again.failed)}
        if not_moved and self.keep_names:
            rows = [row for row in zip(self.keys, self.paths, strict=True) if row[1] not in not_moved]
            self.keys, self.paths = (
                PackedStrings(key for key, _ in rows),
                PackedStrings(path for _, path in rows),
            )
        self.count -= again.failed_count + len(again.unstable)
        self.size = sum_of(self.size, again.size)
        self.skipped = max(0, self.skipped - again.count - again.failed_count - len(again.unstable))
        self.seconds += again.seconds
        self._add_what_was_not_moved(again)

    def add(self, later: TransferReport) -> None:
        """Add what came of further files."""
        self.count += later.count
        self.size = sum_of(self.size, later.size)
        self.skipped += later.skipped
        self.seconds += later.seconds
        for mine, theirs in ((self.keys, later.keys), (self.paths, later.paths)):
            for text in theirs:
                mine.append(text)
        self._add_what_was_not_moved(later)

    def _add_what_was_not_moved(self, later: TransferReport) -> None:
        for path in later.unstable:
            self.unstable.append(path)
        for failure in later.failed:
            self.note_failure(failure)
        self.failed_count += later.failed_count - len(later.failed)
        self.error = self.error or later.error

    def note_failure(self, failure: Failure) -> None:
        self.failed_count += 1
        if len(self.failed) < MAX_FAILURES and self._failure_text < MAX_FAILURE_TEXT:
            self.failed.append(failure)
            self._failure_text += failure.length
