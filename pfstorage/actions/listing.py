"""List and find objects: ls, objExists, objStat."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from pfstorage.actions.context import ActionContext
from pfstorage.actions.options import MoveMeta, make_transfer_context
from pfstorage.actions.registry import action
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.errors import ProxyDeniedError, ProxyLoginError
from pfstorage.backends.listing import SLASH, as_directories, list_level
from pfstorage.errors import (
    InvalidKeyError,
    MessageError,
    NotFoundError,
    PermissionDeniedError,
    PfstorageError,
    StorageError,
    UnauthenticatedError,
)
from pfstorage.keys.mapping import join, normal_location, normal_prefix, without_dot
from pfstorage.transfer.existence import existing
from pfstorage.wire.fields import Schema
from pfstorage.wire.packed import PackedStrings
from pfstorage.wire.reply import Reply
from pfstorage.wire.rows import RowStream

# the fields of a row, and the attributes of `ObjectInfo`
ATTRIBUTES = {
    "name": "key",
    "bytes": "size",
    "hash": "etag",
    "last_modified": "last_modified",
    "content_type": "content_type",
}
# other spellings of fields
_ALIASES = {"content-type": "content_type"}
FIELDS: Schema = {
    "maxItems": len(ATTRIBUTES) + len(_ALIASES),
    "uniqueItems": True,
    "items": {"enum": [*ATTRIBUTES, *_ALIASES]},
}


@dataclass(frozen=True)
class LsMeta:
    """The meta of ls."""

    path: str = ""
    substr: str = ""
    ret_spec: tuple[str, ...] = field(default=("name",), metadata={"schema": FIELDS})
    prepend_bucket_path: str | bool = ""
    limit: int | None = field(default=None, metadata={"schema": {"minimum": 1, "maximum": sys.maxsize}})
    marker: str = ""
    delimiter: str = ""
    sure: bool = False


@dataclass(frozen=True)
class ObjectMeta:
    """The meta of objExists and objStat."""

    obj: str = ""
    prepend_bucket_path: str | bool = ""


def prepended(bucket_path: str | bool, location: str) -> str:
    """Return *location* below *bucket_path*, joined by one slash. 2.x clients also send false for an empty path."""
    if bucket_path is True:
        raise MessageError("meta 'prependBucketPath' takes the text to prepend, not true")
    return join(bucket_path or "", location)


def prefix_in(storage: Storage, bucket_path: str | bool, path: str) -> str:
    """Return the prefix *path* below *bucket_path*, as keys of *storage* begin with it.

    Remove empty components, which keys of pfstorage do not have, unless the store has keys with these components only.
    """
    written = prepended(bucket_path, without_dot(path))
    plain = normal_prefix(written)
    is_plain = plain == written or _means_normal(storage, _has_prefix, plain, written)
    return plain if is_plain else written


def location_in(storage: Storage, bucket_path: str | bool, location: str) -> str:
    """Return *location* below *bucket_path* as `prefix_in` does. A location consists of whole components."""
    written = prepended(bucket_path, without_dot(location))
    plain = normal_location(written)
    is_plain = plain == written.rstrip("/") or _means_normal(storage, _has_location, plain, written)
    return plain if is_plain else written


def _means_normal(storage: Storage, has: Callable[[Storage, str], bool], plain: str, written: str) -> bool:
    """Return whether *written* means *plain*: the store has *plain*, or lacks *written*, or refuses to list objects."""
    try:
        return has(storage, plain) or not has(storage, written)
    except StorageError as e:
        if not is_listing_denied(e):
            raise
        return True


def is_listing_denied(error: PfstorageError | None) -> bool:
    """Return whether *error* means that the store, or a proxy before it, refuses to list objects.

    It may still return single objects.
    """
    return isinstance(error, (PermissionDeniedError, UnauthenticatedError, ProxyDeniedError, ProxyLoginError))


def _has_location(storage: Storage, location: str) -> bool:
    """Return whether the store lists an object with the key *location*, or an object below it."""
    keys = (row.key for row in storage.list(location, limit=1))
    return location in keys or _has_prefix(storage, f"{location}/" if location else "")


def _has_prefix(storage: Storage, prefix: str) -> bool:
    return any(True for _ in storage.list(prefix, limit=1))


@action(
    "ls",
    meta=LsMeta,
    read_only=True,
    text="List the objects whose keys begin with a path, as rows of the requested fields.",
)
def ls(context: ActionContext, meta: LsMeta) -> Reply:
    """List the objects whose keys begin with a path. A long list in the reply is a stream."""
    _check_fields(meta.ret_spec)
    storage = context.listing()
    full_path = prefix_in(storage, meta.prepend_bucket_path, meta.path)
    missing, max_rows = PackedStrings(), context.request.max_rows
    is_bounded = bool(max_rows) and (meta.limit is None or meta.limit > max_rows)
    if is_bounded:  # one more row shows whether the listing is complete
        meta = replace(meta, limit=max_rows + 1)
    rest: Iterator[ObjectInfo] = itertools.islice(
        _rows(context, storage, meta, full_path, missing.append), meta.limit
    )
    if is_bounded:
        rest = _first_rows(rest, max_rows, context.warn)
    first = list(itertools.islice(rest, 1))  # the status depends on whether there is a row
    found = itertools.chain(first, rest)
    body: dict[str, Any] = {"status": bool(first), **({"maxRows": max_rows} if is_bounded else {})}
    if meta.ret_spec:
        picked = [(name, ATTRIBUTES[_unaliased(name)]) for name in meta.ret_spec]
        body["ls"] = RowStream(_picked(found, picked))
    else:
        body["ls"] = _long_form(found, full_path, is_any=bool(first))
    if meta.sure:
        body["missing"] = missing  # grows while the rows are read
    if not first:
        body["msg"] = f"no object begins with {full_path!r}" + (
            f" and has {meta.substr!r}" if meta.substr else ""
        )
    return Reply(body)


def _first_rows(
    rows: Iterable[ObjectInfo], maximum: int, warn: Callable[[str], None]
) -> Iterator[ObjectInfo]:
    """Yield the first *maximum* of *rows*. Call *warn* if there are more."""
    last = ""
    for count, row in enumerate(rows):
        if count == maximum:
            warn(
                f"there are more than the {maximum} rows that the server lists: go on with the meta 'marker': {last!r}"
            )
            return
        last = row.key
        yield row


def _rows(
    context: ActionContext,
    storage: Storage,
    meta: LsMeta,
    full_path: str,
    note_missing: Callable[[str], None],
) -> Iterator[ObjectInfo]:
    """Return the requested rows, and perhaps more. Call *note_missing* with each key that is listed but missing."""
    limit = None if meta.substr or meta.sure else meta.limit
    is_level = meta.delimiter == SLASH
    if is_level:
        rows = list_level(storage, full_path, start_after=meta.marker, limit=limit)
    else:
        rows = storage.list(full_path, start_after=meta.marker, limit=limit, delimiter=meta.delimiter)
    rows = context.cancellation.checked(rows)
    found = (row for row in rows if meta.substr in row.key) if meta.substr else rows
    if meta.sure:
        found = existing(
            found, make_transfer_context(context, MoveMeta()), note_missing, max_pending=meta.limit
        )
    return as_directories(found) if is_level else found


def _picked(found: Iterable[ObjectInfo], picked: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    for row in found:
        if row.is_subdir:
            yield row.as_row()
            continue
        row_fields = {name: getattr(row, attribute) for name, attribute in picked}
        if "" in row_fields.values():  # the store does not report the field
            row_fields = {name: None if value == "" else value for name, value in row_fields.items()}
        yield row_fields


def _long_form(found: Iterable[ObjectInfo], full_path: str, *, is_any: bool) -> dict[str, Any]:
    keys = PackedStrings()  # grows while the rows are read

    def rows() -> Iterator[dict[str, Any]]:
        for row in found:
            keys.append(row.key)
            yield row.as_row()

    return {"status": is_any, "objectDict": RowStream(rows()), "lsList": keys, "fullPath": full_path}


def _check_fields(ret_spec: tuple[str, ...]) -> None:
    for name in ret_spec:
        if _unaliased(name) not in ATTRIBUTES:
            raise MessageError(f"retSpec knows no {name[:80]!r}; it knows {', '.join(ATTRIBUTES)}")


def _unaliased(name: str) -> str:
    return _ALIASES.get(name, name)


@action("objExists", meta=ObjectMeta, read_only=True, text="Report whether an object has exactly this key.")
def obj_exists(context: ActionContext, meta: ObjectMeta) -> Reply:
    """Report whether an object has this key, or this key without empty components."""
    key = _key(meta)
    try:
        found = _head_object(context.storage, key)
    except NotFoundError:
        return Reply({"status": False, "objPath": key, "msg": f"there is no object {key!r}"})
    return Reply({"status": True, "objPath": found.key})


@action(
    "objStat",
    meta=ObjectMeta,
    read_only=True,
    text="Return the metadata of one object, as a row of ``ls``.",
)
def obj_stat(context: ActionContext, meta: ObjectMeta) -> Reply:
    """Return the metadata of one object."""
    found = _head_object(context.storage, _key(meta))
    return Reply({"status": True, "objPath": found.key, "objStat": found.as_row()})


def _head_object(storage: Storage, key: str) -> ObjectInfo:
    """Return the object *key*, or the object whose key is the same without empty components."""
    plain = normal_prefix(key)
    try:
        return storage.head(key)
    except (NotFoundError, InvalidKeyError, PermissionDeniedError):  # a token may only read *plain*
        if plain in (key, ""):
            raise
        return storage.head(plain)


def _key(meta: ObjectMeta) -> str:
    if not meta.obj:
        raise MessageError("meta 'obj' must name the object")
    return prepended(meta.prepend_bucket_path, without_dot(meta.obj))
