"""Objects out of the store: objPull, and objVerify, which compares what objPull would have written."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from pfstorage.actions.auditing import body_of, local_files, with_extra_files
from pfstorage.actions.listing import location_in, prefix_in
from pfstorage.actions.options import MoveMeta, reply_of, when_nothing, work_of
from pfstorage.actions.registry import Context, action
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.collisions import Collisions
from pfstorage.errors import FullDiskError, InvalidKeyError, LocalFileError
from pfstorage.files import Ground, local_errors, require_no_part
from pfstorage.pathmap import below, join, local_parts
from pfstorage.reply import Reply, Texts
from pfstorage.transfer import Failure, Plan, Transfer, Work, pull, verify

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


class Target:
    """Where objects go: from below *location* to below *over*, or without that under their whole keys to below *cwd*.

    Raise `ForbiddenError` if that is not on the *ground*.
    """

    def __init__(self, location: str, over: str, ground: Ground) -> None:
        self.ground = ground
        self.cwd = ground.cwd_if_any if over else ground.cwd
        self.location = location
        self.over = over
        self.root = (self.over.rstrip("/") or "/") if self.over else self.cwd
        self._tree, self._parts = ground.directory(self.root)

    @property
    def path(self) -> str:
        """The path that stands for all of it, as the message spells it."""
        return self.over or self.top

    @property
    def top(self) -> str:
        """The path below which the files lie."""
        return self.root if self.over else join(self.cwd, self.location)

    def rest_of(self, key: str) -> str | None:
        """Return the path of *key* below the root; None if it is not below the location."""
        rest = below(key, self.location)
        return key if rest is not None and not self.over else rest

    def transfer(self, row: ObjectInfo) -> Transfer:
        """Decide where *row* goes. Raise `InvalidKeyError` if it has no place."""
        rest = self.rest_of(row.key)
        if rest is None:
            raise InvalidKeyError(f"{row.key!r} is not below fromLocation {self.location!r}", key=row.key)
        if rest:
            below_it = local_parts(rest.removesuffix("/"), row.key)
            require_no_part(below_it, row.key)
            parts = (*self._parts, *below_it)
            return Transfer(row.key, join(self.root, rest), row, self._tree, parts)
        if row.is_directory:  # the location itself: over is its directory
            return Transfer(row.key, self.root, row, self._tree, self._parts)
        # one object, and over is its file
        require_no_part(local_parts(os.path.basename(self.root), row.key), row.key)
        tree, parts = self.ground.file(self.root)
        return Transfer(row.key, self.root, row, tree, parts)

    def led(self, transfer: Transfer) -> Transfer:
        """Return *transfer* with the file that a link in its place leads to, as a push takes it.

        Raise `LocalFileError` if that is out of the tree, and `OSError` if it leads nowhere.
        """
        place = self.ground.led(self.ground.place(transfer.path, follow=False))
        if not place.is_below(self.ground.place(self.top)):
            raise LocalFileError(
                f"{transfer.path!r} is a link that leads out of the tree", local=transfer.path
            )
        place.status(follow=True)
        return replace(transfer, tree=place.tree, parts=place.parts)

    def folds_names(self) -> bool:
        """Tell whether names that differ in case alone are one where the objects go."""
        return self._tree.folds_names(self._parts)

    def free_bytes(self) -> int | None:
        """Return for how many bytes there is room, None if that can't be told. Raise `LocalFileError`."""
        with local_errors(self.root):
            return self._tree.free_bytes(self._parts)


@action("objPull", meta=PullMeta, text="Write the objects that a path and a selection choose to local files.")
def obj_pull(context: Context, meta: PullMeta) -> Reply:
    with Ground(context.caller.roots) as ground:
        return _pulled(context, meta, ground)


def _pulled(context: Context, meta: PullMeta, ground: Ground) -> Reply:
    work, target = work_of(context, meta), _target(context, meta, ground)
    plan = _plan(_selected(work.storage, meta, target), target)
    if not meta.dry_run:
        plan = _with_room(plan, target, keeps=meta.overwrite == "never")
    report = pull(plan, work)
    places = {"localpath": target.path, "currentWorkingDir": target.cwd}
    if not (report.count or report.failed or report.error):
        return Reply({**reply_of(report, meta, places).body, **when_nothing(meta, NOTHING)})
    audit = None
    if meta.audit and not (meta.dry_run or report.error):
        audit = body_of(
            verify(
                lambda again: _plan(_selected(again.storage, meta, target), target),
                lambda: work_of(context, meta),
                target.led,
                sure=meta.sure,
            )
        )
    return reply_of(report, meta, places, audit)


@action(
    "objVerify",
    meta=PullMeta,
    text="Compare local files with the objects that they would be pulled from; move nothing.",
)
def obj_verify(context: Context, meta: PullMeta) -> Reply:
    with Ground(context.caller.roots) as ground:
        return _verified(context, meta, ground)


def _verified(context: Context, meta: PullMeta, ground: Ground) -> Reply:
    target = _target(context, meta, ground)
    extra = Texts()
    prefix, takes = _choice(context.storage, meta, target)

    def plan(work: Work) -> Plan:
        nonlocal extra
        extra = Texts()
        files = local_files(
            target.top,
            target.ground,
            lambda rest: takes(key := join(target.location, rest)) and key.startswith(prefix),
        )
        return with_extra_files(_plan(_selected(work.storage, meta, target), target), files, extra.append)

    comparison = verify(plan, lambda: work_of(context, meta), target.led, sure=meta.sure)
    body = body_of(comparison)
    if not (comparison.count or comparison.failed or comparison.error):
        body |= when_nothing(meta, NOTHING)
    if comparison.error and not comparison.count:
        raise comparison.error
    places = {"localpath": target.path, "currentWorkingDir": target.cwd}
    return Reply({**body, "extra": extra, **places}, comparison.error)


def _target(context: Context, meta: PullMeta, ground: Ground) -> Target:
    location = location_in(context.storage, meta.prepend_bucket_path, meta.from_location)
    return Target(location, meta.map_location_over, ground)


def _selected(storage: Storage, meta: PullMeta, target: Target) -> Iterator[ObjectInfo]:
    """Yield the objects that the message chooses."""
    prefix, takes = _choice(storage, meta, target)
    return (row for row in storage.list(prefix) if takes(row.key))


def _choice(storage: Storage, meta: PullMeta, target: Target) -> tuple[str, Callable[[str], bool]]:
    """Return the prefix of the chosen keys, and what tells which of those are chosen.

    That is what ``ls`` would list; without a path, what lies below the location by whole components.
    """
    selection = meta.selection(meta.substr)

    def takes(key: str) -> bool:
        rest = below(key, target.location)
        if rest is None and meta.path is None:
            return False
        return selection.takes(key, key if rest is None else rest)

    if meta.path is None:
        return target.location, takes
    return prefix_in(storage, meta.prepend_bucket_path, meta.path), takes


def _plan(rows: Iterator[ObjectInfo], target: Target) -> Iterator[Transfer | Failure]:
    """Yield where each row goes, or why it can't go anywhere."""
    collisions: Collisions | None = None
    for row in rows:
        if collisions is None:
            collisions = Collisions(target.folds_names())
        try:
            item = target.transfer(row)
            reason = collisions.check(target.rest_of(row.key) or "", row.is_directory)
            if reason:
                raise InvalidKeyError(f"the key {row.key!r}: {reason}", key=row.key)
            yield item
        except InvalidKeyError as e:
            yield Failure(row.key, join(target.root, target.rest_of(row.key) or ""), e)


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
