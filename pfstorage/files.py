"""Local files: walk a tree, read what is a regular file, write a file whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from pfstorage.errors import FullDiskError, LocalFileError

PART_PREFIX = ".pfstorage-"
PART_SUFFIX = ".part"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe would wait for its writer without end
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_part(name: str) -> bool:
    """Tell whether *name* is that of a file that `whole_file` has not finished."""
    return name.startswith(PART_PREFIX) and name.endswith(PART_SUFFIX)


@contextlib.contextmanager
def local_errors(path: str) -> Iterator[None]:
    """Turn an `OSError` about *path* into a `LocalFileError` that names it."""
    try:
        yield
    except OSError as e:
        kind = FullDiskError if e.errno in _FULL else LocalFileError
        raise kind(f"{path!r}: {e.strerror or e}", local=path) from e
    except UnicodeEncodeError as e:
        raise LocalFileError(
            f"{path!a} can't be a path in the encoding of this system", local=ascii(path)
        ) from e
    except ValueError as e:
        if "\0" not in path:
            raise
        raise LocalFileError(f"{path!r} has a NUL and can't be a path", local=path) from e


@dataclass
class Walk:
    """The files below a root, what was left out of them, and what could not be read."""

    paths: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unreadable: list[LocalFileError] = field(default_factory=list)

    def note_unreadable(self, e: OSError) -> None:
        path = str(e.filename)
        self.unreadable.append(LocalFileError(f"{path!r}: {e.strerror}", local=path))


def walk(root: str) -> Walk:
    """Find every regular file below *root*, or *root* itself if it is one; in order of path.

    Paths begin with *root* as it is spelled. A link to a file inside the tree counts
    as the file. What is left out is named in a warning: a link that leads elsewhere
    or nowhere, a device, a pipe, a socket. Raise `LocalFileError` if *root* is missing.
    """
    with local_errors(root):
        mode = os.stat(root).st_mode
    if not stat.S_ISDIR(mode):
        return Walk([root]) if stat.S_ISREG(mode) else Walk([], [f"{root!r} is no regular file"])
    found = Walk()
    top = os.path.realpath(root)
    for directory, names, filenames in os.walk(root, onerror=found.note_unreadable):
        names.sort()
        if not names and not filenames and directory != root:
            found.warnings.append(f"{directory!r} was left out: it is empty")
        links = [name for name in names if os.path.islink(os.path.join(directory, name))]
        for name in sorted(filenames + links):
            path = os.path.join(directory, name)
            reason = _reason_to_skip(path, top)
            if reason:
                found.warnings.append(f"{path!r} was left out: {reason}")
            elif not is_part(name):
                found.paths.append(path)
    found.paths.sort()
    return found


def _reason_to_skip(path: str, top: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except OSError as e:
        return e.strerror or str(e)
    if stat.S_ISDIR(mode):
        return "it is a link to a directory"
    if not stat.S_ISREG(mode):
        return "it is no regular file"
    if os.path.islink(path) and not os.path.realpath(path).startswith(top + os.sep):
        return "it is a link that leads out of the tree"
    return ""


class Body:
    """A local file as the body of an upload: seekable, and its errors name the file.

    They are `LocalFileError`, never `OSError`, which an HTTP library takes for its own.
    """

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        self._path = path

    def read(self, size: int = -1) -> bytes:
        with local_errors(self._path):
            return self._file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


@contextlib.contextmanager
def open_body(path: str) -> Iterator[tuple[Body, int]]:
    """Open the regular file *path*; yield it and its size in bytes. Raise `LocalFileError`."""
    with local_errors(path):
        descriptor = os.open(path, _FILE)
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LocalFileError(f"{path!r} is no regular file", local=path)
        yield Body(file, path), status.st_size


class LocalTree:
    """A directory to read from and write into. Nothing outside of it is touched, whatever lies in it.

    A file is named by *parts*, its components below the directory. Each is opened
    without following symbolic links, so neither a hostile name nor a link that is put
    there meanwhile leads out. The directory itself may be a link; it is made, with
    its parents, when something is first written. Methods raise `OSError`.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory or "."

    def path(self, parts: tuple[str, ...]) -> str:
        """Return the path of *parts*, spelled as the directory is."""
        return os.path.join(self.directory, *parts)

    def make_directory(self, parts: tuple[str, ...]) -> None:
        """Make the directory *parts* and its parents, where they are missing."""
        with self._opened(parts, make=True):
            return

    @contextlib.contextmanager
    def open_file(self, parts: tuple[str, ...]) -> Iterator[BinaryIO]:
        """Yield the regular file *parts*, unbuffered, for reading."""
        *parents, name = parts
        with self._opened(tuple(parents)) as parent:
            descriptor = os.open(name, _FILE | os.O_NOFOLLOW, dir_fd=parent)
        with open(descriptor, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise IsADirectoryError(errno.EISDIR, "it is no regular file")
            yield file

    @contextlib.contextmanager
    def whole_file(self, parts: tuple[str, ...], mode: int = 0o666) -> Iterator[BinaryIO]:
        """Yield a new file that appears as *parts* when the block ends, and not before.

        It replaces what was there at once. If the block raises, nothing is left of
        it and what was there stays. *mode* is lessened by the umask, as for any new file.
        """
        *parents, name = parts
        part = f"{PART_PREFIX}{secrets.token_hex(8)}{PART_SUFFIX}"
        with self._opened(tuple(parents), make=True) as parent:
            descriptor = os.open(
                part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=parent
            )
            try:
                with open(descriptor, "wb") as file:  # buffered: a bare file may write less than it is given
                    yield file
                os.replace(part, name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=parent)
                raise

    def remove(self, parts: tuple[str, ...]) -> None:
        """Remove the file or the empty directory *parts*, and its parents as far as they are empty."""
        *parents, name = parts
        with self._opened(tuple(parents)) as parent:
            is_directory = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
            (os.rmdir if is_directory else os.unlink)(name, dir_fd=parent)
        self.remove_empty(tuple(parents))

    def remove_empty(self, parts: tuple[str, ...]) -> None:
        """Remove the directory *parts* and its parents, as far as they are empty."""
        names = list(parts)
        with contextlib.suppress(OSError):  # the first that is not empty ends it
            while names:
                name = names.pop()
                with self._opened(tuple(names)) as parent:
                    os.rmdir(name, dir_fd=parent)

    @contextlib.contextmanager
    def open_directory(self, parts: tuple[str, ...]) -> Iterator[int]:
        """Yield a descriptor of the directory *parts*."""
        with self._opened(parts) as directory:
            yield directory

    @contextlib.contextmanager
    def _opened(self, parts: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
        """Yield a descriptor of the directory *parts*."""
        current = self._open_top(make)
        try:
            for part in parts:
                inner = _open_directory(part, current, make)
                os.close(current)
                current = inner
            yield current
        finally:
            os.close(current)

    def _open_top(self, make: bool) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        if make:
            with contextlib.suppress(FileNotFoundError):  # for all files but the first it is there
                return os.open(self.directory, flags)
            os.makedirs(self.directory, exist_ok=True)
        return os.open(self.directory, flags)


def _open_directory(name: str, parent: int, make: bool) -> int:
    try:
        if make:
            with contextlib.suppress(FileNotFoundError):
                return os.open(name, _DIRECTORY, dir_fd=parent)
            with contextlib.suppress(FileExistsError):  # another worker was faster
                os.mkdir(name, dir_fd=parent)
        return os.open(name, _DIRECTORY, dir_fd=parent)
    except NotADirectoryError:
        raise NotADirectoryError(
            errno.ENOTDIR, f"{name!r} in it is a file or a link, not a directory"
        ) from None
