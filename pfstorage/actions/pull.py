"""Objects out of the store: objPull, and objVerify, which compares what objPull would have written."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from pfstorage.actions.audit import body_of, local_files, with_extra_files
from pfstorage.actions.context import ActionContext
from pfstorage.actions.listing import is_denied, location_in, prefix_in, prepended
from pfstorage.actions.named import HasRoom, Names
from pfstorage.actions.options import (
    MoveMeta,
    body_if_empty,
    check_location_text,
    transfer_context,
    transfer_reply,
)
from pfstorage.actions.registry import action
from pfstorage.actions.target import Target, refused, resolved
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.errors import FullDiskError, MessageError
from pfstorage.keys.collisions import Collisions
from pfstorage.keys.mapping import check_location, join, normal_location, relative_to, without_dot
from pfstorage.keys.selection import Selection
from pfstorage.local import LocalAccess
from pfstorage.transfer import Failure, Plan, Transfer, TransferContext, TransferReport, pull, verify
from pfstorage.transfer.verify import Comparison
from pfstorage.wire.fields import FromTo
from pfstorage.wire.packed import PackedStrings
from pfstorage.wire.reply import Reply

NOTHING = "no object is selected"

CHECKED_FIRST = 10_000
"""Objects, as many as a store lists on one page, that are looked at before the first byte moves."""


@dataclass(frozen=True)
class PullMeta(MoveMeta):
    path: str | None = None
    substr: str = ""
    from_location: str = ""
    map_location_over: str = field(default="", metadata={"aliases": ("toLocation",)})
    prepend_bucket_path: str | bool = ""
    file_list: tuple[FromTo, ...] | None = None

    @functools.cached_property
    def selection(self) -> Selection:
        return Selection(self.substr, self.include, self.exclude, self.shard)

    def check(self) -> None:
        super().check()
        if self.file_list is None:
            return
        if self.path is not None:
            raise MessageError(
                "meta 'fileList' names the objects, and 'path' selects them: give one of the two"
            )
        if not self.file_list:
            raise MessageError(
                "meta 'fileList' is empty: leave it out to pull all that the other metas select"
            )
        if not all(normal_location(item.from_) and item.to != "" for item in self.file_list):
            raise MessageError("meta 'fileList' has an empty name, which would stand for all")
        check_location_text(len(self.file_list), self.prepend_bucket_path, self.map_location_over)


@action("objPull", meta=PullMeta, text="Write the objects that a path and a selection choose to local files.")
def obj_pull(context: ActionContext, meta: PullMeta) -> Reply:
    with LocalAccess(context.request.roots) as local_access:
        return _pulled(context, meta, local_access)


def _pulled(context: ActionContext, meta: PullMeta, local_access: LocalAccess) -> Reply:
    storage = _listing(context, meta)
    means = functools.partial(transfer_context, context, meta, storage)
    choice = _choice(storage, meta, local_access)
    report = choice.pull(means)
    if _is_denied(report) and (by_name := _by_name(storage, meta, local_access)):
        choice, report = by_name, by_name.pull(means)
    places = {"localpath": choice.target.path, "currentWorkingDir": choice.target.cwd}
    if not (report.count or report.failed or report.error):
        return Reply({**transfer_reply(report, meta, places).body, **body_if_empty(meta, NOTHING)})
    audit = None
    if meta.audit and not (meta.dry_run or report.error):
        audit = body_of(verify(choice.compared, means, choice.resolved, sure=meta.sure), context.left_out)
    return transfer_reply(report, meta, places, audit)


@action(
    "objVerify",
    meta=PullMeta,
    text="Compare local files with the objects that they would be pulled from; move nothing.",
)
def obj_verify(context: ActionContext, meta: PullMeta) -> Reply:
    with LocalAccess(context.request.roots) as local_access:
        return _verified(context, meta, local_access)


def _verified(context: ActionContext, meta: PullMeta, local_access: LocalAccess) -> Reply:
    storage = _listing(context, meta)
    means = functools.partial(transfer_context, context, meta, storage)
    means()  # what is wrong with the message is told first
    extra = PackedStrings()

    def compared(choice: Choice) -> Comparison:
        def plan(work: TransferContext) -> Plan:
            nonlocal extra
            extra = PackedStrings()
            return choice.compared(work, extra.append)

        return verify(plan, means, choice.resolved, sure=meta.sure)

    choice = _choice(storage, meta, local_access)
    comparison = compared(choice)
    if _is_denied(comparison) and (by_name := _by_name(storage, meta, local_access)):
        choice, comparison = by_name, compared(by_name)
    body = body_of(comparison, context.left_out)
    if not (comparison.count or comparison.failed or comparison.error or context.left_out):
        body |= body_if_empty(meta, NOTHING)
    if comparison.error and not comparison.count:
        raise comparison.error
    places = {"localpath": choice.target.path, "currentWorkingDir": choice.target.cwd}
    return Reply({**body, "extra": extra, **places}, comparison.error, partial_error=comparison.first_error)


def _is_denied(report: TransferReport) -> bool:
    """Tell whether there was nothing but a listing that the store refused: it may still give out objects."""
    return is_denied(report.error) and not (report.count or report.failed)


def _listing(context: ActionContext, meta: PullMeta) -> Storage:
    """Return the storage, whose listings may leave something out that *meta* does not exclude: the context tells."""
    meta.check()
    selection = meta.selection
    location = normal_location(prepended(meta.prepend_bucket_path, meta.from_location))

    def ignores(prefix: str) -> bool:
        rest = relative_to(prefix, location) or prefix
        return selection.excludes(rest) or selection.excludes(rest.removesuffix("/"))

    return context.listing(ignores)


def _choice(storage: Storage, meta: PullMeta, local_access: LocalAccess) -> Choice:
    meta.check()
    target = Target(
        location_in(storage, meta.prepend_bucket_path, meta.from_location),
        meta.map_location_over,
        local_access,
    )
    selection = meta.selection
    has_room = None if meta.dry_run else functools.partial(_with_room, keeps=meta.overwrite == "never")
    if meta.file_list is not None:
        check_location(prepended(meta.prepend_bucket_path, ""))
        items = (
            (prepended(meta.prepend_bucket_path, without_dot(item.from_)), item.to) for item in meta.file_list
        )
        return Names(items, target, selection, has_room)
    prefix = None
    if meta.path is not None:
        prefix = prefix_in(storage, meta.prepend_bucket_path, meta.path)
    return Listed(prefix, target, selection, has_room)


def _by_name(storage: Storage, meta: PullMeta, local_access: LocalAccess) -> Names | None:
    """Return the choice of the one object that *meta* may name, for a store that does not list it."""
    choice = _choice(storage, meta, local_access)
    if not isinstance(choice, Listed) or not choice.prefix:
        return None
    return Names([(choice.prefix, None)], choice.target, choice.selection, choice.has_room)


class Choice(Protocol):
    """The objects that a message chooses, and where they go."""

    target: Target

    def pull(self, means: Callable[[], TransferContext]) -> TransferReport:
        """Write them to their files."""
        ...

    def compared(self, work: TransferContext, note_extra: Callable[[str], None] | None = None) -> Plan:
        """Return the plan to compare them with their files; *note_extra* is told of files of no object."""
        ...

    def resolved(self, transfer: Transfer) -> Transfer:
        """See the function `resolved`."""
        ...


class Listed:
    """The objects that ``ls`` would list by *prefix*; without it, those below the location, by whole components."""

    def __init__(
        self, prefix: str | None, target: Target, selection: Selection, has_room: HasRoom | None
    ) -> None:
        """See `Names` for *has_room*."""
        self.prefix = target.location if prefix is None else prefix
        self.target = target
        self.selection = selection
        self.has_room = has_room
        self._only_below = prefix is None

    def pull(self, means: Callable[[], TransferContext]) -> TransferReport:
        work = means()
        plan = self.compared(work)
        return pull(self.has_room(plan, self.target) if self.has_room else plan, work)

    def compared(self, work: TransferContext, note_extra: Callable[[str], None] | None = None) -> Plan:
        rows = work.cancellation.checked(work.storage.list(self.prefix))
        plan = self._plan(row for row in rows if self._takes(row.key))
        if note_extra is None:
            return plan
        files = local_files(
            self.target.top,
            self.target.local_access,
            lambda rest: self._takes(key := join(self.target.location, rest)) and key.startswith(self.prefix),
            work.cancellation,
        )
        return with_extra_files(plan, files, note_extra)

    def resolved(self, transfer: Transfer) -> Transfer:
        return resolved(transfer, self.target.local_access, self.target.top)

    def _takes(self, key: str) -> bool:
        is_below = relative_to(key, self.target.location) is not None
        return (is_below or not self._only_below) and self.target.selects(self.selection, key)

    def _plan(self, rows: Iterable[ObjectInfo]) -> Iterator[Transfer | Failure]:
        """Yield where each row goes, or why it can't go anywhere."""
        collisions: Collisions | None = None
        for row in rows:
            if collisions is None:
                collisions = Collisions(self.target.folds_names())
            item = self.target.planned(row)
            if isinstance(item, Transfer):
                reason = collisions.check(self.target.rest_of(row.key) or "", row.is_directory)
                item = refused(item, reason) if reason else item
            yield item


