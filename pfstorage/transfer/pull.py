"""Download objects. A file gets its final name after its download is complete and verified."""

from __future__ import annotations

import contextlib
import functools
import stat
from collections.abc import Callable
from dataclasses import replace

from pfstorage.backends import ObjectInfo
from pfstorage.backends.errors import PreconditionFailedError
from pfstorage.errors import IntegrityError, InvalidKeyError, LocalFileError, NotFoundError
from pfstorage.keys.mapping import is_directory_marker
from pfstorage.local import LocalTree, NewFile, body_of, is_disk_error, local_errors
from pfstorage.transfer.compare import has_same_bytes
from pfstorage.transfer.context import TransferContext
from pfstorage.transfer.engine import run
from pfstorage.transfer.multipart import download_ranges, verify_md5, verify_parts
from pfstorage.transfer.plan import SAME, Plan, Transfer, TransferReport, TransferResult
from pfstorage.transfer.replaced import download_current

DIRECTORY = TransferResult(verdict="directory")
NO_KEY = TransferResult(verdict="no key")
# Retries of a download with a wrong MD5, and of one that does not find a listed object.
RETRIES = 2


def pull(plan: Plan, context: TransferContext) -> TransferReport:
    """Download each object of *plan* to its file, and return the results in the order of *plan*.

    Each transfer has a *tree*. With ``overwrite`` "changed", skip a file of the same bytes. With "never", skip a file
    that exists.

    A download writes a temporary name in the target directory, verifies size and MD5, and then renames the file. So
    no incomplete file has a final name. A failed object is an entry of the report; no `PfstorageError` is raised. See
    `run` for an error of the plan and for a cancellation. Use each *context* for one plan.
    """
    return run(plan, functools.partial(_pull_one, context), context)


def pull_named(
    plan: Plan, context: TransferContext, on_no_object: Callable[[Transfer, bool], None]
) -> TransferReport:
    """Download the objects of *plan* as `pull` does, but without a listing: one GET for each name.

    A name may be that of a directory, with objects below it. Call *on_no_object* with the transfer of a name without an
    object and False, and with that of an object that marks a directory and True. Neither is a failure. Several threads
    may call it at once.
    """
    return run(
        plan,
        functools.partial(_pull_named, context, on_no_object),
        context,
        _NamedReport(context.options.keep_names),
    )


class _NamedReport(TransferReport):
    def note(self, item: Transfer, result: TransferResult) -> None:
        if result is not NO_KEY:
            super().note(item, result)


def _pull_named(
    context: TransferContext, on_no_object: Callable[[Transfer, bool], None], transfer: Transfer
) -> TransferResult:
    try:
        result = _pull_one(context, transfer)
    except (NotFoundError, InvalidKeyError):  # InvalidKeyError: a store of files has a directory there
        result = NO_KEY
    if result in (NO_KEY, DIRECTORY):
        on_no_object(transfer, result is DIRECTORY)
    return result


def _pull_one(context: TransferContext, transfer: Transfer) -> TransferResult:
    tree = transfer.tree
    assert tree is not None
    with local_errors(transfer.path):
        if transfer.known is None and _needs_head(context, tree, transfer.parts):
            transfer = replace(transfer, known=context.storage.head(transfer.key))
        if transfer.is_directory and not _has_bytes(context, transfer):
            return _make_directory(context, transfer)
        if context.options.if_absent or context.options.dry_run:  # otherwise, the write raises it
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                tree.require_replaceable(transfer.parts)
        if _is_current(context, transfer):
            return SAME
        if context.options.dry_run:
            return TransferResult(transfer.known.size if transfer.known else None)
        retry_on = (IntegrityError, NotFoundError) if transfer.known else (IntegrityError,)
        file, info = context.retry_policy.repeat(
            lambda: _download_current(context, transfer), retry_on, RETRIES
        )
        if info.is_directory and not (transfer.known and transfer.known.is_directory):
            file.discard()
            return _make_directory(context, transfer)
        if context.options.durable == "batch" and context.batch_room.acquire(blocking=False):
            return TransferResult(file.size, file=file)
        return context.commit(file, durable=context.options.durable != "none")


def _needs_head(context: TransferContext, tree: LocalTree, parts: tuple[str, ...]) -> bool:
    """Return whether a HEAD may make a GET unnecessary: a file may be the same, or a directory may be in the way."""
    try:
        mode = tree.status(parts).st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and context.options.overwrite == "changed")


