"""The objects that a message names by ``fileList``, which need not be listed to be pulled."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from pfstorage.actions.audit import local_files, with_extra_files
from pfstorage.actions.listing import is_denied, location_in
from pfstorage.actions.target import Target, refused, resolved
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.errors import InvalidKeyError, NotFoundError, PfstorageError, StorageError
from pfstorage.keys.collisions import Collisions, fold
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
    heads_of,
    pull,
    pull_named,
)

Items = Iterator[Transfer | Failure]
NotThere = Callable[[Transfer, PfstorageError], Transfer | Failure]
HasRoom = Callable[[Plan, Target], Plan]


def _as_it_is(plan: Plan, _: Target) -> Plan:
    return plan


@dataclass(frozen=True)
class _Name:
    """One item: *name* is a key, or a location. *target* is where the key goes, *to* what the item says of it.

    *is_location* tells that it is no key: it ends in a slash, or is spelled as no key of ours is.
    """

    name: str
    to: str | None
    target: Target
    is_location: bool


class Names:
    """Objects by their names: a name is a key or, where there is no object of that key, the location of others.

    A name without *to* goes where *target* has it go, another one to its own file or directory. What is named
    twice is taken once; two objects that would be one file are refused.
    """

    def __init__(
        self,
        items: Iterable[tuple[str, str | None]],
        target: Target,
        selection: Selection,
        has_room: HasRoom | None,
    ) -> None:
        """Take *items*, each a name and where it goes. *has_room* passes on a plan to be written; None is a dry run.

        Raise `ForbiddenError` if one of them goes where the message may not.
        """
        self.target = target
        self.selection = selection
        self._has_room = has_room
        self._targets: dict[tuple[str, str], Target] = {}
        self._names = [self._name(name, to) for name, to in dict.fromkeys(items)]
        confirmed: dict[tuple[int, int], bool] = {}
        self._folds = any(each.folds_names(confirmed) for each in {name.target for name in self._names})
        self._forget()

    def _name(self, name: str, to: str | None) -> _Name:
        is_location = is_directory_marker(name) or normal_location(name) != name
        return _Name(name, to, self._target(name, to, is_location), is_location)

    def _target(self, name: str, to: str | None, is_location: bool) -> Target:
        if to is None:
            return self.target
        location = name.rpartition("/")[0] if to.endswith("/") and not is_location else name
        if (location, to) not in self._targets:
            self._targets[location, to] = Target(location, to, self.target.local_access, keeps_open=False)
        return self._targets[location, to]

    def _forget(self) -> None:
        """Begin anew: nothing is known of the store."""
        self._known: dict[str, ObjectInfo | PfstorageError] = {}
        self._locations = {each.name for each in self._names if each.is_location}
        self._marks: set[str] = set()
        self._claims = _Claims(self._folds)

    def pull(self, means: Callable[[], TransferContext]) -> TransferReport:
        """Write the objects to their files. What is surely a key, if there is one, takes one GET."""
        work = means()
        if self._has_room is None:
            return pull(self._plan(work, self._not_there), work)
        self._forget()
        self._known = heads_of(self._unclear(), work)
        tried: list[Transfer] = []
        report = pull_named(self._keys(tried.append), work, self._is_elsewhere)
        for item in tried:
            if item.key not in self._locations:
                self._claims.claim(item)
        if self._locations and not report.error:
            later = means()
            report.add(pull(self._below(later, self._not_there, has_room=self._has_room), later))
        return report

    def _is_elsewhere(self, item: Transfer, is_mark: bool) -> None:
        self._locations.add(item.key)
        if is_mark:
            self._marks.add(item.key)

    def compared(self, work: TransferContext, note_extra: Callable[[str], None] | None = None) -> Plan:
        """Return the plan to compare them with their files. What is not there is a transfer, and found missing."""
        return self._plan(work, lambda item, _: item, note_extra)

    def resolved(self, transfer: Transfer) -> Transfer:
        """See the function `resolved`."""
        tops = (self.target.top, *(each.target.root for each in self._names if each.to))
        above = (top for top in tops if relative_to(transfer.path, top) is not None)
        return resolved(transfer, self.target.local_access, max(above, key=len))

    def _plan(
        self, work: TransferContext, not_there: NotThere, note_extra: Callable[[str], None] | None = None
    ) -> Items:
        self._forget()
        self._known = heads_of((each.name for each in self._names if not each.is_location), work)
        yield from self._keys(lambda _: None)
        yield from self._below(work, not_there, note_extra)

    def _unclear(self) -> Iterator[str]:
        """Yield the names that must be known to be keys or not before anything is written.

        That are those which as keys would not be selected, and those whose files would lie in each other's place.
        """
        places: list[tuple[str, _Name]] = []
        for each in self._names:
            if not each.is_location and not each.target.selects(self.selection, each.name):
                yield each.name
            item = each.target.planned(ObjectInfo(each.name))
            if isinstance(item, Transfer):
                place = self._claims.place(item) + "/"
                places.append((fold(place) if self._folds else place, each))
        above: list[tuple[str, _Name]] = []
        for place, each in sorted(places, key=lambda row: row[0]):
            while above and not place.startswith(above[-1][0]):
                above.pop()
            if above:
                yield from (other.name for other in (above[-1][1], each) if not other.is_location)
            above.append((place, each))

    def _keys(self, note_tried: Callable[[Transfer], None]) -> Items:
        """Yield the names that are keys, and those that may be."""
        for each in self._names:
            if each.name in self._locations:
                continue
            known = self._known.get(each.name)
            if isinstance(known, NotFoundError | InvalidKeyError):
                self._locations.add(each.name)
            elif isinstance(known, PfstorageError):
                yield Failure(each.name, each.target.root, known)
            elif known is None:
                item = each.target.planned(ObjectInfo(each.name))
                if isinstance(item, Transfer):
                    note_tried(item := replace(item, known=None))
                yield item
            else:
                if known.is_directory:
                    self._locations.add(each.name)
                    self._marks.add(each.name)
                if each.target.selects(self.selection, each.name):
                    item = each.target.planned(known)
                    yield from self._claimed(
                        [replace(item, confirmed=True) if isinstance(item, Transfer) else item]
                    )

    def _below(
        self,
        work: TransferContext,
        not_there: NotThere,
        note_extra: Callable[[str], None] | None = None,
        has_room: HasRoom = _as_it_is,
    ) -> Items:
        """Yield the objects at the names that are locations."""
        for each in self._names:
            if each.name in self._locations:
                plan = self._claimed(self._at(each, work, not_there, note_extra))
                yield from has_room(plan, each.target)

    def _at(
        self,
        each: _Name,
        work: TransferContext,
        not_there: NotThere,
        note_extra: Callable[[str], None] | None,
    ) -> Items:
        storage = work.storage
        location = location_in(storage, "", each.name)
        target = self.target if each.to is None else self._target(location, each.to, is_location=True)
        is_empty = True

        def planned() -> Items:
            nonlocal is_empty
            for row in work.cancellation.checked(_rows_at(storage, location, each)):
                is_empty = False
                if target.selects(self.selection, row.key):
                    yield target.planned(row)

        plan: Plan = planned()
        if note_extra is not None:
            plan = with_extra_files(plan, self._files_of(target, location, work.cancellation), note_extra)
        try:
            yield from plan
        except StorageError as e:
            if not is_empty or not is_denied(e):
                raise
            if info := self._spelled_otherwise(storage, each, location):
                if target.selects(self.selection, info.key):
                    yield target.planned(info)
                return
            text = f"there is no object {each.name!r}, and the store does not list what is below it: {e}"
            yield Failure(each.name, target.root, type(e)(text, **e.facts))
            return
        if is_empty and each.name not in self._marks and self.selection.is_in_shard(each.name):
            item = target.planned(ObjectInfo(each.name))
            error = NotFoundError(f"there is no object {each.name!r}, and none below it", key=each.name)
            yield not_there(replace(item, known=None), error) if isinstance(item, Transfer) else item

    @staticmethod
    def _spelled_otherwise(storage: Storage, each: _Name, location: str) -> ObjectInfo | None:
        """Return the object *location*, if there is one and the name is another spelling of its key."""
        if is_directory_marker(each.name) or each.name == location:
            return None
        try:
            return storage.head(location)
        except (NotFoundError, InvalidKeyError):
            return None

    def _files_of(
        self, target: Target, location: str, cancellation: CancellationToken
    ) -> Iterator[LocalFile]:
        rest = target.rest_of(location)
        if rest is None:
            return iter(())
        root = join(target.root, rest) if rest else target.root
        return local_files(
            root,
            target.local_access,
            lambda below_it: target.selects(self.selection, join(location, below_it)),
            cancellation,
        )

    @staticmethod
    def _not_there(item: Transfer, error: PfstorageError) -> Failure:
        return Failure(item.key, item.path, error)

    def _claimed(self, plan: Plan) -> Items:
        """Pass *plan* on, but for what is in it for the second time, and refuse what collides."""
        for item in plan:
            reason = None if isinstance(item, Failure) else self._claims.claim(item, item.is_directory)
            if reason is None:
                yield item
            elif reason and isinstance(item, Transfer):
                yield refused(item, reason)


def _rows_at(storage: Storage, location: str, each: _Name) -> Iterator[ObjectInfo]:
    """Yield what lies below *location*, of which *each* is the name; and what marks it as a directory."""
    if normal_location(each.name) != each.name.removesuffix("/"):  # it may be the spelling of a key, too
        yield from (row for row in storage.list(location) if relative_to(row.key, location) is not None)
        return
    is_empty = True
    for row in storage.list(f"{location}/"):
        is_empty = False
        yield row
    if is_empty and is_directory_marker(each.name):
        mark = next(storage.list(location, limit=1), None)
        if mark and mark.key == location and mark.is_directory:
            yield mark


class _Claims:
    """The local files of one message, which each object claims before it is written."""

    def __init__(self, folds: bool) -> None:
        self._collisions = Collisions(folds, is_sorted=False)
        self._seen: set[bytes] = set()
        self._real = functools.lru_cache(maxsize=64)(os.path.realpath)

    def place(self, item: Transfer) -> str:
        """Return the absolute path of *item*, without links in what leads to its directory."""
        assert item.tree is not None
        return os.path.join(self._real(item.tree.directory), *item.parts)

    def claim(self, item: Transfer, is_directory: bool = False) -> str | None:
        """Return None if the file of *item* is its own; "" if it is already, or else in words why it can't be."""
        place = self.place(item)
        text = f"{place}\0{item.key}".encode("utf-8", "surrogatepass")
        seen = hashlib.blake2b(text, digest_size=16).digest()
        if seen in self._seen:
            return ""
        self._seen.add(seen)
        return self._collisions.check(place, is_directory)
