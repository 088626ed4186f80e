"""Trees of files for transfers, and checks of the results."""

from __future__ import annotations

import contextlib
import filecmp
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.store import Store

BLOCK = 1024**2
SMALL = 1024**2


@dataclass(frozen=True)
class Tree:
    """Files of *size* random bytes each, below *directory*. The last components of *names* are distinct."""

    directory: Path
    names: tuple[str, ...]
    size: int

    @classmethod
    def create(cls, directory: Path, names: Sequence[str], size: int) -> Tree:
        for name in names:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for start in range(0, size, BLOCK):
                    file.write(os.urandom(min(BLOCK, size - start)))
        return cls(directory, tuple(names), size)

    def check_pulled(self, directory: Path) -> None:
        """Raise RuntimeError unless *directory* contains each file with the same bytes, and no other.

        Clients use different subdirectories, so these do not count.
        """
        wanted = {os.path.basename(name): self.directory / name for name in self.names}
        found = {path.name: path for path in directory.rglob("*") if path.is_file()}
        if wanted.keys() != found.keys():
            raise RuntimeError(f"{len(found)} of {len(wanted)} files arrived")
        for name, path in found.items():
            if not filecmp.cmp(wanted[name], path, shallow=False):
                raise RuntimeError(f"{path} differs from the pushed file")

    def check_pushed(self, store: Store, location: str) -> None:
        """Raise RuntimeError unless *location* has an object of the same size for each file, and no other."""
        found = store.sizes(f"{location}/")
        if found != {f"{location}/{name}": self.size for name in self.names}:
            raise RuntimeError(f"{len(found)} of {len(self.names)} objects arrived, or their sizes are wrong")

    @contextlib.contextmanager
    def stored(self, store: Store, location: str) -> Iterator[None]:
        """Keep the files at *location* during a ``with`` block. The benchmark itself stores them."""
        for name in self.names:
            store.put(f"{location}/{name}", self.directory / name)
        yield
        self.delete_if_large(store, location)

    def delete_if_large(self, store: Store, location: str) -> None:
        """Delete the objects at *location* if they are large. See `Bench.temporary_path` for small ones."""
        if self.size > SMALL:
            store.clear(f"{location}/")


def series(count: int) -> list[str]:
    """Return the names of *count* images, a hundred in each study.

    >>> series(101)[-2:]
    ['study0/0099.dcm', 'study1/0100.dcm']
    """
    return [f"study{number // 100}/{number:04}.dcm" for number in range(count)]
