"""The objects that objPull and objVerify select, and the plans for their files."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from pfstorage.access.scoped import require_some
from pfstorage.actions.audit import local_files, with_extra_files
from pfstorage.actions.context import ActionContext
from pfstorage.actions.listing import is_listing_denied, location_in, prefix_in, prepended
from pfstorage.actions.named import NamedObjects, SpaceCheck
from pfstorage.actions.options import MoveMeta, check_location_text
from pfstorage.actions.target import Target, refusal, resolve_link
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.errors import MessageError
from pfstorage.keys.collisions import Collisions
from pfstorage.keys.mapping import (
    MAX_KEY_BYTES,
    check_location,
    join,
    normal_location,
    normal_prefix,
    relative_to,
    without_dot,
)
from pfstorage.keys.selection import Selection
from pfstorage.local import LocalAccess
from pfstorage.transfer import Failure, Plan, Transfer, TransferContext, TransferReport, pull
from pfstorage.wire.converters import FromTo


@dataclass(frozen=True)
class PullMeta(MoveMeta):
    """The meta of objPull and objVerify."""

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
        """Raise `MessageError` if values are invalid, or if *file_list* is empty or contradicts *path*."""
        super().check()
        if self.file_list is None:
            return
        if self.path is not None:
            raise MessageError(
                "meta 'fileList' names the objects, and 'path' selects them: give one of the two"
            )
        if not self.file_list:
            raise MessageError(
                "meta 'fileList' is empty: leave it out to pull all objects that the other metas select"
            )
        if not all(normal_location(item.from_) and item.to != "" for item in self.file_list):
            raise MessageError(
                "meta 'fileList' has an empty name, which would mean all objects: name each object"
            )
        check_location_text(len(self.file_list), self.prepend_bucket_path, self.map_location_over)

    def check_access(self, context: ActionContext) -> None:
        if self.file_list is not None:
            check_location(prepended(self.prepend_bucket_path, ""))
        elif self.path is not None:
            prefix = normal_prefix(prepended(self.prepend_bucket_path, without_dot(self.path)))
            require_some(context.principal.permissions, prefix)
        else:
            location = normal_location(prepended(self.prepend_bucket_path, self.from_location))
            require_some(context.principal.permissions, location)
        paths = {self.map_location_over, *(item.to for item in self.file_list or ())}
        with context.local_access() as local_access:
            for path in filter(None, paths):
                local_access.check_access(path.rstrip("/") or "/")


class ObjectChoice(Protocol):
    """The objects that a message selects, and the target of their files."""

    target: Target

    def pull(self, make_context: Callable[[], TransferContext]) -> TransferReport:
        """Write the objects to their files."""
        ...

    def comparison_plan(
        self, transfer_context: TransferContext, note_extra: Callable[[str], None] | None = None
    ) -> Plan:
        """Return a plan that compares the objects with their files. Pass files without an object to *note_extra*."""
        ...

    def resolve_link(self, transfer: Transfer) -> Transfer:
        """Return *transfer* with the file that its link leads to. See `target.resolve_link`."""
        ...


class ListedObjects:
    """The objects that a listing of *prefix* shows. With None, those at or below the location of *target*."""

    def __init__(
        self, prefix: str | None, target: Target, selection: Selection, check_space: SpaceCheck | None
    ) -> None:
        """Set the selection. *check_space* checks a plan of files to write. It is None for a dry run."""
        self.prefix = target.location if prefix is None else prefix
        self.target = target
        self.selection = selection
        self.check_space = check_space
        self._is_below_only = prefix is None

    def pull(self, make_context: Callable[[], TransferContext]) -> TransferReport:
        transfer_context = make_context()
        plan = self.comparison_plan(transfer_context)
        return pull(self.check_space(plan, self.target) if self.check_space else plan, transfer_context)

    def comparison_plan(
        self, transfer_context: TransferContext, note_extra: Callable[[str], None] | None = None
    ) -> Plan:
        rows = transfer_context.cancellation.checked(transfer_context.storage.list(self.prefix))
        plan = self._plan(row for row in rows if self._selects(row.key))
        if note_extra is None:
            return plan
        files = local_files(
            self.target.top,
            self.target.local_access,
            lambda rest: (
                self._selects(key := join(self.target.location, rest)) and key.startswith(self.prefix)
            ),
            transfer_context.cancellation,
        )
        return with_extra_files(plan, files, note_extra)

    def resolve_link(self, transfer: Transfer) -> Transfer:
        return resolve_link(transfer, self.target.local_access, self.target.top)

    def _selects(self, key: str) -> bool:
        is_below = relative_to(key, self.target.location) is not None
        return (is_below or not self._is_below_only) and self.target.selects(self.selection, key)

    def _plan(self, rows: Iterable[ObjectInfo]) -> Iterator[Transfer | Failure]:
        """Yield a transfer for each row, or a failure if its key can't be a file."""
        first: tuple[str, bool] | None = None
        collisions: Collisions | None = None
        for row in rows:
            item = self.target.plan(row)
            if isinstance(item, Transfer):
                # an object and objects below its key collide, wherever the file is
                path = self.target.relative_path(row.key, is_directory=True) or ""
                if first is None:
                    first = path, row.is_directory
                else:
                    collisions = collisions or self._collisions_with(*first)
                    reason = collisions.check(path, row.is_directory)
                    item = refusal(item, reason) if reason else item
            yield item

    def _collisions_with(self, first: str, is_directory: bool) -> Collisions:
        """Return the check of all files after the *first*. It tests the file system, which one file does not need."""
        collisions = Collisions(self.target.folds_names())
        collisions.check(first, is_directory)
        return collisions


