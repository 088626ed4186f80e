"""Upload files. Skip those that the store has already, and upload large ones in parts."""

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
from pfstorage.transfer.compare import has_same_bytes
from pfstorage.transfer.context import TransferContext
from pfstorage.transfer.engine import run
from pfstorage.transfer.multipart import upload_parts, upload_stream
from pfstorage.transfer.plan import SAME, UNSTABLE, Plan, Transfer, TransferReport, TransferResult

B = TypeVar("B")

# Bytes above which a file may need parts. The question to the store is one request for each message.
MULTIPART_ABOVE = 64 * 1024**2

# The coarsest resolution of a file's time, in nanoseconds: that of FAT.
COARSEST_NS = 2_000_000_000

# Reads of a file that changes meanwhile. A change of its mode or of its links looks like a change of its bytes.
READS = 2


def push(plan: Plan, context: TransferContext, stable: float = 0.0) -> TransferReport:
    """Upload each file of *plan* under its key, and return the results in the order of *plan*.

    With ``overwrite`` "changed", skip a file if the store has an object of the same bytes. With "never", skip it if
    the key exists. Leave out a file that was modified less than *stable* seconds ago: see `TransferReport.unstable`.

    Each object appears at once, with all of its bytes. A failed file is an entry of the report; no `PfstorageError` is
    raised. See `run` for an error of the plan and for a cancellation. Use each *context* for one plan.
    """
    return run(plan, functools.partial(_push_one, context, stable), context)


def _push_one(context: TransferContext, stable: float, transfer: Transfer) -> TransferResult:
    for _ in range(READS - 1):
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
        return (
            context.options.overwrite == "changed"
            and known is not None
            and _is_same_content(context, body, known)
        )

    def store(body: Body, size: int) -> int:
        info, sent = store_one(context, key, body, size, known, Attributes(mtime_ns=body.mtime_ns))
        if info.mtime_ns is not None and abs(info.mtime_ns - body.mtime_ns) > COARSEST_NS:
            context.warn_once("the store did not take the time of files", repr(key))
        return sent

    opened = open_body(transfer.path, transfer.tree, transfer.parts)
    return store_if_needed(context, known, opened, store, is_same)


def _is_stable(transfer: Transfer, seconds: float) -> bool:
    """Return whether the file was modified *seconds* ago or more. If that is unknown, return True."""
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
    """Open a body and *store* it, unless the options of *context* or *is_same* skip it.

    *known* is the existing object, None if there is none. *opened* yields the body and its size in bytes. *store* gets
    them, and returns the number of bytes sent.
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
            return SAME  # stored after the listing


def _is_same_content(context: TransferContext, body: Body, known: ObjectInfo) -> bool:
    try:
        return has_same_bytes(context, body, known)
    except NotFoundError:  # removed after the listing
        return False


def store_one(
    context: TransferContext,
    key: str,
    body: Source,
    size: int,
    known: ObjectInfo | None = None,
    attributes: Attributes = NO_ATTRIBUTES,
) -> tuple[ObjectInfo, int]:
    """Store *size* bytes of *body* as *key*, and return the new object and the number of bytes sent.

    Every upload uses this function: objPut, forms and HTTP PUT. It limits the rate, lets the storage verify the MD5,
    and uses parts for a large body. *known* is the object that this one replaces, if there is one. Without a content
    type in *attributes*, detect it from the name and the first bytes. Raise `ExistsError` if the key exists and
    ``overwrite`` is "never", and any other error of `Storage.put`.
    """
    storage, options = context.storage, context.options
    content_type = detect_content_type(key, _peek(body), attributes.content_type)
    attributes = Attributes(content_type, attributes.mtime_ns)
    # the size first: isinstance with a protocol is slow, and most files are small
    if size > min(options.segment_size, MULTIPART_ABOVE) and isinstance(storage, SupportsMultipart):
        part_size = storage.part_size(size, options.segment_size)
        if size > part_size and isinstance(body, Body):
            return upload_parts(context, key, body, part_size, attributes, known)
        if size > part_size:
            return upload_stream(context, key, body, size, part_size, attributes, known)
    return storage.put(key, context.source(body), size, attributes, if_absent=options.if_absent), size


def store_single(
    context: TransferContext,
    key: str,
    body: Source,
    size: int,
    known: ObjectInfo | None = None,
    attributes: Attributes = NO_ATTRIBUTES,
) -> tuple[ObjectInfo, int]:
    """Call `store_one` without a plan. Close the worker pool of *context* at the end."""
    with context.options.worker_budget.registered(lambda: context.pool.busy):
        try:
            return store_one(context, key, body, size, known, attributes)
        finally:
            context.pool.close()


def _peek(body: Source) -> bytes:
    """Return the first bytes of *body*, and rewind it."""
    if isinstance(body, Body):
        return body.peek(PEEK_SIZE)
    start = body.tell()
    beginning = body.read(PEEK_SIZE)
    body.seek(start)
    return beginning
