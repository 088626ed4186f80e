"""Files into the store: objPut, and objPush, which is the same."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from pfstorage.access.permissions import Permissions
from pfstorage.access.scoped import require_write
from pfstorage.actions.audit import audit_body
from pfstorage.actions.context import ActionContext, Upload
from pfstorage.actions.listing import prepended
from pfstorage.actions.options import MoveMeta, check_location_text, transfer_context, transfer_reply
from pfstorage.actions.registry import action
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.capabilities import list_partially
from pfstorage.backends.contract import Attributes, Source
from pfstorage.errors import (
    ContainerNotFoundError,
    ForbiddenError,
    InvalidKeyError,
    LocalFileError,
    MessageError,
    PermissionDeniedError,
    PfstorageError,
)
from pfstorage.keys.mapping import (
    FIRST_CHARACTER,
    check_key,
    check_location,
    common_prefix,
    is_directory_marker,
    local_to_key,
    normal_location,
    normal_prefix,
    start_just_before,
    without_dot,
)
from pfstorage.local import LocalAccess, LocalFile, ResolvedPath, find_files, local_errors
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer import (
    Failure,
    Transfer,
    TransferContext,
    TransferReport,
    TransferResult,
    push,
    verify,
)
from pfstorage.transfer.push import store_if_needed, store_single
from pfstorage.transfer.verify import Comparison
from pfstorage.wire.reply import Reply

AT_ONCE = 10_000
"""Files that the store is asked for by one listing: as many as it lists on one page."""
LOOK_AHEAD = 10_000
LOOK_AHEAD_PER_FILE = 10

Found = tuple[ResolvedPath, str] | ForbiddenError | LocalFileError

LONGEST_STABLE = 366 * 24 * 3600
"""Seconds for which a file may have to be as it is before it is pushed."""

NOTHING = "No valid file list generated"


@dataclass(frozen=True)
class PutMeta(MoveMeta):
    put_spec: str = field(default="", metadata={"aliases": ("localpath",)})
    in_location: str = field(default="", metadata={"aliases": ("toLocation",)})
    map_location_over: str = ""
    file: str = ""
    file_list: tuple[str, ...] = ()
    to_object: str = ""
    prepend_bucket_path: str | bool = ""
    follow_symlinks: bool = False
    stable: float = field(default=0.0, metadata={"schema": {"minimum": 0, "maximum": LONGEST_STABLE}})

    def check(self) -> None:
        super().check()
        if self.stable and self.to_object:
            raise MessageError(
                "meta 'stable' goes with local files, not with one that comes with the message; leave it out"
            )
        check_location_text(len(self.file_list), self.prepend_bucket_path, self.in_location)


_PUT_TEXT = "Store a tree, a file or a list of files; or the file that came with the message."


@action("objPut", meta=PutMeta, text=_PUT_TEXT)
@action("objPush", meta=PutMeta, text=_PUT_TEXT)
def obj_put(context: ActionContext, meta: PutMeta) -> Reply:
    if meta.to_object:
        return _put_upload(context, meta)
    with LocalAccess(context.request.roots) as local_access:
        return _pushed(context, meta, local_access)


def _pushed(context: ActionContext, meta: PutMeta, local_access: LocalAccess) -> Reply:
    work, is_tree = transfer_context(context, meta), _is_tree(meta, local_access)

    def items(warn: Callable[[str], None]) -> Iterator[Transfer | Failure]:
        found = _items(meta, local_access, warn, context.cancellation)
        return map(functools.partial(_if_allowed, context.principal.permissions), found)

    report = push(_with_known(items(context.warn), work), work, meta.stable)
    if not (report.count or report.failed or report.unstable or report.error or meta.shard):
        return Reply({"status": False, "msg": NOTHING})  # as 2.x said it, in these words
    audit = None
    if meta.audit and not (meta.dry_run or report.error):
        audit = audit_body(_audited(context, meta, lambda: items(lambda _: None), report))
    localpath = meta.put_spec if is_tree else os.path.dirname(_first_path(meta))
    reply = transfer_reply(report, meta, {"localpath": localpath}, audit)
    if meta.stable:
        reply.body["unstable"] = report.unstable
    return reply


def _audited(
    context: ActionContext,
    meta: PutMeta,
    items: Callable[[], Iterator[Transfer | Failure]],
    report: TransferReport,
) -> Comparison:
    """Compare the files of a push with the store; what that does not have, whatever it lists, is stored again."""

    def means() -> TransferContext:
        return transfer_context(context, meta)

    def pushed() -> Iterator[Transfer | Failure]:
        unstable = set(report.unstable)
        return (item for item in items() if item.path not in unstable)

    comparison = verify(lambda work: _with_known(pushed(), work), means, sure=meta.sure)
    gone = comparison.gone - {failure.key for failure in report.failed}
    if not gone or comparison.error or report.failed_count > len(report.failed):
        return comparison

    def lost() -> Iterator[Transfer]:
        return (item for item in pushed() if isinstance(item, Transfer) and item.key in gone)

    context.warn(f"{len(gone)} files were not in the store, whatever it listed: they were stored again")
    report.add_again(push(lost(), means(), meta.stable))
    if not report.error:
        comparison.replace(gone, verify(lambda _: lost(), means))
    return comparison


def _first_path(meta: PutMeta) -> str:
    return next(filter(None, (meta.put_spec, meta.file, *meta.file_list)), "")


def _is_tree(meta: PutMeta, local_access: LocalAccess) -> bool:
    """Tell whether putSpec is a directory. Raise `LocalFileError` if there is none of that name."""
    if not meta.put_spec:
        return False
    try:
        place = local_access.resolve(meta.put_spec)
        with local_errors(meta.put_spec):
            return stat.S_ISDIR(place.status(follow=True).st_mode)
    except LocalFileError as e:
        raise LocalFileError(f"{NOTHING}: {e}", local=meta.put_spec) from e


def _items(
    meta: PutMeta, local_access: LocalAccess, warn: Callable[[str], None], cancellation: CancellationToken
) -> Iterator[Transfer | Failure]:
    """Yield what is selected of the files, without what the store has of them; a tree in order of the keys."""
    selection = meta.selection

    def excludes(rest: str) -> bool:
        cancellation.checkpoint()  # also where nothing is selected
        return selection.excludes(rest)

    if meta.put_spec:
        found = find_files(
            meta.put_spec,
            follow_symlinks=meta.follow_symlinks,
            warn=warn,
            local_access=local_access,
            excludes=excludes,
        )
        return _put_of_each(map(_place_of, found), meta, local_access)
    listed = [*([meta.file] if meta.file else []), *meta.file_list]
    return _reject_duplicates(
        _put_of_each(
            (_listed(path, local_access) for path in cancellation.checked(listed)), meta, local_access
        )
    )


def _place_of(file: LocalFile | LocalFileError) -> Found:
    return (file.resolved, file.rest) if isinstance(file, LocalFile) else file


def _listed(path: str, local_access: LocalAccess) -> Found:
    try:
        return local_access.resolve(path), path
    except (ForbiddenError, LocalFileError) as e:
        return e


def _put_of_each(
    found: Iterable[Found], meta: PutMeta, local_access: LocalAccess
) -> Iterator[Transfer | Failure]:
    selection, cwd, names = meta.selection, local_access.cwd_if_any, local_access.names
    location = check_location(normal_location(prepended(meta.prepend_bucket_path, meta.in_location)))
    if location and meta.in_location.endswith("/"):
        location += "/"  # a file can't be put there under no name
    for each in found:
        if isinstance(each, PfstorageError):
            yield Failure("", str(each.facts["local"]), each)
            continue
        place, rest = each
        item = _put_of(place, meta.map_location_over, location, cwd, names)
        if selection.selects(item.key, rest or os.path.basename(place.path)):
            yield item


def _put_of(
    place: ResolvedPath, over: str, location: str, cwd: str, names: Sequence[tuple[str, str]]
) -> Transfer | Failure:
    try:
        key = _key_of_file(local_to_key(place.path, over, location, cwd, names))
        return Transfer(key, place.path, None, place.tree, place.parts)
    except InvalidKeyError as e:
        return Failure(str(e.facts.get("key", "")), place.path, e)


def _if_allowed(permissions: Permissions, item: Transfer | Failure) -> Transfer | Failure:
    """Return *item*, or that *permissions* don't reach so far: the store would say so, but of a dry run it is not
    asked."""
    try:
        if isinstance(item, Transfer):
            require_write(permissions, item.key)
        return item
    except PermissionDeniedError as e:
        return Failure(item.key, item.path, e)


def _key_of_file(key: str) -> str:
    if is_directory_marker(key):
        raise InvalidKeyError(
            f"the key {key!r} ends in '/', which stands for a directory: name the object", key=key
        )
    return key


def _reject_duplicates(plan: Iterable[Transfer | Failure]) -> Iterator[Transfer | Failure]:
    """Let a key be put once: of two files for one object, only the first could be told to be there."""
    seen: set[str] = set()
    for item in plan:
        if isinstance(item, Transfer) and item.key in seen:
            error = InvalidKeyError(f"another file goes to {item.key!r} as well", key=item.key)
            yield Failure(item.key, item.path, error)
        else:
            seen.add(item.key)
            yield item


def _with_known(items: Iterator[Transfer | Failure], work: TransferContext) -> Iterator[Transfer | Failure]:
    """Add to each transfer what the store has under its key, which is asked for `AT_ONCE` of them at once."""
    storage = list_partially(
        work.storage, lambda *_: None
    )  # what is not listed is sent, or asked for by itself
    while batch := list(itertools.islice(items, AT_ONCE)):
        known = known_objects(
            storage, [item.key for item in batch if isinstance(item, Transfer)], work.cancellation
        )
        for item in batch:
            if isinstance(item, Transfer) and item.key in known:
                yield replace(item, known=known[item.key])
            else:
                yield item


def known_objects(
    storage: Storage, keys: list[str], cancellation: CancellationToken
) -> dict[str, ObjectInfo]:
    """Return what the store is known to hold under *keys*, from a listing of the range that they lie in.

    A few files that go among millions of others are not looked for among them all: what
    a listing of `LOOK_AHEAD` rows, and as many for each file, does not show is sent.
    """
    if not keys:
        return {}
    wanted, first, last = set(keys), min(keys), max(keys)
    prefix, start_after, stop_before = (
        common_prefix(first, last),
        start_just_before(first),
        last + FIRST_CHARACTER,
    )
    try:
        most = LOOK_AHEAD + LOOK_AHEAD_PER_FILE * len(keys)
        rows = storage.list(prefix, start_after=start_after, stop_before=stop_before, limit=most)
        return {row.key: row for row in cancellation.checked(rows) if row.key in wanted}
    except (ContainerNotFoundError, PermissionDeniedError):
        return {}  # the first put makes the container or is told that it may not; who may write may not list


def _put_upload(context: ActionContext, meta: PutMeta) -> Reply:
    upload = context.request.upload
    if upload is None:
        raise MessageError(
            "meta 'toObject' needs a file: send a multipart form with the fields d_msg and local"
        )
    upload.used = True
    if meta.audit:
        raise MessageError("meta 'audit' goes with local files, which can be read again; leave it out")
    key = _key_of_file(
        check_key(normal_prefix(prepended(meta.prepend_bucket_path, without_dot(meta.to_object))))
    )
    require_write(context.principal.permissions, key)
    report = TransferReport(meta.reply == "full")
    # of a client that has gone, too: it sent all of it
    work = transfer_context(context, meta, cancellation=context.request.cancellation)
    report.note(Transfer(key, upload.filename), _stored_upload(work, key, upload))
    return transfer_reply(report, meta, {"localpath": os.path.dirname(upload.filename)})


def _stored_upload(work: TransferContext, key: str, upload: Upload) -> TransferResult:
    known = known_objects(work.storage, [key], work.cancellation).get(key)

    def store(body: Source, size: int) -> int:
        return store_single(work, key, body, size, known, Attributes(upload.content_type))[1]

    return store_if_needed(work, known, contextlib.nullcontext((upload.body, upload.size)), store)