def choose(
    storage: Storage, meta: PullMeta, local_access: LocalAccess, check_space: SpaceCheck | None = None
) -> ObjectChoice:
    """Return the objects that *meta* selects. Raise `ForbiddenError` if the message may not write to the target."""
    location = location_in(storage, meta.prepend_bucket_path, meta.from_location)
    target = Target(location, meta.map_location_over, local_access)
    if meta.file_list is not None:
        check_location(prepended(meta.prepend_bucket_path, ""))
        items = (
            (prepended(meta.prepend_bucket_path, without_dot(item.from_)), item.to) for item in meta.file_list
        )
        return NamedObjects(items, target, meta.selection, check_space)
    prefix = None
    if meta.path is not None:
        prefix = prefix_in(storage, meta.prepend_bucket_path, meta.path)
    return ListedObjects(prefix, target, meta.selection, check_space)


def choose_unlisted(choice: ObjectChoice, report: TransferReport) -> NamedObjects | None:
    """Return the prefix of *choice* as the name of one object, if the store refused to list objects.

    A store may return an object that it does not list.
    """
    is_denied = is_listing_denied(report.error) and not (report.count or report.failed)
    if not is_denied or not isinstance(choice, ListedObjects) or not choice.prefix:
        return None
    return NamedObjects([(choice.prefix, None)], choice.target, choice.selection, choice.check_space)


def text_if_empty(meta: PullMeta, choice: ObjectChoice) -> str:
    """Return the text for a choice without objects: the place that *meta* names, and the metas that select there."""
    place = "fileList names none"
    if meta.file_list is None and meta.path is not None:
        place = f"none begins with path {prepended(meta.prepend_bucket_path, meta.path)[:MAX_KEY_BYTES]!r}"
    elif meta.file_list is None:
        location = choice.target.location[:MAX_KEY_BYTES]
        place = f"none is below fromLocation {location!r}" if location else "the store has none"
    is_filtered = bool(meta.substr or meta.include or meta.exclude)
    filters = " that passes substr, include and exclude" if is_filtered else ""
    return f"no object is selected: {place}{filters}"


def selected_storage(context: ActionContext, meta: PullMeta) -> Storage:
    """Return the storage. Its listings skip unreadable prefixes, with a warning unless *meta* excludes them."""
    selection = meta.selection
    location = normal_location(prepended(meta.prepend_bucket_path, meta.from_location))

    def ignores(prefix: str) -> bool:
        rest = relative_to(prefix, location) or prefix
        return selection.excludes(rest) or selection.excludes(rest.removesuffix("/"))

    return context.listing(ignores)
