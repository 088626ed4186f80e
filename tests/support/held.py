"""A storage that waits for the test."""

from __future__ import annotations

import threading

from pfstorage.backends import ObjectInfo
from pfstorage.backends.contract import ByteRange, Sink
from pfstorage.backends.memory import MemoryStorage
from pfstorage.settings.model import Settings


class Held(MemoryStorage):
    """A store that returns its objects only after they are released."""

    def __init__(self) -> None:
        super().__init__(Settings(type="memory"))
        self.asked, self.release = threading.Semaphore(0), threading.Event()

    def get(self, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
        self.asked.release()
        assert self.release.wait(60)
        return super().get(key, sink, byte_range)
