"""Whether what a store lists is there: a listing may show for minutes what has expired or was deleted."""

from __future__ import annotations

import functools
import random
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace

from pfstorage.backends import ObjectInfo
from pfstorage.backends.capabilities import SupportsMultipart
from pfstorage.backends.contract import ByteRange
from pfstorage.backends.errors import lacks_segments
from pfstorage.errors import NotFoundError, PfstorageError, RejectedError
from pfstorage.transfer.context import TransferContext, no_progress
from pfstorage.transfer.engine import run
from pfstorage.transfer.plan import SAME, Failure, Plan, Transfer, TransferResult

ASKED = 1000
"""Objects of a plan that a HEAD asks for: the first so many, and as many of the others."""
TRIES = 2
"""How often an object is asked for again that was stored just now and is not found."""


class _Nowhere:
    """A sink for bytes that only have to come."""

    def write(self, data: bytes | memoryview) -> int:
        return len(data)


class Inquiry:
    """Chooses the objects of a plan that the store is asked for: the first `ASKED`, and as many of the rest by chance.

    As soon as *asks_all*, it chooses each that comes. *unasked* counts the others.
    """

    def __init__(self, asks_all: Callable[[], bool]) -> None:
        self._asks_all = asks_all
        self.unasked = 0

    def marked(self, plan: Plan) -> Iterator[Transfer | Failure]:
        """Pass *plan* on, what is chosen marked as `Transfer.asked`; what is chosen of the rest comes last."""
        sample: list[Transfer] = []
        listed = 0
        for item in plan:
            if isinstance(item, Failure) or item.known is None or item.told:
                yield item
                continue
            listed += 1
            if listed <= ASKED or self._asks_all():
                yield replace(item, asked=True)
            elif len(sample) < ASKED:
                sample.append(item)
            else:
                self.unasked += 1
                yield _exchanged(sample, item, random.randrange(listed - ASKED))  # noqa: S311 - no secret
        for item in sample:
            yield replace(item, asked=True)


def _exchanged(sample: list[Transfer], item: Transfer, place: int) -> Transfer:
    """Put *item* at *place* in *sample*, and return what was there; beyond its end, *item* itself.

    With a *place* by chance among all that came so far, each of them is as likely to be in it (Vitter's algorithm R).
    """
    if place >= len(sample):
        return item
    sample[place], item = item, sample[place]
    return item


def asked(work: TransferContext, transfer: Transfer) -> ObjectInfo:
    """Return what the store has under the key of *transfer*, by a HEAD. Raise `NotFoundError`.

    What is not listed was stored just now, and is asked for again: large clusters lag.
    """
    known = transfer.known
    head = functools.partial(work.storage.head, transfer.key)
    if known is None:
        return work.retry_policy.call(head, (NotFoundError,), retries=TRIES)
    return newer(known, head())


def heads_of(keys: Iterable[str], work: TransferContext) -> dict[str, ObjectInfo | PfstorageError]:
    """Return what the store says of each of *keys*, by a HEAD, or the error that says why it does not."""
    found: dict[str, ObjectInfo | PfstorageError] = {}
    quiet = TransferContext(work.storage, replace(work.options, progress=no_progress))

    def ask(item: Transfer) -> TransferResult:
        found[item.key] = quiet.storage.head(item.key)
        return SAME

    report = run((Transfer(key, "") for key in dict.fromkeys(keys)), ask, quiet)
    found |= {failure.key: failure.error for failure in report.failed}
    if report.error:
        raise report.error
    return found


def newer(listed: ObjectInfo, told: ObjectInfo) -> ObjectInfo:
    """Return *listed*, the row of a listing, unless *told*, the answer to a HEAD, is of another object.

    The row knows more: what lies between here and the store may drop an ETag.
    """
    etag = told.segments_etag or told.md5
    is_other = told.size not in (None, listed.size) or (
        etag and etag != (listed.segments_etag or listed.etag)
    )
    return told if is_other else listed


def is_readable(work: TransferContext, known: ObjectInfo) -> bool:
    """Tell whether all segments of a large object are there: a HEAD tells of their list alone.

    A byte of each is asked for.
    """
    if not known.segments_etag or not isinstance(work.storage, SupportsMultipart):
        return True

    def read(offset: int) -> None:
        work.cancellation.raise_if_overdue()
        work.storage.get(known.key, work.sink(_Nowhere()), ByteRange(offset, 1, known.segments_etag))

    try:
        pieces = work.storage.list_parts(known)
        work.pool.share([functools.partial(read, piece.offset) for piece in pieces if piece.size])
    except NotFoundError:
        return False
    except RejectedError as e:
        if not lacks_segments(e):
            raise
        return False
    return True


def existing(
    rows: Iterable[ObjectInfo], work: TransferContext, note: Callable[[str], None], at_once: int | None = None
) -> Generator[ObjectInfo, None, None]:
    """Yield those of *rows* that the store has, as it has them; *note* the keys of the others.

    They are asked for side by side, *at_once* at most, and come in their order. Rows of `ObjectInfo.is_subdir`
    pass as they are. Raise what else the store says, and `StoppedError`.
    """
    answers: deque[tuple[ObjectInfo, Future[ObjectInfo]]] = deque()

    def next_one() -> Iterator[ObjectInfo]:
        row, answer = answers.popleft()
        try:
            yield newer(row, work.result(answer))
        except NotFoundError:
            note(row.key)

    with work.under_way():
        for row in rows:
            answers.append((row, _future(row, work)))
            if len(answers) >= min(at_once or sys.maxsize, 2 * work.limit.allowed):
                yield from next_one()
        while answers:
            yield from next_one()


def _future(row: ObjectInfo, work: TransferContext) -> Future[ObjectInfo]:
    def ask() -> ObjectInfo:
        found = work.storage.head(row.key)
        work.limit.note(0)
        return found

    if not row.is_subdir:
        return work.submitted(ask)
    answer: Future[ObjectInfo] = Future()
    answer.set_result(row)
    return answer
