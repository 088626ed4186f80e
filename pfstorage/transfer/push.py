"""Files into the store: what it has already is not sent again, and what is large goes in segments."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Callable
from typing import TypeVar

from pfstorage.backends import ObjectInfo
from pfstorage.backends.capabilities import SupportsMultipart
from pfstorage.backends.content_types import PEEK_SIZE, detect_content_type
from pfstorage.backends.contract import NO_ATTRIBUTES, Attributes, Source
from pfstorage.errors import ExistsError, FileChangedError, NotFoundError
from pfstorage.local import Body, is_stable, open_body
from pfstorage.transfer import multipart as large
from pfstorage.transfer.compare import has_same_bytes
from pfstorage.transfer.context import TransferContext
from pfstorage.transfer.engine import run
from pfstorage.transfer.plan import SAME, UNSTABLE, Plan, Transfer, TransferReport, TransferResult

B = TypeVar("B")

ASK_ABOVE = 64 * 1024**2
"""Bytes above which the store is asked how large an object may be: that is one request a message."""

COARSEST_NS = 2_000_000_000
"""What the times of file systems are exact to, at worst: so those of FAT are."""


TRIES = 2
"""How often a file is read that changes while it is read: a change of its rights or of its links looks the same."""


def push(plan: Plan, context: TransferContext, stable: float = 0.0) -> TransferReport:
    """Store each file of *plan* under its key, unless the store is known to hold the same.

    A file that was modified less than *stable* seconds ago is left for later: see `TransferReport.unstable`.
    """
    return run(plan, functools.partial(_push_one, context, stable), context)


def _push_one(context: TransferContext, stable: float, transfer: Transfer) -> TransferResult:
    for _ in range(TRIES - 1):
        try:
            return _store_file(context, stable, transfer)
        except FileChangedError:
            if context.cancellation.is_cancelled:
                raise
    return _store_file(context, stable, transfer)


def _store_file(context: TransferContext, stable: float, transfer: Transfer) -> TransferResult:
    key, known = transfer.key, transfer.known
    if stable and not _is_stable(transfer, stable):
        return UNSTABLE

    def is_same(body: Body) -> bool:
        return context.options.overwrite == "changed" and known is not None and _is_same(context, body, known)

    def store(body: Body, size: int) -> int:
        info, sent = store_one(context, key, body, size, known, Attributes(mtime_ns=body.mtime_ns))
        if info.mtime_ns is not None and abs(info.mtime_ns - body.mtime_ns) > COARSEST_NS:
            context.warn_once("the store did not take the time of files", repr(key))
        return sent

    opened = open_body(transfer.path, transfer.tree, transfer.parts)
    return store_if_needed(context, known, opened, store, is_same)


def _is_stable(transfer: Transfer, seconds: float) -> bool:
    """Tell whether the file was modified *seconds* ago or more. What is none, whoever opens it tells."""
    try:
        tree = transfer.tree
        status = tree.status(transfer.parts) if tree else os.stat(transfer.path)
    except (OSError, ValueError):
        return True
    return is_stable(status, seconds) or not stat.S_ISREG(status.st_mode)


def store_if_needed(
    context: TransferContext,
    known: ObjectInfo | None,
    opened: contextlib.AbstractContextManager[tuple[B, int]],
    store: Callable[[B, int], int],
    is_same: Callable[[B], bool] = lambda _: False,
) -> TransferResult:
    """Open a body, and *store* what the options of *context* let be stored where *known* is.

    *opened* gives the body and its size in bytes, *store* returns how many were sent.
    """
    options = context.options
    if options.if_absent and known:
        return SAME
    with opened as (body, size):
        if is_same(body):
            return SAME
        if options.dry_run:
            return TransferResult(size)
        try:
            return TransferResult(store(body, size))
        except ExistsError:
            return SAME  # the listing did not show it


def _is_same(context: TransferContext, body: Body, known: ObjectInfo) -> bool:
    try:
        return has_same_bytes(context, body, known)
    except NotFoundError:  # a listing may show for a while what has gone
        return False


def store_one(
    context: TransferContext,
    key: str,
    body: Source,
    size: int,
    known: ObjectInfo | None = None,
    attributes: Attributes = NO_ATTRIBUTES,
) -> tuple[ObjectInfo, int]:
    """Store *size* bytes of *body* as *key*, in place of *known*; return what is stored, and the bytes that were sent.

    Whatever stores an object does it here: a push, a form, a PUT. It is paced, verified, in segments if it is larger
    than those may be, and has the type that *attributes* say, or else the one that its name and its first bytes tell.
    """
    storage, options = context.storage, context.options
    kind = detect_content_type(key, _beginning(body), attributes.content_type)
    attributes = Attributes(kind, attributes.mtime_ns)
    # the size first: to ask for a protocol takes long, for each small file
    if size > min(options.segment_size, ASK_ABOVE) and isinstance(storage, SupportsMultipart):
        part_size = storage.part_size(size, options.segment_size)
        if size > part_size and isinstance(body, Body):
            return large.push(context, key, body, part_size, attributes, known)
        if size > part_size:
            return large.push_in_order(context, key, body, size, part_size, attributes, known)
    return storage.put(key, context.source(body), size, attributes, if_absent=options.if_absent), size


def store_single(
    context: TransferContext,
    key: str,
    body: Source,
    size: int,
    known: ObjectInfo | None = None,
    attributes: Attributes = NO_ATTRIBUTES,
) -> tuple[ObjectInfo, int]:
    """Do as `store_one` does where no plan has the crew at work."""
    with context.options.worker_budget.registered(lambda: context.pool.busy):
        try:
            return store_one(context, key, body, size, known, attributes)
        finally:
            context.pool.close()


def _beginning(body: Source) -> bytes:
    if isinstance(body, Body):
        return body.peek(PEEK_SIZE)
    start = body.tell()
    beginning = body.read(PEEK_SIZE)
    body.seek(start)
    return beginning
