"""Flush a batch of pulled files to the disk together, and then give each its final name."""

from __future__ import annotations

import logging
import time

from pfstorage.errors import PfstorageError
from pfstorage.local import NewFile, local_errors, sync_file_systems
from pfstorage.transfer.context import TransferContext
from pfstorage.transfer.plan import Failure, Transfer, TransferResult

log = logging.getLogger(__name__)

# Files of one batch. Each holds two descriptors until its commit.
BATCH_SIZE = 128
MAX_BATCH_SECONDS = 5.0


class Slot:
    """An item of a plan and its result. *result* is that of the worker, *final* that of the report.

    They differ while a complete file waits for its final name.
    """

    __slots__ = ("final", "item", "result")

    def __init__(self, item: Transfer | Failure) -> None:
        self.item = item
        self.result: TransferResult | Failure | None = None
        self.final: TransferResult | Failure | None = item if isinstance(item, Failure) else None


class CommitBatch:
    """A batch of complete files that have no final name yet. One thread calls all methods."""

    def __init__(self, context: TransferContext) -> None:
        self._context = context
        self._files: dict[Slot, NewFile] = {}
        self._started = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the batch is full, or its first file has waited for `MAX_BATCH_SECONDS`."""
        is_old = time.monotonic() - self._started > MAX_BATCH_SECONDS
        return bool(self._files) and (len(self._files) >= BATCH_SIZE or is_old)

    def add(self, slot: Slot, file: NewFile) -> None:
        if not self._files:
            self._started = time.monotonic()
        self._files[slot] = file

    def commit(self) -> None:
        """Flush the data of all files to the disk, rename them, and flush their directories. Set `Slot.final`.

        If the flush fails, all files of the batch fail. A crash leaves no incomplete file under a final name.
        """
        slots, error = list(self._files), None
        if not slots:
            return
        try:
            if refusal := sync_file_systems(self._files.values()):
                self._context.warn_unsynced(refusal)
        except OSError as e:
            error = e
        for slot in slots:
            with self._files[slot] as file:
                del self._files[slot]  # inside of `with`: an interrupt leaves no unfinished file behind
                try:
                    if error:
                        raise error
                    slot.final = self._context.commit(file)
                except OSError as e:
                    slot.final = _failure_of(slot, e)
            self._context.batch_room.release()
        _sync_directories([slot.item for slot in slots if isinstance(slot.item, Transfer)])


def _sync_directories(items: list[Transfer]) -> None:
    """Flush the directories of the renamed files. Log a failure: the files themselves are complete."""
    for tree in {item.tree for item in items if item.tree is not None}:
        try:
            tree.sync_directories(item.parts[:-1] for item in items if item.tree is tree)
        except OSError as e:
            log.warning("the names of pulled files may not be on the disk yet: %s", e.strerror)


def _failure_of(slot: Slot, error: OSError) -> Failure:
    try:
        with local_errors(slot.item.path):
            raise error
    except PfstorageError as e:
        return Failure(slot.item.key, slot.item.path, e)
