"""Check with a HEAD that listed objects exist: a listing may contain removed or expired objects for minutes."""

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
from pfstorage.errors import NotFoundError, PfstorageError
from pfstorage.transfer.context import TransferContext, no_progress
from pfstorage.transfer.engine import run
from pfstorage.transfer.plan import SAME, Failure, Plan, Transfer, TransferResult

# The number of objects that a HEAD checks at the beginning of a plan. It checks as many random ones of the rest.
HEAD_SAMPLE = 1000
# Retries of a HEAD for an object that was stored just before: large clusters are eventually consistent.
NOT_FOUND_RETRIES = 2


class _NullSink:
    """A sink that discards all bytes."""

    def write(self, data: bytes | memoryview) -> int:
        return len(data)


class HeadSelector:
    """The choice of objects for a HEAD: the first `HEAD_SAMPLE` of a plan, and as many random ones of the rest.

    Once *selects_all* returns true, each further object is selected. *unchecked* counts the objects that were not
    selected.
    """

    def __init__(self, selects_all: Callable[[], bool]) -> None:
        self._selects_all = selects_all
        self.unchecked = 0

    def mark(self, plan: Plan) -> Iterator[Transfer | Failure]:
        """Yield the items of *plan*. Set `Transfer.needs_head` of the selected ones. The random ones come last."""
        sample: list[Transfer] = []
        listed = 0
        for item in plan:
            if isinstance(item, Failure) or item.known is None or item.confirmed:
                yield item
                continue
            listed += 1
            if listed <= HEAD_SAMPLE or self._selects_all():
                yield replace(item, needs_head=True)
            elif len(sample) < HEAD_SAMPLE:
                sample.append(item)
            else:
                self.unchecked += 1
                yield _exchange(sample, item, random.randrange(listed - HEAD_SAMPLE))  # noqa: S311 - no secret
        for item in sample:
            yield replace(item, needs_head=True)


def _exchange(sample: list[Transfer], item: Transfer, index: int) -> Transfer:
    """Replace the element *index* of *sample* by *item*, and return the old element. Beyond the end, return *item*.

    A random *index* below the number of all items makes each item equally likely to be in *sample* (algorithm R, Vitter
    1985).
    """
    if index >= len(sample):
        return item
    sample[index], item = item, sample[index]
    return item


def head_of(context: TransferContext, transfer: Transfer) -> ObjectInfo:
    """Send a HEAD for *transfer*, and return the object. Raise `NotFoundError`.

    An object without a listing row was stored just before, so the HEAD is repeated if it does not find the object.
    """
    known = transfer.known
    head = functools.partial(context.storage.head, transfer.key)
    if known is None:
        return context.retry_policy.repeat(head, (NotFoundError,), NOT_FOUND_RETRIES)
    return reconcile(known, head())


def head_all(keys: Iterable[str], context: TransferContext) -> dict[str, ObjectInfo | PfstorageError]:
    """Send a HEAD for each of *keys*, several at once. Return the objects and the errors by key."""
    found: dict[str, ObjectInfo | PfstorageError] = {}
    quiet = TransferContext(context.storage, replace(context.options, progress=no_progress))

    def head(item: Transfer) -> TransferResult:
        found[item.key] = quiet.storage.head(item.key)
        return SAME

    report = run((Transfer(key, "") for key in dict.fromkeys(keys)), head, quiet)
    found |= {failure.key: failure.error for failure in report.failed}
    if report.error:
        raise report.error
    return found


def reconcile(listed: ObjectInfo, head: ObjectInfo) -> ObjectInfo:
    """Return *listed*, the row of a listing, unless *head*, the answer to a HEAD, describes another object.

    The row is more complete: a proxy may remove the ETag header from an answer.
    """
    etag = head.segments_etag or head.md5
    is_other = head.size not in (None, listed.size) or (
        etag and etag != (listed.segments_etag or listed.etag)
    )
    return head if is_other else listed


def is_readable(context: TransferContext, known: ObjectInfo) -> bool:
    """Return whether all parts of a large object exist. Read one byte of each: a HEAD reads only their list."""
    if not known.segments_etag or not isinstance(context.storage, SupportsMultipart):
        return True

    def read(offset: int) -> None:
        context.cancellation.raise_if_overdue()
        context.storage.get(known.key, context.sink(_NullSink()), ByteRange(offset, 1, known.segments_etag))

    try:
        parts = context.storage.list_parts(known)
        context.pool.share([functools.partial(read, part.offset) for part in parts if part.size])
    except (NotFoundError, SegmentsMissingError):
        return False
    return True


def existing(
    rows: Iterable[ObjectInfo],
    context: TransferContext,
    on_missing: Callable[[str], None],
    max_pending: int | None = None,
) -> Generator[ObjectInfo, None, None]:
    """Yield the *rows* of a listing whose objects exist, in order. Call *on_missing* with the keys of the others.

    HEADs check the objects, at most *max_pending* at once. An object that was replaced is yielded as it is now. Rows of
    `ObjectInfo.is_subdir` are not checked. Raise any other error of the store, and `StoppedError`.
    """
    heads: deque[tuple[ObjectInfo, Future[ObjectInfo]]] = deque()

    def next_one() -> Iterator[ObjectInfo]:
        row, head = heads.popleft()
        try:
            yield reconcile(row, context.wait_for(head))
        except NotFoundError:
            on_missing(row.key)

    with context.running():
        for row in rows:
            heads.append((row, _submit_head(row, context)))
            if len(heads) >= min(max_pending or sys.maxsize, 2 * context.concurrency.allowed):
                yield from next_one()
        while heads:
            yield from next_one()


def _submit_head(row: ObjectInfo, context: TransferContext) -> Future[ObjectInfo]:
    def head() -> ObjectInfo:
        info = context.storage.head(row.key)
        context.concurrency.note(0)
        return info

    if not row.is_subdir:
        return context.submit(head)
    future: Future[ObjectInfo] = Future()
    future.set_result(row)
    return future
