"""Transfers of files, and the threads that they leave."""

from __future__ import annotations

import io
import threading
import time
from typing import Any

from pfstorage.backends import Storage
from pfstorage.local import LocalTree
from pfstorage.transfer import (
    Options,
    Transfer,
    TransferContext,
    TransferReport,
)

SOON = 10.0


def filled(storage: Storage, count: int, size: int = 4, directory: str = "out") -> list[Transfer]:
    """Put so many objects into *storage*; return how they are pulled into *directory*."""
    tree = LocalTree(directory)
    plan = []
    for number in range(count):
        name = f"{number:04}"
        content = name.encode() * (size // 4)
        info = storage.put(name, io.BytesIO(content), len(content))
        plan.append(Transfer(name, f"{directory}/{name}", info, tree, (name,)))
    return plan


def work_on(storage: Storage, workers: int = 4, **options: Any) -> TransferContext:
    return TransferContext(storage, Options(workers=workers, **options))


def left_threads() -> set[str]:
    """Return which kinds of an engine's threads do not end; that one was told to end takes it a moment."""
    end = time.monotonic() + SOON
    while (left := {"plan", "transfer"} & {each.name for each in threading.enumerate()}) and (
        time.monotonic() < end
    ):
        time.sleep(0.001)
    return left


def failed_keys(report: TransferReport) -> list[str]:
    return [item.key for item in report.failed]
