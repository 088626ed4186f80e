"""The objects that a message names by ``fileList``. A pull of them needs no listing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from pfstorage.actions.audit import local_files, with_extra_files
from pfstorage.actions.listing import is_listing_denied, location_in
from pfstorage.actions.target import Claims, Target, refusal, resolve_link
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.errors import InvalidKeyError, NotFoundError, PfstorageError, StorageError
from pfstorage.keys.collisions import fold
from pfstorage.keys.mapping import is_directory_marker, join, normal_location, relative_to
from pfstorage.keys.selection import Selection
from pfstorage.local import LocalFile
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer import (
    Failure,
    Plan,
    Transfer,
    TransferContext,
    TransferReport,
    head_all,
    pull,
    pull_named,
)

Items = Iterator[Transfer | Failure]
# makes an item for a name without an object
MakeMissing = Callable[[Transfer, PfstorageError], Transfer | Failure]
# checks that the disk has space for a plan
SpaceCheck = Callable[[Plan, Target], Plan]


def _unchecked(plan: Plan, _: Target) -> Plan:
    return plan


@dataclass(frozen=True)
class _NamedItem:
    """One item of ``fileList``: *name* is a key or a location, and *to* is its path in the message, if it has one.

    *target* maps the key to a file. With *is_location*, the name can't be a key of pfstorage.
    """

    name: str
    to: str | None
    target: Target
    is_location: bool


class NamedObjects:
    """The objects with given names. A name is a key, or the location of several objects if no object has that key.

    A name without a path goes to *target*. Duplicate names count once. If two objects would be one file,
    the second one fails.
    """

    def __init__(
        self,
        items: Iterable[tuple[str, str | None]],
        target: Target,
        selection: Selection,
        check_space: SpaceCheck | None,
    ) -> None:
        """Take *items* of a name and a path or None. *check_space* checks a plan of files to write.

        It is None for a dry run. Raise `ForbiddenError` if the message may not write to one of the paths.
        """
        self.target = target
        self.selection = selection
        self._check_space = check_space
        self._targets: dict[tuple[str, str], Target] = {}
        self._items = [self._item(name, to) for name, to in dict.fromkeys(items)]
        answers: dict[tuple[int, int], bool] = {}
        self._folds_names = any(
            target.folds_names(answers) for target in {item.target for item in self._items}
        )
        self._reset()

    def _item(self, name: str, to: str | None) -> _NamedItem:
        is_location = is_directory_marker(name) or normal_location(name) != name
        return _NamedItem(name, to, self._target(name, to, is_location), is_location)

    def _target(self, name: str, to: str | None, is_location: bool) -> Target:
        if to is None:
            return self.target
        location = name.rpartition("/")[0] if to.endswith("/") and not is_location else name
        if (location, to) not in self._targets:
            self._targets[location, to] = Target(location, to, self.target.local_access, keeps_open=False)
        return self._targets[location, to]

    def _reset(self) -> None:
        """Forget the answers of the store, and all claims."""
        self._known: dict[str, ObjectInfo | PfstorageError] = {}
        self._locations = {each.name for each in self._items if each.is_location}
        self._markers: set[str] = set()
        self._claims = Claims(self._folds_names)

    def pull(self, make_context: Callable[[], TransferContext]) -> TransferReport:
        """Write the objects to their files. An unambiguous key takes one GET and no listing."""
        transfer_context = make_context()
        if self._check_space is None:
            return pull(self._plan(transfer_context, self._missing), transfer_context)
        self._reset()
        self._known = head_all(self._ambiguous_names(), transfer_context)
        attempted: list[Transfer] = []
        report = pull_named(self._plan_keys(attempted.append), transfer_context, self._note_location)
        for item in attempted:
            if item.key not in self._locations:
                self._claims.claim(item)
        if self._locations and not report.error:
            second = make_context()
            plan = self._plan_locations(second, self._missing, check_space=self._check_space)
            report.add(pull(plan, second))
        return report

    def _note_location(self, item: Transfer, is_marker: bool) -> None:
        self._locations.add(item.key)
        if is_marker:
            self._markers.add(item.key)

    def comparison_plan(
        self, transfer_context: TransferContext, note_extra: Callable[[str], None] | None = None
    ) -> Plan:
        """Return a plan that compares the objects with their files. A missing object is a transfer."""
        return self._plan(transfer_context, lambda item, _: item, note_extra)

    def resolve_link(self, transfer: Transfer) -> Transfer:
        """Return *transfer* with the file that its link leads to. See `target.resolve_link`."""
        tops = (self.target.top, *(each.target.root for each in self._items if each.to))
        above = (top for top in tops if relative_to(transfer.path, top) is not None)
        return resolve_link(transfer, self.target.local_access, max(above, key=len))

    def _plan(
        self,
        transfer_context: TransferContext,
        make_missing: MakeMissing,
        note_extra: Callable[[str], None] | None = None,
    ) -> Items:
        self._reset()
        self._known = head_all((each.name for each in self._items if not each.is_location), transfer_context)
        yield from self._plan_keys(lambda _: None)
        yield from self._plan_locations(transfer_context, make_missing, note_extra)

    def _ambiguous_names(self) -> Iterator[str]:
        """Yield the names that may be keys or locations, where the difference matters before the first write.

        The selection excludes them as keys, or the path of one is a directory in the path of another.
        """
        paths: list[tuple[str, _NamedItem]] = []
        for each in self._items:
            if not each.is_location and not each.target.selects(self.selection, each.name):
                yield each.name
            item = each.target.plan(ObjectInfo(each.name))
            if isinstance(item, Transfer):
                path = self._claims.real_path(item) + "/"
                paths.append((fold(path) if self._folds_names else path, each))
        parents: list[tuple[str, _NamedItem]] = []
        for path, each in sorted(paths, key=lambda row: row[0]):
            while parents and not path.startswith(parents[-1][0]):
                parents.pop()
            if parents:
                yield from (other.name for other in (parents[-1][1], each) if not other.is_location)
            parents.append((path, each))

    def _plan_keys(self, note_attempt: Callable[[Transfer], None]) -> Items:
        """Yield the transfers of the names that are keys or may be keys."""
        for each in self._items:
            if each.name in self._locations:
                continue
            known = self._known.get(each.name)
            if isinstance(known, NotFoundError | InvalidKeyError):
                self._locations.add(each.name)
            elif isinstance(known, PfstorageError):
                yield Failure(each.name, each.target.root, known)
            elif known is None:
                item = each.target.plan(ObjectInfo(each.name))
                if isinstance(item, Transfer):
                    note_attempt(item := replace(item, known=None))
                yield item
            else:
                if known.is_directory:
                    self._locations.add(each.name)
                    self._markers.add(each.name)
                if each.target.selects(self.selection, each.name):
                    item = each.target.plan(known)
                    yield from self._without_conflicts(
                        [replace(item, confirmed=True) if isinstance(item, Transfer) else item]
                    )

    def _plan_locations(
        self,
        transfer_context: TransferContext,
        make_missing: MakeMissing,
        note_extra: Callable[[str], None] | None = None,
        check_space: SpaceCheck = _unchecked,
    ) -> Items:
        """Yield the transfers of the objects below the names that are locations."""
        for each in self._items:
            if each.name in self._locations:
                plan = self._without_conflicts(
                    self._plan_location(each, transfer_context, make_missing, note_extra)
                )
                yield from check_space(plan, each.target)

    def _plan_location(
        self,
        each: _NamedItem,
        transfer_context: TransferContext,
        make_missing: MakeMissing,
        note_extra: Callable[[str], None] | None,
    ) -> Items:
        storage = transfer_context.storage
        location = location_in(storage, "", each.name)
        target = self.target if each.to is None else self._target(location, each.to, is_location=True)
        is_empty = True

        def rows_to_items() -> Items:
            nonlocal is_empty
            for row in transfer_context.cancellation.checked(_rows_at(storage, location, each)):
                is_empty = False
                if target.selects(self.selection, row.key):
                    yield target.plan(row)

        plan: Plan = rows_to_items()
        if note_extra is not None:
            plan = with_extra_files(
                plan, self._files_of(target, location, transfer_context.cancellation), note_extra
            )
        try:
            yield from plan
        except StorageError as e:
            if not is_empty or not is_listing_denied(e):
                raise
            if info := self._head_normal_name(storage, each, location):
                if target.selects(self.selection, info.key):
                    yield target.plan(info)
                return
            text = f"there is no object {each.name!r}, and the store does not list objects below it: {e}"
            yield Failure(each.name, target.root, type(e)(text, **e.facts))
            return
        if is_empty and each.name not in self._markers and self.selection.is_in_shard(each.name):
            item = target.plan(ObjectInfo(each.name))
            error = NotFoundError(f"there is no object {each.name!r}, and none below it", key=each.name)
            yield make_missing(replace(item, known=None), error) if isinstance(item, Transfer) else item

    @staticmethod
    def _head_normal_name(storage: Storage, each: _NamedItem, location: str) -> ObjectInfo | None:
        """Return the object with the key *location*, if the name is another spelling of it. Else return None."""
        if is_directory_marker(each.name) or each.name == location:
            return None
        try:
            return storage.head(location)
        except (NotFoundError, InvalidKeyError):
            return None

    def _files_of(
        self, target: Target, location: str, cancellation: CancellationToken
    ) -> Iterator[LocalFile]:
        path = target.relative_path(location, is_directory=True)
        if path is None:
            return iter(())
        root = join(target.root, path) if path else target.root
        return local_files(
            root,
            target.local_access,
            lambda rest: target.selects(self.selection, join(location, rest)),
            cancellation,
        )

    @staticmethod
    def _missing(item: Transfer, error: PfstorageError) -> Failure:
        return Failure(item.key, item.path, error)

    def _without_conflicts(self, plan: Plan) -> Items:
        """Yield the items of *plan* without duplicates. An item whose file conflicts with another is a failure."""
        for item in plan:
            reason = None if isinstance(item, Failure) else self._claims.claim(item, item.is_directory)
            if reason is None:
                yield item
            elif reason and isinstance(item, Transfer):
                yield refusal(item, reason)


def _rows_at(storage: Storage, location: str, each: _NamedItem) -> Iterator[ObjectInfo]:
    """Yield the objects below *location*, or its directory marker if *each* names one and nothing is below it."""
    if normal_location(each.name) != each.name.removesuffix("/"):  # it may also be another spelling of a key
        yield from (row for row in storage.list(location) if relative_to(row.key, location) is not None)
        return
    is_empty = True
    for row in storage.list(f"{location}/"):
        is_empty = False
        yield row
    if is_empty and is_directory_marker(each.name):
        marker = next(storage.list(location, limit=1), None)
        if marker and marker.key == location and marker.is_directory:
            yield marker
