"""Compare local files with objects, without a transfer."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace

from pfstorage.backends import ObjectInfo
from pfstorage.backends.checksums import EMPTY_MD5
from pfstorage.errors import IntegrityError, InvalidKeyError, NotFoundError
from pfstorage.local import Body, body_of, local_errors, open_body
from pfstorage.transfer.compare import has_equal_checksum, has_same_bytes
from pfstorage.transfer.context import TransferContext
from pfstorage.transfer.engine import run
from pfstorage.transfer.existence import HeadSelector, head_of, is_readable
from pfstorage.transfer.plan import SAME, Plan, Transfer, TransferReport, TransferResult
from pfstorage.wire.packed import PackedStrings

CHANGED = TransferResult(verdict="changed")
MISSING = TransferResult(verdict="missing")
# The store does not have the object, though it lists it.
GONE = TransferResult(verdict="gone")

MakePlan = Callable[[TransferContext], Plan]


def _unchanged(transfer: Transfer) -> Transfer:
    return transfer


class Comparison(TransferReport):
    """The result of a comparison: *skipped* counts the equal files; two lists have the keys of the others.

    *changed* has the keys of files that differ, *missing* those of files or objects that do not exist. *gone* has those
    of *missing* that the store does not have. *unchecked* counts the objects that no HEAD has checked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changed = PackedStrings()
        self.missing = PackedStrings()
        self.gone: set[str] = set()
        self.unchecked = 0

    def note(self, item: Transfer, result: TransferResult) -> None:
        self.count += 1
        self.skipped += result.is_same
        if result is GONE:
            self.gone.add(item.key)
        if not result.is_same:
            (self.changed if result is CHANGED else self.missing).append(item.key)

    def sort(self) -> None:
        """Sort the keys and the failures by the bytes of their keys."""
        self.changed, self.missing = _sorted(self.changed), _sorted(self.missing)
        self.failed.sort(key=lambda failure: os.fsencode(failure.key))

    def replace(self, gone: set[str], later: Comparison) -> None:
        """Replace the results of the objects *gone* by those of a later comparison."""
        self.gone = self.gone - gone | later.gone
        self.missing = PackedStrings(key for key in self.missing if key not in gone)
        for mine, theirs in ((self.missing, later.missing), (self.changed, later.changed)):
            for key in theirs:
                mine.append(key)
        self.skipped += later.skipped
        for failure in later.failed:
            self.note_failure(failure)
        self.error = self.error or later.error
        self.sort()


def _sorted(keys: PackedStrings) -> PackedStrings:
    return PackedStrings(sorted(keys, key=os.fsencode))


def verify(
    plan: MakePlan,
    make_context: Callable[[], TransferContext],
    resolve: Callable[[Transfer], Transfer] = _unchanged,
    *,
    sure: bool = False,
) -> Comparison:
    """Compare each object of *plan* with its file, and return the results.

    *plan* makes the plan, and *make_context* its context, since a second run may be necessary. A file is the same if
    its bytes have the size and the MD5 of the object. *resolve* replaces the transfer of a symbolic link by that of its
    target.

    A listing may show objects that the store no longer has. So a HEAD checks the objects that `HeadSelector` selects,
    or all objects if *sure*. If one of them does not exist, compare all files again, with a HEAD for each. A HEAD also
    checks each transfer without *known*: an object that should exist and is not listed.

    A failure, such as an unreadable file, is an entry of the report. See `run` for its order and its errors.
    """
    report = _compare(plan, make_context(), resolve, sure=sure)
    if report.gone and report.unchecked and not report.error:
        report = _compare(plan, make_context(), resolve, sure=True)
    return report


def _compare(
    plan: MakePlan, context: TransferContext, resolve: Callable[[Transfer], Transfer], *, sure: bool
) -> Comparison:
    report = Comparison()
    selector = HeadSelector(lambda: sure or bool(report.gone))
    run(selector.mark(plan(context)), functools.partial(_verify_one, context, resolve), context, report)
    report.unchecked = selector.unchecked
    if report.unchecked:  # the random ones came last
        report.sort()
    return report


def _verify_one(
    context: TransferContext, resolve: Callable[[Transfer], Transfer], transfer: Transfer
) -> TransferResult:
    if not transfer.confirmed and (transfer.needs_head or transfer.known is None):
        try:
            transfer = replace(transfer, known=head_of(context, transfer), confirmed=True)
        except (
            NotFoundError,
            InvalidKeyError,
        ):  # InvalidKeyError: a file is above it in a store of files
            return GONE
    with local_errors(transfer.path):
        try:
            if transfer.is_directory:
                return _verify_directory(transfer)
            if transfer.tree is not None and transfer.tree.link(transfer.parts) is not None:
                transfer = resolve(transfer)
            with _open_local(transfer) as body:
                return _verdict(context, transfer, body)
        except (FileNotFoundError, NotFoundError):
            return MISSING
        except (NotADirectoryError, IsADirectoryError):
            return CHANGED


def _verdict(context: TransferContext, transfer: Transfer, body: Body) -> TransferResult:
    known = transfer.known
    assert known is not None
    if not transfer.confirmed:
        is_same = has_same_bytes(context, body, known) if body.size else _is_listed_empty(context, known)
        return SAME if is_same else CHANGED
    if not (has_equal_checksum(context, body, known) if body.size else _is_empty(known)):
        return CHANGED
    return SAME if is_readable(context, known) else GONE


def _is_listed_empty(context: TransferContext, known: ObjectInfo) -> bool:
    """Return whether a listed object is empty. Send a HEAD, because it may only seem so (`ObjectInfo.seems_empty`)."""
    return not known.size and _is_empty(context.storage.head(known.key))


def _is_empty(head: ObjectInfo) -> bool:
    """Return whether the object is empty, from the answer to a HEAD. Raise `IntegrityError` if that is unknown."""
    if head.size is None and not head.etag:
        text = f"the store reports neither a length nor an ETag of {head.key!r}: it may be empty or not"
        raise IntegrityError(text, key=head.key)
    return head.size == 0 if head.size is not None else head.md5 == EMPTY_MD5


def _verify_directory(transfer: Transfer) -> TransferResult:
    if transfer.tree is None:
        return SAME if stat.S_ISDIR(os.stat(transfer.path).st_mode) else CHANGED
    with transfer.tree.open_directory(transfer.parts):
        return SAME


@contextlib.contextmanager
def _open_local(transfer: Transfer) -> Iterator[Body]:
    if transfer.tree is None:
        with open_body(transfer.path) as (body, _):
            yield body
    else:  # `open_file` raises OSError, which `_verify_one` turns into a verdict
        with transfer.tree.open_file(transfer.parts) as file, body_of(file, transfer.path) as body:
            yield body