def _has_bytes(context: TransferContext, transfer: Transfer) -> bool:
    """Return whether an object with the content type of a directory has bytes. A listing may show it as empty."""
    if is_directory_marker(transfer.key) or context.options.dry_run:
        return False
    head = functools.partial(context.storage.head, transfer.key)
    return not context.retry_policy.repeat(head, (NotFoundError,), RETRIES).is_directory


def _make_directory(context: TransferContext, transfer: Transfer) -> TransferResult:
    assert transfer.tree is not None
    if transfer.known and transfer.known.size != 0:
        has = "may have" if transfer.known.size is None else "has"
        text = f"the key {transfer.key!r} ends in '/' and {has} content: no local name can have both"
        raise InvalidKeyError(text, key=transfer.key)
    if not context.options.dry_run:
        transfer.tree.make_directory(transfer.parts, durable=context.options.durable != "none")
    return DIRECTORY


def _is_current(context: TransferContext, transfer: Transfer) -> bool:
    """Return whether the local file needs no download."""
    known, tree, overwrite = transfer.known, transfer.tree, context.options.overwrite
    if overwrite == "always" or tree is None or (overwrite == "changed" and known is None):
        return False
    if overwrite == "changed" and tree.is_new(transfer.parts[:-1]):
        return False
    try:
        if context.options.if_absent:
            return _exists(tree, transfer.parts)
        with tree.open_file(transfer.parts) as file, body_of(file, transfer.path) as body:
            return known is not None and has_same_bytes(context, body, known)
    except (OSError, LocalFileError, NotFoundError, PreconditionFailedError):
        # the file is missing, a directory, or changed while it was read; or the object was removed or replaced after
        # the listing: the download raises the error
        return False


def _exists(tree: LocalTree, parts: tuple[str, ...]) -> bool:
    """Return whether the name exists and is no directory. Links and unreadable files count."""
    return not stat.S_ISDIR(tree.status(parts).st_mode)


def _download_current(context: TransferContext, transfer: Transfer) -> tuple[NewFile, ObjectInfo]:
    """Call `_download`. If the object is replaced during the download, download the new one."""

    def fetch(known: ObjectInfo | None) -> tuple[NewFile, ObjectInfo]:
        return _download(context, replace(transfer, known=known))

    return download_current(context.storage, transfer.key, transfer.known, fetch)


def _download(context: TransferContext, transfer: Transfer) -> tuple[NewFile, ObjectInfo]:
    """Download an object to a new file without a final name. Return the file and the object."""
    assert transfer.tree is not None
    file = transfer.tree.new_file(
        transfer.parts, size=(transfer.known.size or None) if transfer.known else None
    )
    try:
        info = _fetch_into(context, transfer, file)
        _set_time(context, transfer, file, info)
    except BaseException:
        file.discard()
        raise
    return file, info


def _set_time(context: TransferContext, transfer: Transfer, file: NewFile, info: ObjectInfo) -> None:
    """Set the modification time of *file* to that of its object. If the file system refuses it, warn."""
    try:
        if info.mtime_ns is not None:
            file.set_mtime(info.mtime_ns)
    except OSError as e:
        if is_disk_error(e):
            raise
        what = f"files have the time at which they were pulled, since theirs could not be set ({e.strerror})"
        context.warn_once(what, repr(transfer.path))


def _fetch_into(context: TransferContext, transfer: Transfer, file: NewFile) -> ObjectInfo:
    known = transfer.known
    if known and _needs_ranges(context, known):
        try:
            return download_ranges(context, known, file)
        except (NotFoundError, PreconditionFailedError):
            file.truncate(0)  # replaced, or a kind of object that the listing does not show
    try:
        info = context.storage.get(transfer.key, context.sink(file))
    except PreconditionFailedError as e:
        raise IntegrityError(str(e), key=transfer.key) from e  # the caller tries again
    if info.segments_etag:  # a listing does not show every kind of large object
        verify_parts(context, info, file)
    elif known and known.md5 and not info.md5 and info.size != 0:
        verify_md5(known, file)  # the GET had no MD5, the listing has
    elif info.size is None and not (known and known.size == file.size):
        text = f"{transfer.key!r}: the store reports neither a length nor an MD5, so the download may be incomplete"
        raise IntegrityError(text, key=transfer.key)
    return info


def _needs_ranges(context: TransferContext, known: ObjectInfo) -> bool:
    if known.size is None:
        return False
    return bool(known.segments_etag or (known.md5 and known.size > context.options.range_size))
