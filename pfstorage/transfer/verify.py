"""Whether local files and the store are the same, without moving anything."""

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
from pfstorage.transfer.compare import has_equal_bytes, has_same_bytes
from pfstorage.transfer.context import TransferContext
from pfstorage.transfer.engine import run
from pfstorage.transfer.existence import HeadSelector, head_of, is_readable
from pfstorage.transfer.plan import SAME, Plan, Transfer, TransferReport, TransferResult
from pfstorage.wire.packed import PackedStrings

CHANGED = TransferResult(verdict="changed")
MISSING = TransferResult(verdict="missing")
GONE = TransferResult(verdict="gone")
"""The store does not have the object, whatever it lists."""

MakePlan = Callable[[TransferContext], Plan]


def _as_it_is(transfer: Transfer) -> Transfer:
    return transfer


class Comparison(TransferReport):
    """What came of comparing: `skipped` counts what is the same, the keys of the others stand in two lists.

    *gone* are those of *missing* that the store itself does not have. *unchecked* counts the objects of
    which only a listing tells that they are there.
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
        """Bring what is named into the order of the keys."""
        self.changed, self.missing = _sorted(self.changed), _sorted(self.missing)
        self.failed.sort(key=lambda failure: os.fsencode(failure.key))

    def replace(self, gone: set[str], later: Comparison) -> None:
        """Have what *later* tells of the objects *gone* in place of what this tells of them."""
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
    means: Callable[[], TransferContext],
    resolved: Callable[[Transfer], Transfer] = _as_it_is,
    *,
    sure: bool = False,
) -> Comparison:
    """Compare each object of *plan* with its file, or with what *resolved* makes of one in whose place is a link.

    What a store lists need not be there. So it is asked for the objects that `HeadSelector` chooses, for
    all of them if *sure*. If one of them is missing, all is compared once more, and no object
    is taken to be there that was not asked for. A transfer without *known* is one that
    the store should have and does not list; it is asked for in any case. One without a file is missing, too.
    """
    report = _compared(plan, means(), resolved, sure=sure)
    if report.gone and report.unchecked and not report.error:
        report = _compared(plan, means(), resolved, sure=True)
    return report


def _compared(
    plan: MakePlan, context: TransferContext, resolved: Callable[[Transfer], Transfer], *, sure: bool
) -> Comparison:
    report = Comparison()
    inquiry = HeadSelector(lambda: sure or bool(report.gone))
    run(inquiry.mark(plan(context)), functools.partial(_verify_one, context, resolved), context, report)
    report.unchecked = inquiry.unchecked
    if report.unchecked:  # what was chosen of them was compared last
        report.sort()
    return report


def _verify_one(
    context: TransferContext, resolved: Callable[[Transfer], Transfer], transfer: Transfer
) -> TransferResult:
    if not transfer.confirmed and (transfer.needs_head or transfer.known is None):
        try:
            transfer = replace(transfer, known=head_of(context, transfer), confirmed=True)
        except (NotFoundError, InvalidKeyError):  # of a store of files, where a file is above it
            return GONE
    with local_errors(transfer.path):
        try:
            if transfer.is_directory:
                return _verify_directory(transfer)
            if transfer.tree is not None and transfer.tree.link(transfer.parts) is not None:
                transfer = resolved(transfer)
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
        is_same = has_same_bytes(context, body, known) if body.size else _is_empty(context, known)
        return SAME if is_same else CHANGED
    if not (has_equal_bytes(context, body, known) if body.size else _is_told_empty(known)):
        return CHANGED
    return SAME if is_readable(context, known) else GONE


def _is_empty(context: TransferContext, known: ObjectInfo) -> bool:
    """Tell whether the object is empty: what is listed so may be a large one, or a link."""
    return not known.size and _is_told_empty(context.storage.head(known.key))


def _is_told_empty(confirmed: ObjectInfo) -> bool:
    """Tell whether the object is empty, by what the store says of it itself. Raise `IntegrityError` if it does not."""
    if confirmed.size is None and not confirmed.etag:
        raise IntegrityError(f"the store does not tell whether {confirmed.key!r} is empty", key=confirmed.key)
    return confirmed.size == 0 if confirmed.size is not None else confirmed.md5 == EMPTY_MD5


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
    else:  # what is missing or in the way is a verdict, and no failure
        with transfer.tree.open_file(transfer.parts) as file, body_of(file, transfer.path) as body:
            yield body
