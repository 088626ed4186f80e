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
from pfstorage.backends.errors import SegmentsMissingError
from pfstorage.errors import NotFoundError, PfstorageError, RejectedError
from pfstorage.transfer.context import TransferContext, no_progress
from pfstorage.transfer.engine import run
from pfstorage.transfer.plan import SAME, Failure, Plan, Transfer, TransferResult

HEAD_SAMPLE = 1000
"""Objects of a plan that a HEAD asks for: the first so many, and as many of the others."""
TRIES = 2
"""How often an object is asked for again that was stored just now and is not found."""


class _Nowhere:
    """A sink for bytes that only have to come."""

    def write(self, data: bytes | memoryview) -> int:
        return len(data)


class HeadSelector:
    """Chooses the objects of a plan that the store is asked for: `HEAD_SAMPLE` first ones and others by chance.

    As soon as *asks_all*, it chooses each that comes. *unchecked* counts the others.
    """

    def __init__(self, asks_all: Callable[[], bool]) -> None:
        self._asks_all = asks_all
        self.unchecked = 0

    def mark(self, plan: Plan) -> Iterator[Transfer | Failure]:
        """Pass *plan* on, what is chosen marked as `Transfer.needs_head`; what is chosen of the rest comes last."""
        sample: list[Transfer] = []
        listed = 0
        for item in plan:
            if isinstance(item, Failure) or item.known is None or item.confirmed:
                yield item
                continue
            listed += 1
            if listed <= HEAD_SAMPLE or self._asks_all():
                yield replace(item, needs_head=True)
            elif len(sample) < HEAD_SAMPLE:
                sample.append(item)
            else:
                self.unchecked += 1
                yield _exchanged(sample, item, random.randrange(listed - HEAD_SAMPLE))  # noqa: S311 - no secret
        for item in sample:
            yield replace(item, needs_head=True)


def _exchanged(sample: list[Transfer], item: Transfer, place: int) -> Transfer:
    """Put *item* at *place* in *sample*, and return what was there; beyond its end, *item* itself.

    With a *place* by chance among all that came so far, each of them is as likely to be in it (Vitter's algorithm R).
    """
    if place >= len(sample):
        return item
    sample[place], item = item, sample[place]
    return item


def head_of(context: TransferContext, transfer: Transfer) -> ObjectInfo:
    """Return what the store has under the key of *transfer*, by a HEAD. Raise `NotFoundError`.

    What is not listed was stored just now, and is asked for again: large clusters lag.
    """
    known = transfer.known
    head = functools.partial(context.storage.head, transfer.key)
    if known is None:
        return context.retry_policy.repeat(head, (NotFoundError,), TRIES)
    return reconcile(known, head())


def heads_of(keys: Iterable[str], context: TransferContext) -> dict[str, ObjectInfo | PfstorageError]:
    """Return what the store says of each of *keys*, by a HEAD, or the error that says why it does not."""
    found: dict[str, ObjectInfo | PfstorageError] = {}
    quiet = TransferContext(context.storage, replace(context.options, progress=no_progress))

    def ask(item: Transfer) -> TransferResult:
        found[item.key] = quiet.storage.head(item.key)
        return SAME

    report = run((Transfer(key, "") for key in dict.fromkeys(keys)), ask, quiet)
    found |= {failure.key: failure.error for failure in report.failed}
    if report.error:
        raise report.error
    return found


def reconcile(listed: ObjectInfo, confirmed: ObjectInfo) -> ObjectInfo:
    """Return *listed*, the row of a listing, unless *confirmed*, the answer to a HEAD, is of another object.

    The row knows more: what lies between here and the store may drop an ETag.
    """
    etag = confirmed.segments_etag or confirmed.md5
    is_other = confirmed.size not in (None, listed.size) or (
        etag and etag != (listed.segments_etag or listed.etag)
    )
    return confirmed if is_other else listed


def is_readable(context: TransferContext, known: ObjectInfo) -> bool:
    """Tell whether all segments of a large object are there: a HEAD tells of their list alone.

    A byte of each is asked for.
    """
    if not known.segments_etag or not isinstance(context.storage, SupportsMultipart):
        return True

    def read(offset: int) -> None:
        context.cancellation.raise_if_overdue()
        context.storage.get(known.key, context.sink(_Nowhere()), ByteRange(offset, 1, known.segments_etag))

    try:
        pieces = context.storage.list_parts(known)
        context.pool.share([functools.partial(read, piece.offset) for piece in pieces if piece.size])
    except NotFoundError:
        return False
    except RejectedError as e:
        if not isinstance(e, SegmentsMissingError):
            raise
        return False
    return True


def existing(
    rows: Iterable[ObjectInfo],
    context: TransferContext,
    note: Callable[[str], None],
    at_once: int | None = None,
) -> Generator[ObjectInfo, None, None]:
    """Yield those of *rows* that the store has, as it has them; *note* the keys of the others.

    They are asked for side by side, *at_once* at most, and come in their order. Rows of `ObjectInfo.is_subdir`
    pass as they are. Raise what else the store says, and `StoppedError`.
    """
    answers: deque[tuple[ObjectInfo, Future[ObjectInfo]]] = deque()

    def next_one() -> Iterator[ObjectInfo]:
        row, answer = answers.popleft()
        try:
            yield reconcile(row, context.wait_for(answer))
        except NotFoundError:
            note(row.key)

    with context.running():
        for row in rows:
            answers.append((row, _future(row, context)))
            if len(answers) >= min(at_once or sys.maxsize, 2 * context.concurrency.allowed):
                yield from next_one()
        while answers:
            yield from next_one()


def _future(row: ObjectInfo, context: TransferContext) -> Future[ObjectInfo]:
    def ask() -> ObjectInfo:
        found = context.storage.head(row.key)
        context.concurrency.note(0)
        return found

    if not row.is_subdir:
        return context.submit(ask)
    answer: Future[ObjectInfo] = Future()
    answer.set_result(row)
    return answer
