"""The states of a disk after a power cut: the system calls of a program, replayed on a disk that keeps little.

The disk keeps no more than POSIX promises: the bytes and attributes that a file had at its last fsync(2), and the
names that a directory had at its last fsync(2), with any subset of the later changes.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "mkdir mkdirat openat write pwrite64 ftruncate fallocate fsetxattr rename renameat renameat2 link linkat"
    " unlink unlinkat rmdir fsync fdatasync syncfs"
)
_CALL = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)")
_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')
_OPEN = re.compile(r"(?:\d+|AT_FDCWD)<([^>]*)>(\(deleted\))?")
MOST_CHANGES = 12

ABSENT, TORN = -1, -2
BYTES = "bytes"
MD5 = "user.pfstorage.md5"
"""An attribute that a file may lack: the next reader computes it again."""


@dataclass(eq=False)
class File:
    """A file: its size in bytes, and the parts that are not on the disk yet: its bytes, or attributes by name."""

    size: int = 0
    unsynced: set[str] = field(default_factory=set)

    def sync(self) -> None:
        self.unsynced.clear()


@dataclass(eq=False)
class Directory:
    """A directory: its *names* as programs see them, as the disk has *kept* them, and the *changes* since."""

    names: dict[str, Node] = field(default_factory=dict)
    kept: dict[str, Node] = field(default_factory=dict)
    changes: list[dict[str, Node | None]] = field(default_factory=list)

    def change(self, **now: Node | None) -> None:
        """Change the targets of names, or remove those with None: atomically, as rename(2) does."""
        self.changes.append(now)
        _apply(now, self.names)

    def sync(self) -> None:
        self.kept, self.changes = dict(self.names), []


Node = File | Directory


def _apply(change: dict[str, Node | None], names: dict[str, Node]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Disk:
    """A disk on which nothing but the directory *base* was kept yet."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._top = Directory()
        self._gone: dict[str, Node] = {}
        self.said: list[str] = []
        """The lines that the program wrote to its standard error."""

    def replay(self, lines: Sequence[str]) -> Iterator[str]:
        """Repeat the calls in *lines*, the output of ``strace -f -y``. Yield the name of each effective call."""
        begun: dict[str, str] = {}
        for line in lines:
            process = line.partition(" ")[0]
            if line.endswith("<unfinished ...>"):
                begun[process] = line.removesuffix("<unfinished ...>")
                continue
            if resumed := re.match(r"\d+ +<\.\.\. \w+ resumed>", line):
                found = _CALL.match(begun.pop(process) + line[resumed.end() :])
            else:
                found = _CALL.match(line)
            if found and int(found[4]) >= 0 and self._do(found[2], found[3], int(found[4])):
                yield found[2]

    def _do(self, call: str, arguments: str, result: int) -> bool:
        opened = _OPEN.search(arguments)
        if call == "write" and arguments.startswith("2<"):
            self.said.append(_NAME.findall(arguments)[0].removesuffix("\\n"))
            return True
        if call in ("write", "pwrite64", "ftruncate", "fallocate", "fsetxattr", "fsync", "fdatasync"):
            node = opened and self._at(opened[1], is_gone=bool(opened[2]))
            if not node:
                return False
            if call.endswith("sync"):
                node.sync()
                return True
            assert isinstance(node, File)
            node.unsynced.add(_NAME.findall(arguments)[0] if call == "fsetxattr" else BYTES)
            node.size += result if call.endswith(("write", "write64")) else 0
            return True
        if call == "syncfs":
            for each in self._all(self._top):
                each.sync()
            return True
        return self._name(call, arguments)

    def _name(self, call: str, arguments: str) -> bool:
        """Repeat a call that changes names."""
        bases = [found[1] for found in _OPEN.finditer(arguments)] or [str(self._base)] * 2
        paths = [os.path.join(*pair) for pair in zip(bases, _NAME.findall(arguments), strict=False)]
        if not all(path.startswith(f"{self._base}/") for path in paths):
            return False
        directory, name = self._around(paths[0])
        if call.startswith("openat"):
            if "O_CREAT" not in arguments or name in directory.names:
                return False
            directory.change(**{name: File()})
        elif call.startswith("mkdir"):
            directory.change(**{name: Directory()})
        elif call.startswith(("unlink", "rmdir")):
            self._gone[paths[0]] = directory.names[name]
            directory.change(**{name: None})
        else:
            target, new = self._around(paths[1])
            assert target is directory  # nothing here moves files between directories
            before = {name: None} if call.startswith("rename") else {}
            target.change(**before, **{new: directory.names[name]})
        return True

    def _around(self, path: str) -> tuple[Directory, str]:
        node = self._at(os.path.dirname(path))
        assert isinstance(node, Directory), path
        return node, os.path.basename(path)

    def _at(self, path: str, *, is_gone: bool = False) -> Node | None:
        if is_gone:
            return self._gone.get(path)
        if path != str(self._base) and not path.startswith(f"{self._base}/"):
            return None
        node: Node | None = self._top
        for part in Path(path).relative_to(self._base).parts:
            node = node.names.get(part) if isinstance(node, Directory) else None
        return node

    def _all(self, node: Node) -> Iterator[Node]:
        yield node
        for each in node.names.values() if isinstance(node, Directory) else ():
            yield from self._all(each)

    def after_power_cuts(self, paths: Sequence[str]) -> Iterator[dict[str, int]]:
        """Yield for each state that a cut may leave how large the files *paths* are, or ABSENT or TORN."""
        changed = [each for each in self._all(self._top) if isinstance(each, Directory) and each.changes]
        assert sum(len(each.changes) for each in changed) <= MOST_CHANGES, "there are too many states"
        for kept in itertools.product(*(_subsets(each.changes) for each in changed)):
            names = {
                directory: _names(directory, changes)
                for directory, changes in zip(changed, kept, strict=True)
            }
            yield {path: self._size(path, names) for path in paths}

    def _size(self, path: str, names: dict[Directory, dict[str, Node]]) -> int:
        node: Node | None = self._top
        for part in path.split("/"):
            node = names.get(node, node.kept).get(part) if isinstance(node, Directory) else None
        if not isinstance(node, File):
            return ABSENT
        return TORN if node.unsynced - {MD5} else node.size

    def unsynced(self) -> list[File]:
        """Return the files of which something is not on the disk."""
        return [each for each in self._all(self._top) if isinstance(each, File) and each.unsynced]


def _subsets(changes: list[dict[str, Node | None]]) -> Iterator[Sequence[dict[str, Node | None]]]:
    return itertools.chain.from_iterable(
        itertools.combinations(changes, count) for count in range(len(changes) + 1)
    )


def _names(directory: Directory, changes: Sequence[dict[str, Node | None]]) -> dict[str, Node]:
    names = dict(directory.kept)
    for each in changes:
        _apply(each, names)
    return names


def traced(command: Sequence[str], output: Path, **options: object) -> list[str]:
    """Run *command*, and return its calls that change files, as ``strace`` wrote them to *output*."""
    calls = ",".join(f"?{call}" for call in CALLS.split())
    strace = [
        "strace",
        "-f",
        "-y",
        "-qq",
        "-s",
        "64",
        "-e",
        f"trace={calls}",
        "-e",
        "signal=none",
        "-o",
        str(output),
    ]
    subprocess.run([*strace, *command], check=True, capture_output=True, timeout=120, **options)  # type: ignore[call-overload]
    return output.read_text().splitlines()
