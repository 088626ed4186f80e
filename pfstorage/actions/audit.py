"""Whether what should be there is there: what objVerify and the audit of a transfer reply."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

from pfstorage.errors import LocalFileError
from pfstorage.local import LocalAccess, LocalFile, find_files
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer import Failure, Plan, Transfer
from pfstorage.transfer.verify import Comparison


def body_of(comparison: Comparison, left_out: Collection[str] = ()) -> dict[str, Any]:
    """Return what the reply tells of *comparison*; what the store has below the prefixes *left_out*, nobody knows."""
    body: dict[str, Any] = {
        "status": not (comparison.changed or comparison.missing or comparison.failed or comparison.error),
        "same": comparison.skipped,
        "changed": comparison.changed,
        "missing": comparison.missing,
    }
    if comparison.failed:
        body["failed"] = [item.as_row() for item in comparison.failed]
    if error := comparison.first_error:
        body["msg"] = str(error)
        body["error"] = dict(error.facts)
    elif not body["status"]:
        body["msg"] = f"{len(comparison.changed)} files differ and {len(comparison.missing)} are missing"
    elif left_out:
        body["status"] = False
        body["msg"] = (
            f"the store did not list what it has below {min(left_out)!r}"
            + (f" and {len(left_out) - 1} more" if len(left_out) > 1 else "")
            + ": allow pfstorage to read it, or name it in 'exclude'"
        )
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


def local_files(
    root: str, local_access: LocalAccess, takes: Callable[[str], bool], cancellation: CancellationToken
) -> Iterator[LocalFile]:
    """Yield the files below *root* of whose path below it *takes* is true, in ascending order. Heed *cancellation*."""

    def excludes(_: str) -> bool:
        cancellation.checkpoint()  # at directories without files, too
        return False

    try:
        for file in find_files(root, warn=lambda _: None, local_access=local_access, excludes=excludes):
            if isinstance(file, LocalFile) and takes(file.rest):
                yield file
    except LocalFileError:
        return  # there is no such directory: all objects are missing
