"""Many files between a storage and the disk, several at a time."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.base import CHUNK
from pfstorage.backends.common import new_md5
from pfstorage.backends.retry import retried
from pfstorage.errors import (
    ContainerNotFoundError,
    FullDiskError,
    IntegrityError,
    InvalidKeyError,
    PfstorageError,
    UnauthenticatedError,
    UnavailableError,
)
from pfstorage.files import LocalTree, local_errors, open_body
from pfstorage.pathmap import is_marker

log = logging.getLogger(__name__)

_HOPELESS = (UnauthenticatedError, ContainerNotFoundError)
_HOPELESS_IN_A_ROW = (UnavailableError, FullDiskError)


@dataclass(frozen=True)
class Transfer:
    """One file to copy either way: the object *key* and the local *path* as a reply spells it.

    For a pull, *tree* and *parts* are where it goes. *known* is what the store is known to
    hold under the key.
    """

    key: str
    path: str
    known: ObjectInfo | None = None
    tree: LocalTree | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A file that was not copied, and why."""

    key: str
    path: str
    error: PfstorageError

    def as_row(self) -> dict[str, str]:
        return {"object": self.key, "local": self.path, "msg": str(self.error)}


@dataclass
class TransferReport:
    """What came of it, in the order of the plan. *size* counts the bytes that were moved.

    *error* is what ended the plan before its end, such as a listing that broke off.
    """

    done: list[Transfer] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    size: int = 0
    skipped: int = 0
    seconds: float = 0.0
    error: PfstorageError | None = None


Plan = Iterable[Transfer | Failure]


def push(storage: Storage, plan: Plan, workers: int) -> TransferReport:
    """Store each file of *plan* under its key, unless the store is known to hold the same."""

    def push_one(transfer: Transfer) -> int | None:
        with open_body(transfer.path) as (body, size):
            known = transfer.known
            # an empty one is sent anyway: a large object made of segments may be listed as one
            if known and size and known.size == size and known.etag == _md5_of(body.read):
                return None
            body.seek(0)
            return storage.put(transfer.key, body, size).size

    return _run(plan, push_one, workers)


def pull(storage: Storage, plan: Plan, workers: int) -> TransferReport:
    """Write each object of *plan* to its file, unless the file is the same already.

    A file appears whole under its name or not at all. An object whose bytes come
    damaged is asked for once more.
    """

    def pull_one(transfer: Transfer) -> int | None:
        with local_errors(transfer.path):
            if _is_there(transfer):
                return None
            return retried(lambda: _pull_whole(storage, transfer), 1, (IntegrityError,))

    return _run(plan, pull_one, workers)


def _pull_whole(storage: Storage, transfer: Transfer) -> int:
    assert transfer.tree is not None
    if is_marker(transfer.key):
        if transfer.known and transfer.known.size:
            text = f"the key {transfer.key!r} ends in '/' and has content: no local name can have both"
            raise InvalidKeyError(text, key=transfer.key)
        transfer.tree.make_directory(transfer.parts)
        return 0
    with transfer.tree.whole_file(transfer.parts) as file:
        return storage.get(transfer.key, file).size


def _is_there(transfer: Transfer) -> bool:
    known, tree = transfer.known, transfer.tree
    if known is None or tree is None or not known.size or not re.fullmatch("[0-9a-f]{32}", known.etag):
        return False
    try:
        with tree.open_file(transfer.parts) as file:
            size = file.seek(0, 2)
            file.seek(0)
            return size == known.size and _md5_of(file.read) == known.etag
    except OSError:
        return False  # missing, or in the way: writing it will tell


def _md5_of(read: Callable[[int], bytes]) -> str:
    digest = new_md5()
    while chunk := read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _run(plan: Plan, move: Callable[[Transfer], int | None], workers: int) -> TransferReport:
    """Call *move* for each transfer, *workers* at once. It returns bytes, or None for nothing to do."""
    report = TransferReport()
    started = time.monotonic()
    breaker = _Breaker(workers)
    waiting: deque[tuple[Transfer | Failure, Future[int | Failure | None]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="transfer")
    try:
        for item in _until_error(plan, report):
            waiting.append((item, pool.submit(_attempt, item, move, breaker)))
            if (
                len(waiting) > workers * 16
            ):  # bounds memory, and how far a slow file lets the others run ahead
                _note(report, *waiting.popleft())
        while waiting:
            _note(report, *waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
    report.seconds = time.monotonic() - started
    return report


def _until_error(plan: Plan, report: TransferReport) -> Iterator[Transfer | Failure]:
    try:
        yield from plan
    except PfstorageError as e:
        report.error = e


def _attempt(
    item: Transfer | Failure, move: Callable[[Transfer], int | None], breaker: _Breaker
) -> int | Failure | None:
    if isinstance(item, Failure):
        return item
    try:
        breaker.check()
        moved = move(item)
        breaker.note(None)
    except PfstorageError as e:
        breaker.note(e)
        log.debug("%r, %r failed: %s", item.key, item.path, e)
        return Failure(item.key, item.path, e)
    except Exception as e:
        log.exception("a transfer failed for a reason that pfstorage does not know")
        return Failure(item.key, item.path, PfstorageError(f"unexpected {type(e).__name__}: {e}"))
    log.debug("%r, %r: %s", item.key, item.path, "is the same" if moved is None else f"{moved} bytes")
    return moved


def _note(report: TransferReport, item: Transfer | Failure, future: Future[int | Failure | None]) -> None:
    outcome = future.result()
    if isinstance(outcome, Failure):
        report.failed.append(outcome)
    elif isinstance(item, Transfer):
        report.done.append(item)
        report.size += outcome or 0
        report.skipped += outcome is None


class _Breaker:
    """Ends a run that can't go on: the store is gone, or refuses the login; the disk is full.

    Else each of a hundred thousand files would wait out its own tries.
    """

    def __init__(self, workers: int) -> None:
        self._lock = threading.Lock()
        self._limit = max(workers, 3)
        self._in_a_row = 0
        self._reason: PfstorageError | None = None

    def check(self) -> None:
        if self._reason:
            raise type(self._reason)(f"not tried: {self._reason}")

    def note(self, error: PfstorageError | None) -> None:
        with self._lock:
            self._in_a_row = self._in_a_row + 1 if isinstance(error, _HOPELESS_IN_A_ROW) else 0
            if isinstance(error, _HOPELESS) or self._in_a_row >= self._limit:
                self._reason = self._reason or error
