"""Whether local files and the store are the same, without moving anything."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator

from pfstorage.backends import ObjectInfo
from pfstorage.errors import NotFoundError
from pfstorage.files import Body, local_errors, open_body
from pfstorage.pathmap import is_marker
from pfstorage.reply import Texts
from pfstorage.transfer.engine import run
from pfstorage.transfer.plan import SAME, Moved, Plan, Transfer, TransferReport
from pfstorage.transfer.same import has_same_bytes
from pfstorage.transfer.work import Work

CHANGED = Moved(verdict="changed")
MISSING = Moved(verdict="missing")


def _as_it_is(transfer: Transfer) -> Transfer:
    return transfer


class Comparison(TransferReport):
    """What came of comparing: `skipped` counts what is the same, the keys of the others stand in two lists."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = Texts()
        self.missing = Texts()

    def note(self, item: Transfer, moved: Moved) -> None:
        self.count += 1
        self.skipped += moved.is_same
        if not moved.is_same:
            (self.missing if moved is MISSING else self.changed).append(item.key)


def verify(plan: Plan, work: Work, led: Callable[[Transfer], Transfer] = _as_it_is) -> Comparison:
    """Compare each object of *plan* with its file, or with what *led* makes of one in whose place is a link.

    A transfer without *known* is one that the store should have; one without a file is missing, too.
    """
    report = Comparison()
    run(plan, functools.partial(_verify_one, work, led), work, report)
    return report


def _verify_one(work: Work, led: Callable[[Transfer], Transfer], transfer: Transfer) -> Moved:
    known = transfer.known
    if known is None:
        return MISSING
    with local_errors(transfer.path):
        try:
            if is_marker(transfer.key):
                return _verify_directory(transfer)
            if transfer.tree is not None and transfer.tree.link(transfer.parts) is not None:
                transfer = led(transfer)
            with _opened(transfer) as body:
                is_same = has_same_bytes(work, body, known) if body.size else _is_empty(work, known)
                return SAME if is_same else CHANGED
        except (FileNotFoundError, NotFoundError):
            return MISSING
        except (NotADirectoryError, IsADirectoryError):
            return CHANGED


def _is_empty(work: Work, known: ObjectInfo) -> bool:
    """Tell whether the object is empty: what is listed so may be a large one, or a link."""
    return not known.size and not work.storage.head(known.key).size


def _verify_directory(transfer: Transfer) -> Moved:
    if transfer.tree is not None:
        with transfer.tree.open_directory(transfer.parts):
            pass
    return SAME


@contextlib.contextmanager
def _opened(transfer: Transfer) -> Iterator[Body]:
    if transfer.tree is None:
        with open_body(transfer.path) as (body, _):
            yield body
    else:  # what is missing or in the way is a verdict, and no failure
        with transfer.tree.open_file(transfer.parts) as file:
            yield Body(file, transfer.path, os.fstat(file.fileno()))