def _with_room(plan: Plan, target: Target, *, keeps: bool) -> Iterator[Transfer | Failure]:
    """Pass *plan* on for as long as there is room for it; look at `CHECKED_FIRST` items before the first.

    *keeps* tells that files which are there stay. Raise `FullDiskError` instead of what
    there is no room for.
    """
    room, needed = target.free_bytes(), 0
    items = iter(plan)
    while batch := list(itertools.islice(items, CHECKED_FIRST)):
        transfers = [item for item in batch if isinstance(item, Transfer)]
        needed += sum(_size_of(item) for item in transfers)
        if room is not None and needed > room:  # unless the files that are there make up for it
            room, needed = target.free_bytes(), sum(_growth(item, keeps) for item in transfers)
        if room is not None and needed > room:
            text = f"{target.root!r} has room for {room} bytes, and {needed} more are to be written"
            raise FullDiskError(text, local=target.root)
        yield from batch


def _growth(item: Transfer, keeps: bool) -> int:
    """Return how many bytes more the file of *item* takes than what is there now."""
    size = _size_of(item)
    assert item.tree is not None
    try:
        there = item.tree.status(item.parts).st_size
    except (OSError, ValueError):
        return size
    return 0 if keeps else max(0, size - there)


def _size_of(item: Transfer) -> int:
    """Return how many bytes *item* is known to have: of others, the disk will tell whether there is room."""
    return (item.known.size or 0) if item.known else 0
