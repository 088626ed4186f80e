"""Objects into files: each appears whole and verified under its name, or not at all."""

from __future__ import annotations

import contextlib
import functools
import stat
from collections.abc import Callable
from dataclasses import replace

from pfstorage.backends import ObjectInfo
from pfstorage.backends.errors import PreconditionFailedError
from pfstorage.errors import IntegrityError, InvalidKeyError, LocalFileError, NotFoundError, RejectedError
from pfstorage.keys.mapping import is_directory_marker
from pfstorage.local import LocalTree, NewFile, body_of, is_disk_error, local_errors
from pfstorage.transfer import multipart as large
from pfstorage.transfer.compare import has_same_bytes
from pfstorage.transfer.context import TransferContext
from pfstorage.transfer.engine import run
from pfstorage.transfer.plan import SAME, Plan, Transfer, TransferReport, TransferResult
from pfstorage.transfer.replaced import download_current

DIRECTORY = TransferResult(verdict="directory")
NO_KEY = TransferResult(verdict="no key")
TRIES = 2
"""How often an object is asked for again that came damaged, or was listed and is not there yet."""


def pull(plan: Plan, context: TransferContext) -> TransferReport:
    """Write each object of *plan* to its file, unless the file is the same already."""
    return run(plan, functools.partial(_pull_one, context), context)


def pull_named(
    plan: Plan, context: TransferContext, on_no_object: Callable[[Transfer, bool], None]
) -> TransferReport:
    """Write each object of *plan* to its file, as `pull` does, without knowing which there are: by one GET each.

    *on_no_object* is told of each name that is no key, which is no failure, and of each that marks a directory, for
    which it gets True: there may be objects below it. It is called from several threads.
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
    except (NotFoundError, InvalidKeyError):  # which says that a store of files has a directory there
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
        if context.options.if_absent or context.options.dry_run:  # else who writes it is told
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                tree.require_replaceable(transfer.parts)
        if _is_current(context, transfer):
            return SAME
        if context.options.dry_run:
            return TransferResult(transfer.known.size if transfer.known else None)
        retry_on = (IntegrityError, NotFoundError) if transfer.known else (IntegrityError,)
        file, info = context.retry_policy.repeat(
            lambda: _download_current(context, transfer), retry_on, TRIES
        )
        if info.is_directory and not (transfer.known and transfer.known.is_directory):
            file.discard()
            return _make_directory(context, transfer)
        if context.options.durable == "batch" and context.batch_room.acquire(blocking=False):
            return TransferResult(file.size, file=file)
        return context.commit(file, durable=context.options.durable != "none")


def _needs_head(context: TransferContext, tree: LocalTree, parts: tuple[str, ...]) -> bool:
    """Tell whether what the store has matters before it is fetched: a file may be the same, a directory in the way."""
    try:
        mode = tree.status(parts).st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and context.options.overwrite == "changed")


def _has_bytes(context: TransferContext, transfer: Transfer) -> bool:
    """Tell whether what its type marks as a directory is a file all the same: a large one may be listed as empty."""
    if is_directory_marker(transfer.key) or context.options.dry_run:
        return False
    head = functools.partial(context.storage.head, transfer.key)
    return not context.retry_policy.repeat(head, (NotFoundError,), TRIES).is_directory


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
    """Tell whether the local file, if there is one, is what it should be."""
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
    except (OSError, LocalFileError, NotFoundError):
        # missing, in the way, or changed while it was read, as by another pull; or another object: writing it will tell
        return False
    except RejectedError as e:
        if not isinstance(e, PreconditionFailedError):  # it is replaced at this moment
            raise
        return False


def _exists(tree: LocalTree, parts: tuple[str, ...]) -> bool:
    """Tell whether there is a file of that name, a link or one that can't be read, too."""
    return not stat.S_ISDIR(tree.status(parts).st_mode)


def _download_current(context: TransferContext, transfer: Transfer) -> tuple[NewFile, ObjectInfo]:
    """Do as `_download` does; an object that is replaced meanwhile is fetched as it is by then."""

    def fetch(known: ObjectInfo | None) -> tuple[NewFile, ObjectInfo]:
        return _download(context, replace(transfer, known=known))

    return download_current(context.storage, transfer.key, transfer.known, fetch)


def _download(context: TransferContext, transfer: Transfer) -> tuple[NewFile, ObjectInfo]:
    """Return a new file with the bytes of the object, which does not have its name yet, and what the object is."""
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
    """Give *file* the time of its object, where its file system lets it have that one: the bytes count for more."""
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
    if known and _has_ranges(context, known):
        try:
            return large.pull(context, known, file)
        except (NotFoundError, RejectedError) as e:
            if not isinstance(e, (NotFoundError, PreconditionFailedError)):
                raise
            file.truncate(0)  # it is another by now, or of a kind that the listing does not tell
    try:
        info = context.storage.get(transfer.key, context.sink(file))
    except RejectedError as e:
        if not isinstance(e, PreconditionFailedError):
            raise
        raise IntegrityError(str(e), key=transfer.key) from e  # it is asked for again
    if info.segments_etag:  # a listing does not tell of every kind of large object
        large.verify(context, info, file)
    elif known and known.md5 and not info.md5 and info.size != 0:
        # the store told it before, and not with the bytes
        large.verify_whole(known, file)
    elif info.size is None and not (known and known.size == file.size):
        text = f"{transfer.key!r}: the store tells neither a length nor an MD5, so nothing shows that all of it came"
        raise IntegrityError(text, key=transfer.key)
    return info


def _has_ranges(context: TransferContext, known: ObjectInfo) -> bool:
    if known.size is None:
        return False
    return bool(known.segments_etag or (known.md5 and known.size > context.options.range_size))
