"""A directory that is read from and written into, and nothing outside of it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import BinaryIO

from pfstorage.files import disk
from pfstorage.files.common import READ, Directory
from pfstorage.files.unfinished import sweep
from pfstorage.files.writing import NewFile

Parts = tuple[str, ...]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_SWEPT = 100_000
_MOST_KEPT = 32


class LocalTree:
    """A directory to read from and write into. Nothing outside of it is touched, whatever lies in it.

    A file is named by *parts*, its components below the directory. Each is opened
    without following symbolic links, so neither a hostile name nor a link that is put
    there meanwhile leads out. The directory itself may be a link; it is made, with
    its parents, when something is first written. Methods raise `OSError`; several
    threads may call them.

    The first new file in a directory sweeps it: what killed writers left there is removed.
    """

    def __init__(self, directory: str, *, keeps_open: bool = False) -> None:
        """With *keeps_open*, the directories used last stay open, which is for one piece of work.

        If somebody moves one away meanwhile, the files go with it.
        """
        self.directory = directory or "."
        self._keeps_open = keeps_open
        self._kept: dict[Parts, Directory] = {}
        self._swept: set[Parts] = set()
        self._lock = threading.Lock()

    def path(self, parts: Parts) -> str:
        """Return the path of *parts*, spelled as the directory is."""
        return os.path.join(self.directory, *parts)

    def make_directory(self, parts: Parts) -> None:
        """Make the directory *parts* and its parents, where they are missing."""
        self._opened(parts, make=True)

    @contextlib.contextmanager
    def open_file(self, parts: Parts) -> Iterator[BinaryIO]:
        """Yield the regular file *parts*, unbuffered, for reading."""
        with self.open_directory(parts[:-1]) as parent:
            descriptor = os.open(parts[-1], READ | os.O_NOFOLLOW, dir_fd=parent)
        with open(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise IsADirectoryError(errno.EISDIR, "it is no regular file")
            yield file

    def new_file(self, parts: Parts, mode: int = 0o666) -> NewFile:
        """Begin a file that is to be *parts*. *mode* is lessened by the umask, as for any new file."""
        *parents, name = parts
        directory = self._opened(tuple(parents), make=True)
        if self._is_first_in(tuple(parents)):
            sweep(directory.descriptor)
        try:
            return NewFile(directory, name, mode)
        except FileNotFoundError:  # somebody has removed the directory since it was opened
            self._kept.pop(tuple(parents), None)
            return NewFile(self._opened(tuple(parents), make=True), name, mode)

    @contextlib.contextmanager
    def whole_file(self, parts: Parts, mode: int = 0o666) -> Iterator[NewFile]:
        """Yield a new file that appears as *parts* when the block ends, and not before.

        It replaces what was there at once. If the block raises, nothing is left of
        it and what was there stays.
        """
        with self.new_file(parts, mode) as file:
            yield file
            file.commit()

    def sync_directories(self, directories: Iterable[Parts]) -> None:
        """Bring the names of what was committed in *directories* to the disk, at once for each file system."""

        def opened() -> Generator[int, None, None]:
            for parts in set(directories):
                with self.open_directory(parts) as directory:
                    yield directory

        with contextlib.closing(opened()) as descriptors:
            disk.sync(descriptors)

    def remove(self, parts: Parts) -> None:
        """Remove the file or the empty directory *parts*, and its parents as far as they are empty."""
        *parents, name = parts
        with self.open_directory(tuple(parents)) as parent:
            is_directory = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
            (os.rmdir if is_directory else os.unlink)(name, dir_fd=parent)
        self.remove_empty(tuple(parents))

    def remove_empty(self, parts: Parts) -> None:
        """Remove the directory *parts* and its parents, as far as they are empty."""
        names = list(parts)
        with contextlib.suppress(OSError):  # the first that is not empty ends it
            while names:
                name = names.pop()
                with self.open_directory(tuple(names)) as parent:
                    os.rmdir(name, dir_fd=parent)

    @contextlib.contextmanager
    def open_directory(self, parts: Parts) -> Iterator[int]:
        """Yield a descriptor of the directory *parts*."""
        directory = self._opened(parts)
        yield directory.descriptor

    def is_new(self, parts: Parts) -> bool:
        """Tell whether there was nothing when this tree made the directory *parts*; False if that is not known."""
        directory = self._kept.get(parts)
        return directory is not None and directory.is_new

    def _is_first_in(self, directory: Parts) -> bool:
        with self._lock:
            if directory in self._swept:
                return False
            if len(self._swept) >= _MOST_SWEPT:  # a store may have more directories than this needs to know
                self._swept.clear()
            self._swept.add(directory)
            return True

    def _opened(self, parts: Parts, *, make: bool = False) -> Directory:
        directory = self._kept.get(parts)
        if directory is None:
            directory = self._open(parts, make=make)
            if self._keeps_open:
                with self._lock:
                    while len(self._kept) >= _MOST_KEPT:
                        del self._kept[next(iter(self._kept))]
                    directory = self._kept.setdefault(parts, directory)
        return directory

    def _open(self, parts: Parts, *, make: bool) -> Directory:
        current = self._open_top(make)
        for part in parts:
            current = _open_directory(part, current.descriptor, make)
        return current

    def _open_top(self, make: bool) -> Directory:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        is_new = False
        if make:
            with contextlib.suppress(FileNotFoundError):  # for all files but the first it is there
                return Directory(os.open(self.directory, flags))
            with contextlib.suppress(FileExistsError):  # another worker was faster
                os.makedirs(self.directory)
                is_new = True
        return Directory(os.open(self.directory, flags), is_new=is_new)


def _open_directory(name: str, parent: int, make: bool) -> Directory:
    is_new = False
    try:
        if make:
            with contextlib.suppress(FileNotFoundError):
                return Directory(os.open(name, _DIRECTORY, dir_fd=parent))
            with contextlib.suppress(FileExistsError):  # another worker was faster
                os.mkdir(name, dir_fd=parent)
                is_new = True
        return Directory(os.open(name, _DIRECTORY, dir_fd=parent), is_new=is_new)
    except NotADirectoryError:
        raise NotADirectoryError(
            errno.ENOTDIR, f"{name!r} in it is a file or a link, not a directory"
        ) from None
