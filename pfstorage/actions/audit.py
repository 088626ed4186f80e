"""Replies of objVerify and of audits, and local files without an object."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

from pfstorage.errors import LocalFileError
from pfstorage.local import LocalAccess, LocalFile, find_files
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer import Failure, Plan, Transfer
from pfstorage.transfer.verify import Comparison


def audit_body(comparison: Comparison, left_out: Collection[str] = ()) -> dict[str, Any]:
    """Return the members of the reply that report *comparison*. Its status is false if prefixes were *left_out*."""
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
            f"the store did not list the objects below {min(left_out)!r}"
            + (f" and {len(left_out) - 1} more" if len(left_out) > 1 else "")
            + ": allow pfstorage to read it, or name it in 'exclude'"
        )
    return body


def with_extra_files(
    plan: Plan, files: Iterator[LocalFile], note: Callable[[str], None]
) -> Iterator[Transfer | Failure]:
    """Yield the items of *plan*. Call *note* with the path of each of *files* that has no item.

    The paths of *plan* and *files* must be in ascending order.
    """
    file = next(files, None)
    for item in plan:
        if isinstance(item, Failure):  # its path is not in order
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
    root: str, local_access: LocalAccess, selects: Callable[[str], bool], cancellation: CancellationToken
) -> Iterator[LocalFile]:
    """Yield the files below *root* in ascending order, if *selects* is true of their relative path.

    Raise `StoppedError` after *cancellation*.
    """

    def excludes(_: str) -> bool:
        cancellation.checkpoint()  # also in directories without files
        return False

    try:
        for file in find_files(root, warn=lambda _: None, local_access=local_access, excludes=excludes):
            if isinstance(file, LocalFile) and selects(file.rest):
                yield file
    except LocalFileError:
        return  # the directory does not exist: all objects are missing
