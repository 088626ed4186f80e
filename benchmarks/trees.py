"""Trees of files to be moved, and whether they have arrived."""

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
    def written(cls, directory: Path, names: Sequence[str], size: int) -> Tree:
        for name in names:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for start in range(0, size, BLOCK):
                    file.write(os.urandom(min(BLOCK, size - start)))
        return cls(directory, tuple(names), size)

    def check_pulled(self, directory: Path) -> None:
        """Raise RuntimeError unless *directory* holds each file, byte for byte, and no other.

        In what directory below it is each client's own affair.
        """
        wanted = {os.path.basename(name): self.directory / name for name in self.names}
        found = {path.name: path for path in directory.rglob("*") if path.is_file()}
        if wanted.keys() != found.keys():
            raise RuntimeError(f"{len(found)} files came of {len(wanted)}")
        for name, path in found.items():
            if not filecmp.cmp(wanted[name], path, shallow=False):
                raise RuntimeError(f"{path} is not what was pushed")

    def check_pushed(self, store: Store, location: str) -> None:
        """Raise RuntimeError unless there is each file at *location*, in its size, and no other."""
        found = store.sizes(f"{location}/")
        if found != {f"{location}/{name}": self.size for name in self.names}:
            raise RuntimeError(f"{len(found)} objects came of {len(self.names)}, or not in their sizes")

    @contextlib.contextmanager
    def stored(self, store: Store, location: str) -> Iterator[None]:
        """Keep the files at *location* for the length of a ``with`` block. No peer has put them there."""
        for name in self.names:
            store.put(f"{location}/{name}", self.directory / name)
        yield
        self.dropped(store, location)

    def dropped(self, store: Store, location: str) -> None:
        """Make room in *store*, where that is worth it: see `Bench.place` for why small files stay."""
        if self.size > SMALL:
            store.clear(f"{location}/")


def series(count: int) -> list[str]:
    """Return names as of *count* images, a hundred in each study.

    >>> series(101)[-2:]
    ['study0/0099.dcm', 'study1/0100.dcm']
    """
    return [f"study{number // 100}/{number:04}.dcm" for number in range(count)]
