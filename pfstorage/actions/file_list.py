"""The files that a push gets by name (``file``, ``fileList``): no directories, and each file once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pfstorage.errors import InvalidKeyError, LocalFileError
from pfstorage.local import ResolvedPath
from pfstorage.transfer import Failure, Transfer


def without_directories(plan: Iterable[Transfer | Failure]) -> Iterator[Transfer | Failure]:
    """Yield the items of *plan*. A directory is a failure."""
    for item in plan:
        if isinstance(item, Transfer) and _place(item).is_directory():
            text = f"{item.path!r} is a directory: push it by putSpec, or name its files"
            yield Failure(item.key, item.path, LocalFileError(text, local=item.path))
        else:
            yield item


def _place(item: Transfer) -> ResolvedPath:
    return ResolvedPath(item.path, item.tree, item.parts)


def without_repeats(plan: Iterable[Transfer | Failure]) -> Iterator[Transfer | Failure]:
    """Yield the items of *plan*, and a repeated file once. A second file for the same key is a failure."""
    seen: dict[str, ResolvedPath] = {}
    for item in plan:
        if isinstance(item, Failure):
            yield item
            continue
        place = _place(item)
        first = seen.setdefault(item.key, place)
        if first is place:
            yield item
        elif not place.is_same(first):
            text = (
                f"{first.path!r} goes to {item.key!r} as well: set mapLocationOver to a directory above both"
            )
            yield Failure(item.key, item.path, InvalidKeyError(text, key=item.key))
