"""Whether what should be there is there: what objVerify and the audit of a transfer reply."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from pfstorage.backends import ObjectInfo
from pfstorage.errors import LocalFileError, NotFoundError, PermissionDeniedError
from pfstorage.files import Ground, LocalFile, find_files
from pfstorage.transfer import Failure, Plan, Transfer, Work, verify
from pfstorage.transfer.verify import Comparison

PAUSES = (0.5, 1.0, 2.0, 4.0)
"""Seconds between the listings that are asked for what should be there: they lag on large clusters."""


def body_of(comparison: Comparison) -> dict[str, Any]:
    """Return what the reply tells of *comparison*."""
    body: dict[str, Any] = {
        "status": not (comparison.changed or comparison.missing or comparison.failed or comparison.error),
        "same": comparison.skipped,
        "changed": comparison.changed,
        "missing": comparison.missing,
    }
    if comparison.failed:
        body["failed"] = [item.as_row() for item in comparison.failed]
    error = comparison.error or (comparison.failed[0].error if comparison.failed else None)
    if error:
        body["msg"] = str(error)
        body["error"] = dict(error.facts)
    elif not body["status"]:
        body["msg"] = f"{len(comparison.changed)} files differ and {len(comparison.missing)} are missing"
    return body


def with_extra_files(
    plan: Plan, files: Iterator[LocalFile], note: Callable[[str], None]
) -> Iterator[Transfer | Failure]:
    """Pass *plan* on, whose paths ascend as its keys do; *note* those of *files* that are not in it."""
    file = next(files, None)
    for item in plan:
        if isinstance(item, Failure):  # it has no place of its own
            yield item
            continue
        path = os.fsencode(item.path)
        while file is not None and os.fsencode(file.path) < path:
            note(file.path)
            file = next(files, None)
        if file is not None and os.fsencode(file.path) == path:
            file = next(files, None)
        yield item
    while file is not None:
        note(file.path)
        file = next(files, None)


def local_files(root: str, ground: Ground, takes: Callable[[str], bool]) -> Iterator[LocalFile]:
    """Yield the files below *root* of whose path below it *takes* is true, in ascending order."""
    try:
        for file in find_files(root, warn=lambda _: None, ground=ground):
            if isinstance(file, LocalFile) and takes(file.rest):
                yield file
    except LocalFileError:
        return  # there is no such directory: all objects are missing


def audit_push(plan: Callable[[Callable[[str], None]], Plan], work: Work) -> dict[str, Any]:
    """Compare the files of a push with what the store lists now; what it does not list, it is asked for again."""
    unlisted: list[Transfer] = []

    def listed() -> Iterator[Transfer | Failure]:
        for item in plan(lambda _: None):
            if isinstance(item, Transfer) and item.known is None:
                unlisted.append(item)
            elif isinstance(item, Transfer):
                yield item
        yield from _found_later(unlisted, work)

    return body_of(verify(listed(), work))


def _found_later(unlisted: list[Transfer], work: Work) -> Iterator[Transfer]:
    """Yield the transfers with what the store shows of them at last, or without it."""
    for pause in PAUSES:
        if not unlisted:
            return
        work.stop.sleep(pause)
        still = []
        for item in unlisted:
            row = _listed(item.key, work)
            if row is not None:
                yield replace(item, known=row)
            else:
                still.append(item)
        unlisted = still
    for item in unlisted:
        yield replace(item, known=_head(item.key, work))


def _listed(key: str, work: Work) -> ObjectInfo | None:
    try:
        row = next(work.storage.list(key, limit=1), None)
    except PermissionDeniedError:  # who may write may not list
        return None
    return row if row is not None and row.key == key else None


def _head(key: str, work: Work) -> ObjectInfo | None:
    try:
        return work.storage.head(key)
    except NotFoundError:
        return None
