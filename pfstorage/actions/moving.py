"""Files into the store and out of it: objPut (objPush) and objPull."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pfstorage import transfer
from pfstorage.actions.listing import prepended
from pfstorage.actions.registry import Context, action
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.errors import (
    ContainerNotFoundError,
    InvalidKeyError,
    LocalFileError,
    MessageError,
    PermissionDeniedError,
    PfstorageError,
)
from pfstorage.files import LocalTree, local_errors, walk
from pfstorage.message import Reply
from pfstorage.pathmap import (
    below,
    check_key,
    common_prefix,
    is_marker,
    join,
    local_parts,
    local_to_key,
    without_dot,
)
from pfstorage.transfer import Failure, Transfer, TransferReport

LOOK_AHEAD = 10_000
LOOK_AHEAD_PER_FILE = 10


@dataclass(frozen=True)
class PutMeta:
    put_spec: str = field(default="", metadata={"aliases": ("localpath",)})
    in_location: str = field(default="", metadata={"aliases": ("toLocation",)})
    map_location_over: str = ""
    file: str = ""
    file_list: tuple[str, ...] = ()
    to_object: str = ""
    prepend_bucket_path: str | bool = ""


@dataclass(frozen=True)
class PullMeta:
    path: str | None = None
    substr: str = ""
    from_location: str = ""
    map_location_over: str = field(default="", metadata={"aliases": ("toLocation",)})
    prepend_bucket_path: str | bool = ""


@action("objPut", meta=PutMeta)
@action("objPush", meta=PutMeta)
def obj_put(context: Context, meta: PutMeta) -> Reply:
    """Store a tree, a file or a list of files; or the file that came with the message."""
    if meta.to_object:
        return _put_upload(context, meta)
    found = _local_files(context, meta)
    if isinstance(found, Reply):
        return found
    paths, unreadable = found
    location = prepended(meta.prepend_bucket_path, without_dot(meta.in_location))
    cwd = _working_directory()
    plan = _without_doubles([_put_of(path, meta.map_location_over, location, cwd) for path in paths])
    known = _known_objects(context.storage, [item.key for item in plan if isinstance(item, Transfer)])
    checked = (_with_known(item, known) for item in (*plan, *unreadable))
    report = transfer.push(context.storage, checked, context.state.settings.workers)
    localpath = meta.put_spec if os.path.isdir(meta.put_spec) else os.path.dirname(paths[0] if paths else "")
    return _reply(report, {"localpath": localpath})


def _local_files(context: Context, meta: PutMeta) -> tuple[list[str], list[Failure]] | Reply:
    nothing = "No valid file list generated"
    if not meta.put_spec:
        paths = [*([meta.file] if meta.file else []), *meta.file_list]
        return (paths, []) if paths else Reply({"status": False, "msg": nothing})
    try:
        found = walk(meta.put_spec)
    except LocalFileError as e:
        raise LocalFileError(f"{nothing}: {e}", local=meta.put_spec) from e
    context.warnings.extend(found.warnings)
    unreadable = [Failure("", str(e.facts["local"]), e) for e in found.unreadable]
    if not found.paths and not unreadable:
        return Reply({"status": False, "msg": nothing})
    return found.paths, unreadable


def _working_directory() -> str:
    with local_errors("."):
        return os.getcwd()


def _put_of(path: str, over: str, location: str, cwd: str) -> Transfer | Failure:
    try:
        return Transfer(_key_of_file(local_to_key(path, over, location, cwd)), path)
    except InvalidKeyError as e:
        return Failure(str(e.facts.get("key", "")), path, e)


def _key_of_file(key: str) -> str:
    if is_marker(key):
        raise InvalidKeyError(
            f"the key {key!r} ends in '/', which stands for a directory: name the object", key=key
        )
    return key


def _without_doubles(plan: list[Transfer | Failure]) -> list[Transfer | Failure]:
    """Let a key be put once: of two files for one object, only the first could be told to be there."""
    seen: set[str] = set()
    checked: list[Transfer | Failure] = []
    for item in plan:
        if isinstance(item, Transfer) and item.key in seen:
            error = InvalidKeyError(f"another file goes to {item.key!r} as well", key=item.key)
            checked.append(Failure(item.key, item.path, error))
        else:
            seen.add(item.key)
            checked.append(item)
    return checked


def _known_objects(storage: Storage, keys: list[str]) -> dict[str, ObjectInfo]:
    """Return what the store is known to hold under *keys*, from a listing of the part that they share.

    A few files that go among millions of others are not looked for among them all: what
    a listing of `LOOK_AHEAD` rows, and as many for each file, does not show is sent.
    """
    if not keys:
        return {}
    wanted, last = set(keys), max(keys)
    known = {}
    try:
        rows = storage.list(common_prefix(min(keys), last))
        for row in itertools.islice(rows, LOOK_AHEAD + LOOK_AHEAD_PER_FILE * len(keys)):
            if row.key > last:
                break
            if row.key in wanted:
                known[row.key] = row
    except (ContainerNotFoundError, PermissionDeniedError):
        return {}  # the first put makes the container or is told that it may not; who may write may not list
    return known


def _with_known(item: Transfer | Failure, known: dict[str, ObjectInfo]) -> Transfer | Failure:
    if isinstance(item, Transfer) and item.key in known:
        return Transfer(item.key, item.path, known[item.key])
    return item


def _put_upload(context: Context, meta: PutMeta) -> Reply:
    upload = context.caller.upload
    if upload is None:
        raise MessageError(
            "meta 'toObject' needs a file: send a multipart form with the fields d_msg and local"
        )
    upload.used = True
    key = _key_of_file(check_key(prepended(meta.prepend_bucket_path, without_dot(meta.to_object))))
    info = context.storage.put(key, upload.body, upload.size)
    done = TransferReport([Transfer(key, upload.filename)], size=info.size)
    return _reply(done, {"localpath": os.path.dirname(upload.filename)})


@action("objPull", meta=PullMeta)
def obj_pull(context: Context, meta: PullMeta) -> Reply:
    """Write the objects that a path and a substring select to local files."""
    location = prepended(meta.prepend_bucket_path, without_dot(meta.from_location))
    rows = _selected(context.storage, meta, location)
    cwd = _working_directory()
    plan = (_pull_of(row, location, meta.map_location_over, cwd) for row in rows)
    report = transfer.pull(context.storage, plan, context.state.settings.workers)
    places = {"localpath": meta.map_location_over or join(cwd, location), "currentWorkingDir": cwd}
    if not (report.done or report.failed or report.error):
        return Reply({**_reply(report, places).body, "status": False, "msg": "no object is selected"})
    return _reply(report, places)


def _selected(storage: Storage, meta: PullMeta, location: str) -> Iterator[ObjectInfo]:
    """Yield what ``ls`` would list; without a path, what lies below the location by whole components."""
    whole = meta.path is None
    prefix = location if meta.path is None else prepended(meta.prepend_bucket_path, without_dot(meta.path))
    for row in storage.list(prefix):
        if meta.substr in row.key and not (whole and below(row.key, location) is None):
            yield row


def _pull_of(row: ObjectInfo, location: str, over: str, cwd: str) -> Transfer | Failure:
    """Decide where *row* goes: below *over*, or under its whole key below the current directory."""
    rest = below(row.key, location)
    spelled = join(over or cwd, rest or "")
    try:
        if rest is None:
            raise InvalidKeyError(f"{row.key!r} is not below fromLocation {location!r}", key=row.key)
        if not over:
            rest, over = row.key, cwd
        elif not rest and is_marker(row.key):  # the location itself: over is its directory
            return Transfer(row.key, over, row, LocalTree(over), ())
        elif not rest:  # one object, and over is its file
            over, rest = os.path.split(over)
        parts = local_parts(rest.removesuffix("/"), row.key)
    except InvalidKeyError as e:
        return Failure(row.key, spelled, e)
    tree = LocalTree(over)
    return Transfer(row.key, join(over, rest), row, tree, parts)


def _reply(report: TransferReport, places: dict[str, str]) -> Reply:
    """Make the reply to a transfer. An error that came before anything was moved is raised."""
    if report.error and not (report.done or report.failed):
        raise report.error
    body: dict[str, Any] = {
        "status": not (report.failed or report.error),
        "localFileList": [item.path for item in report.done],
        "objectFileList": [item.key for item in report.done],
        **places,
        "failed": [item.as_row() for item in report.failed],
        "bytes": report.size,
        "skipped": report.skipped,
        "seconds": round(report.seconds, 3),
    }
    error = report.error or (report.failed[0].error if report.failed else None)
    if error:
        count = len(report.done) + len(report.failed)
        body["msg"] = f"{len(report.failed)} of {count} files failed: {error}"
        body["error"] = dict(error.facts)
    return Reply(body, _unless_partial(error, report))


def _unless_partial(error: PfstorageError | None, report: TransferReport) -> PfstorageError | None:
    """What was transferred makes it an answer, not an error, to a client that reads only the HTTP status."""
    return None if report.done else error
