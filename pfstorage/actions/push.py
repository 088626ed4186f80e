"""Store local files: objPut, and its other name objPush."""

from __future__ import annotations

import contextlib
import functools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pfstorage.access.permissions import Permissions
from pfstorage.access.scoped import require_some, require_write
from pfstorage.actions.audit import audit_body
from pfstorage.actions.context import ActionContext, Upload
from pfstorage.actions.file_list import without_directories, without_repeats
from pfstorage.actions.known import known_objects, with_known
from pfstorage.actions.listing import prepended
from pfstorage.actions.options import (
    MoveMeta,
    check_location_text,
    make_transfer_context,
    path_list,
    transfer_reply,
)
from pfstorage.actions.registry import action
from pfstorage.backends.contract import Attributes, Source
from pfstorage.errors import (
    ForbiddenError,
    InvalidKeyError,
    LocalFileError,
    MessageError,
    PermissionDeniedError,
    PfstorageError,
)
from pfstorage.keys.mapping import (
    check_key,
    check_location,
    is_directory_marker,
    local_to_key,
    normal_location,
    normal_prefix,
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

# a local file and its path in the selection, or the reason why it can't be read
FoundFile = tuple[ResolvedPath, str] | ForbiddenError | LocalFileError

# the longest time in seconds for which 'stable' requires that a file has not changed
MAX_STABLE_SECONDS = 366 * 24 * 3600

# the text of 2.x
NOTHING_SELECTED = "No valid file list generated"

NO_UPLOAD = "meta 'toObject' needs a file: send a multipart form with the fields d_msg and local"


@dataclass(frozen=True)
class PutMeta(MoveMeta):
    """The meta of objPut and objPush."""

    put_spec: str = field(default="", metadata={"aliases": ("localpath",)})
    in_location: str = field(default="", metadata={"aliases": ("toLocation",)})
    map_location_over: str = ""
    file: str = ""
    file_list: tuple[str, ...] = ()
    to_object: str = ""
    prepend_bucket_path: str | bool = ""
    follow_symlinks: bool = False
    stable: float = field(default=0.0, metadata={"schema": {"minimum": 0, "maximum": MAX_STABLE_SECONDS}})

    def check(self) -> None:
        """Raise `MessageError` if values are invalid, or if *stable* is set for the attached file of the message."""
        super().check()
        if self.stable and self.to_object:
            raise MessageError(
                "meta 'stable' is for local files, not for the file of the message; leave it out"
            )
        check_location_text(len(self.file_list), self.prepend_bucket_path, self.in_location)

    @property
    def location(self) -> str:
        """The leading part of the keys. Raise `InvalidKeyError` if it is too long."""
        return check_location(normal_location(prepended(self.prepend_bucket_path, self.in_location)))

    def check_access(self, context: ActionContext) -> None:
        if self.to_object:
            raise MessageError(NO_UPLOAD)
        location = self.location
        require_some(context.principal.permissions, f"{location}/" if location else "")
        if self.put_spec:
            with context.local_access() as local_access:
                local_access.check_access(self.put_spec)


_PUT_TEXT = "Store a tree, a file, a list of files, or the file that the sender attached to the message."


@action("objPut", meta=PutMeta, text=_PUT_TEXT)
@action("objPush", meta=PutMeta, text=_PUT_TEXT)
def obj_put(context: ActionContext, meta: PutMeta) -> Reply:
    """Store local files, or the file that the sender attached to the message."""
    if meta.to_object:
        return _store_upload(context, meta)
    with context.local_access() as local_access:
        return _push(context, meta, local_access)


def _push(context: ActionContext, meta: PutMeta, local_access: LocalAccess) -> Reply:
    transfer_context, is_tree = make_transfer_context(context, meta), _is_tree(meta, local_access)

    def items(warn: Callable[[str], None]) -> Iterator[Transfer | Failure]:
        found = _find_items(meta, local_access, warn, context.cancellation)
        return map(functools.partial(_check_permission, context.principal.permissions), found)

    report = push(with_known(items(context.warn), transfer_context), transfer_context, meta.stable)
    if not (report.count or report.failed or report.unstable or report.error or meta.shard):
        return Reply({"status": False, "msg": f"{NOTHING_SELECTED}: {_why_nothing(meta)}"})
    audit = None
    if meta.audit and not (meta.dry_run or report.error):
        audit = audit_body(_audit(context, meta, lambda: items(lambda _: None), report))
    localpath = meta.put_spec if is_tree else os.path.dirname(_first_path(meta))
    reply = transfer_reply(report, meta, {"localpath": localpath}, audit)
    if meta.stable:
        reply.body |= path_list("unstable", report.unstable, meta)
    return reply


def _audit(
    context: ActionContext,
    meta: PutMeta,
    items: Callable[[], Iterator[Transfer | Failure]],
    report: TransferReport,
) -> Comparison:
    """Compare the files of a push with the store. Push those again that the store lists but does not have."""

    def make_context() -> TransferContext:
        return make_transfer_context(context, meta)

    def pushed() -> Iterator[Transfer | Failure]:
        unstable = set(report.unstable)
        return (item for item in items() if item.path not in unstable)

    comparison = verify(
        lambda transfer_context: with_known(pushed(), transfer_context), make_context, sure=meta.sure
    )
    gone = comparison.gone - {failure.key for failure in report.failed}
    if not gone or comparison.error or report.failed_count > len(report.failed):
        return comparison

    def lost() -> Iterator[Transfer]:
        return (item for item in pushed() if isinstance(item, Transfer) and item.key in gone)

    context.warn(f"{len(gone)} files were not in the store, though it may list them: they were stored again")
    report.add_again(push(lost(), make_context(), meta.stable))
    if not report.error:
        comparison.replace(gone, verify(lambda _: lost(), make_context))
    return comparison


def _why_nothing(meta: PutMeta) -> str:
    """Return the reason why *meta* selects no file, and a remedy."""
    if not _first_path(meta):
        return "give putSpec, file or fileList"
    name = repr(meta.put_spec) if meta.put_spec else "fileList"
    if meta.include or meta.exclude:
        return f"{name} has no file that passes include and exclude"
    return f"{name} has no file to push"


def _first_path(meta: PutMeta) -> str:
    return next(filter(None, (meta.put_spec, meta.file, *meta.file_list)), "")


def _is_tree(meta: PutMeta, local_access: LocalAccess) -> bool:
    """Return whether putSpec is a directory. Raise `LocalFileError` if it does not exist."""
    if not meta.put_spec:
        return False
    try:
        place = local_access.resolve(meta.put_spec)
        with local_errors(meta.put_spec):
            return stat.S_ISDIR(place.status(follow=True).st_mode)
    except LocalFileError as e:
        raise LocalFileError(f"{NOTHING_SELECTED}: {e}", local=meta.put_spec) from e


def _find_items(
    meta: PutMeta, local_access: LocalAccess, warn: Callable[[str], None], cancellation: CancellationToken
) -> Iterator[Transfer | Failure]:
    """Yield the transfers of the selected files. Those of a tree are in the order of their keys."""
    selection = meta.selection

    def excludes(rest: str) -> bool:
        cancellation.checkpoint()  # also in directories without selected files
        return selection.excludes(rest)

    if meta.put_spec:
        found = find_files(
            meta.put_spec,
            follow_symlinks=meta.follow_symlinks,
            warn=warn,
            local_access=local_access,
            excludes=excludes,
        )
        return _to_items(map(_to_found, found), meta, local_access)
    listed = [*([meta.file] if meta.file else []), *meta.file_list]
    resolved = (_resolve(path, local_access) for path in cancellation.checked(listed))
    return without_repeats(without_directories(_to_items(resolved, meta, local_access)))


def _to_found(file: LocalFile | LocalFileError) -> FoundFile:
    return (file.resolved, file.rest) if isinstance(file, LocalFile) else file


def _resolve(path: str, local_access: LocalAccess) -> FoundFile:
    try:
        return local_access.resolve(path), path
    except (ForbiddenError, LocalFileError) as e:
        return e


def _to_items(
    found: Iterable[FoundFile], meta: PutMeta, local_access: LocalAccess
) -> Iterator[Transfer | Failure]:
    selection, cwd, names = meta.selection, local_access.cwd_if_any, local_access.names
    location = meta.location
    if location and meta.in_location.endswith("/"):
        location += "/"  # so that no file can take the name of the location
    for each in found:
        if isinstance(each, PfstorageError):
            yield Failure("", str(each.facts["local"]), each)
            continue
        place, rest = each
        item = _to_item(place, meta.map_location_over, location, cwd, names)
        if selection.selects(item.key, rest or os.path.basename(place.path)):
            yield item


def _to_item(
    place: ResolvedPath, over: str, location: str, cwd: str, names: Sequence[tuple[str, str]]
) -> Transfer | Failure:
    try:
        key = _reject_directory_marker(local_to_key(place.path, over, location, cwd, names))
        return Transfer(key, place.path, None, place.tree, place.parts)
    except InvalidKeyError as e:
        return Failure(str(e.facts.get("key", "")), place.path, e)


def _check_permission(permissions: Permissions, item: Transfer | Failure) -> Transfer | Failure:
    """Return *item*, or a failure if *permissions* do not allow its key. A dry run does not ask the store."""
    try:
        if isinstance(item, Transfer):
            require_write(permissions, item.key)
        return item
    except PermissionDeniedError as e:
        return Failure(item.key, item.path, e)


def _reject_directory_marker(key: str) -> str:
    if is_directory_marker(key):
        raise InvalidKeyError(
            f"the key {key!r} ends in '/', which marks a directory: name the object", key=key
        )
    return key


def _store_upload(context: ActionContext, meta: PutMeta) -> Reply:
    upload = context.request.upload
    if upload is None:
        raise MessageError(NO_UPLOAD)
    upload.used = True
    if meta.audit:
        raise MessageError("meta 'audit' is for local files, which can be read again; leave it out")
    key = _reject_directory_marker(
        check_key(normal_prefix(prepended(meta.prepend_bucket_path, without_dot(meta.to_object))))
    )
    require_write(context.principal.permissions, key)
    report = TransferReport(meta.reply == "full")
    # goes on if the client disconnects, because the whole file has arrived
    transfer_context = make_transfer_context(context, meta, cancellation=context.request.cancellation)
    report.note(Transfer(key, upload.filename), _upload_result(transfer_context, key, upload))
    return transfer_reply(report, meta, {"localpath": os.path.dirname(upload.filename)})


def _upload_result(transfer_context: TransferContext, key: str, upload: Upload) -> TransferResult:
    known = known_objects(transfer_context.storage, [key], transfer_context.cancellation).get(key)

    def store(body: Source, size: int) -> int:
        return store_single(transfer_context, key, body, size, known, Attributes(upload.content_type))[1]

    return store_if_needed(transfer_context, known, contextlib.nullcontext((upload.body, upload.size)), store)
