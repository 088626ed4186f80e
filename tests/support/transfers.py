"""Transfers of files, and the threads that they leave."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from typing import Any

from pfstorage.backends import Storage
from pfstorage.backends.contract import ByteRange, ObjectInfo, Sink
from pfstorage.backends.memory import MemoryStorage
from pfstorage.local import LocalTree
from pfstorage.transfer import (
    Options,
    Transfer,
    TransferContext,
    TransferReport,
)

SOON = 10.0


def filled(storage: Storage, count: int, size: int = 4, directory: str = "out") -> list[Transfer]:
    """Put so many objects into *storage*. Return the plan that pulls them into *directory*."""
    tree = LocalTree(directory)
    plan = []
    for number in range(count):
        name = f"{number:04}"
        content = name.encode() * (size // 4)
        info = storage.put(name, io.BytesIO(content), len(content))
        plan.append(Transfer(name, f"{directory}/{name}", info, tree, (name,)))
    return plan


def context_on(storage: Storage, workers: int = 4, **options: Any) -> TransferContext:
    return TransferContext(storage, Options(workers=workers, **options))


def left_threads() -> set[str]:
    """Return the kinds of an engine's threads that do not end. A thread needs a moment to end."""
    end = time.monotonic() + SOON
    while (left := {"plan", "transfer"} & {each.name for each in threading.enumerate()}) and (
        time.monotonic() < end
    ):
        time.sleep(0.001)
    return left


def failed_keys(report: TransferReport) -> list[str]:
    return [item.key for item in report.failed]


class Watched(MemoryStorage):
    """A memory storage whose `get` may fail or wait, and that counts how many are under way."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.most = 0
        self.errors: dict[str, Exception] = {}
        self.always: Exception | None = None
        self.waits: dict[str, Callable[[], object]] = {}
        self._now = 0
        self._count = threading.Lock()

    def get(self, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
        with self._count:
            self.calls.append(key)
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            self.waits.get(key, lambda: None)()
            error = self.errors.get(key, self.always)
            if error:
                raise error
            return super().get(key, sink, byte_range)
        finally:
            with self._count:
                self._now -= 1
