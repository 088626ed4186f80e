"""A directory of plain files: the key is the path below it.

The MD5 of an object is kept in an extended attribute of its file, with what it was
computed for, so that a listing need not read the files; where the file system has
no such attributes, it reads them. An empty directory is listed as the marker
``name/``, and an empty object of such a name, or of the type of a directory, makes one. Symbolic links, special
files and names that are not Unicode are no objects.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import io
import logging
import os
from collections.abc import Callable, Iterator

from pfstorage.backends.content_types import guess_content_type
from pfstorage.backends.contract import CHUNK, NO_ATTRIBUTES, Attributes, ByteRange, ObjectInfo, Sink, Source
from pfstorage.backends.errors import already_exists_error, resolve_range
from pfstorage.backends.filesystem.errors import store_errors
from pfstorage.backends.filesystem.info import (
    ObjectFile,
    directory_info,
    finished,
    md5_when_stored,
    read_info,
    store_type,
)
from pfstorage.backends.filesystem.rows import RowCache
from pfstorage.backends.listing import select
from pfstorage.backends.streams import HashedBody, HashedSink, announce
from pfstorage.backends.times import iso_mtime
from pfstorage.errors import (
    ContainerNotFoundError,
    IntegrityError,
    InvalidKeyError,
    NotFoundError,
    PermissionDeniedError,
    RejectedError,
)
from pfstorage.keys.mapping import MAX_KEY_BYTES, check_key, is_directory_marker, local_parts
from pfstorage.local import (
    DenyList,
    LocalTree,
    NewFile,
    is_disk_error,
    is_unfinished,
    reject_unfinished_name,
    sync_one,
    working_directory,
)
from pfstorage.settings.model import Settings

log = logging.getLogger(__name__)


def open_storage(settings: Settings) -> FilesystemStorage:
    return FilesystemStorage(settings)


class FilesystemStorage:
    """Objects as the files below one directory, each written whole or not at all."""

    takes_streams = True

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        base = settings.filesystem.store_base
        self._tree = LocalTree(
            os.path.normpath(os.path.join("" if os.path.isabs(base) else working_directory(), base))
        )
        self._known = RowCache()
        self._note: Callable[[str, str], None] | None = None
        self._durable = settings.durable != "none"

    def with_deny_list(self, closed: DenyList) -> FilesystemStorage:
        """See `SupportsDenyList`: somebody may mount, or link, a file of the server below the store."""
        made = copy.copy(self)
        made._tree = self._tree.with_deny_list(closed)
        return made

    def allow_partial_listing(self, note: Callable[[str, str], None]) -> FilesystemStorage:
        """See `SupportsPartialListing`: directories that may not be read are left out."""
        made = copy.copy(self)
        made._note = note
        return made

    def list(
        self,
        prefix: str = "",
        *,
        start_after: str = "",
        stop_before: str = "",
        limit: int | None = None,
        delimiter: str = "",
    ) -> Iterator[ObjectInfo]:
        self._require_container(prefix)
        with self._errors(prefix):
            rows = self._at_one_directory()._rows("", prefix, start_after)
            yield from select(rows, prefix, start_after, stop_before, limit, delimiter)

    def _at_one_directory(self) -> FilesystemStorage:
        """Return this storage, which does not go the way to a directory again for each of its files."""
        made = copy.copy(self)
        made._tree = self._tree.kept_open(1)
        return made

    def head(self, key: str) -> ObjectInfo:
        parts = self._parts(key)
        with self._errors(key):
            if is_directory_marker(key):
                return self._head_marker(key, parts)
            with self._tree.opened_file(parts) as descriptor:
                return read_info(key, descriptor)

    def get(self, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
        parts = self._parts(key)
        if is_directory_marker(key):
            info = self.head(key)
            resolve_range(byte_range, info)
            announce(sink, info)
            return info
        with contextlib.ExitStack() as stack:
            with self._errors(key):
                opened = stack.enter_context(self._tree.open_file(parts))
                file = ObjectFile(key, opened)
                info = file.info
                start, size = resolve_range(byte_range, info)
                file.seek(start)
            announce(sink, info)
            is_whole = size == info.size
            hashed = HashedSink(sink, hashes=is_whole or bool(byte_range and byte_range.md5))
            left = size if byte_range else size + 1  # more than it should hold is a fault, too
            while chunk := self._read(file, min(CHUNK, left), key):
                hashed.write(chunk)
                left -= len(chunk)
        hashed.verify(
            key, size, md5_when_stored(info) if is_whole else (byte_range and byte_range.md5) or None
        )
        return info

    def _read(self, file: ObjectFile, size: int, key: str) -> bytes:
        with self._errors(key):  # not around the sink, whose errors are not the store's
            return file.read(size)

    def put(
        self,
        key: str,
        body: Source,
        size: int,
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        if_absent: bool = False,
    ) -> ObjectInfo:
        parts = self._parts(key)
        if not self.settings.filesystem.auto_create_container:
            self._require_container(key)
        with self._errors(key):
            if (
                is_directory_marker(key)
                or ObjectInfo(key, size, content_type=attributes.content_type).is_directory
            ):
                if size:
                    raise InvalidKeyError(f"{key!r} ends in '/': here it can only be empty", key=key)
                if if_absent and _is_there(self._tree.open_directory(parts)):
                    raise already_exists_error(key)
                self._tree.make_directory(parts, durable=self._durable)
                return self._head_empty(key, parts)
            if if_absent and _is_there(self._tree.open_file(parts)):  # before its body is read
                raise already_exists_error(key)
            try:
                return self._put_file(key, parts, body, size, attributes, if_absent)
            except FileExistsError:
                raise already_exists_error(key) from None

    def _put_file(
        self,
        key: str,
        parts: tuple[str, ...],
        body: Source,
        size: int,
        attributes: Attributes,
        if_absent: bool,
    ) -> ObjectInfo:
        start = body.tell()
        for tries_left in reversed(range(100)):  # each that fails has not read the body yet
            body.seek(start)
            try:
                return self._put_once(key, parts, HashedBody(body, size, key), attributes, if_absent)
            except FileNotFoundError:  # a delete took a directory that was just empty
                if not tries_left:
                    raise
        raise AssertionError("the loop above returns or raises")

    def _put_once(
        self,
        key: str,
        parts: tuple[str, ...],
        hashed: HashedBody,
        attributes: Attributes,
        if_absent: bool,
    ) -> ObjectInfo:
        with contextlib.ExitStack() as stack:
            try:
                with self._tree.atomic_file(
                    parts, size=hashed.size, if_absent=if_absent, durable=self._durable
                ) as file:
                    while chunk := hashed.read(CHUNK):
                        file.write(chunk)
                    kind = store_type(key, file.fileno(), attributes.content_type)
                    self._set_time(file, attributes.mtime_ns)
                    descriptor = os.dup(file.fileno())
                    stack.callback(os.close, descriptor)
            except BaseException:
                self._tree.remove_empty(parts[:-1])  # directories that only this file needed
                raise
            info = finished(key, descriptor, hashed.size, hashed.md5, kind)
            if self._durable:
                sync_one(descriptor)  # its attributes
            return info

    def _set_time(self, file: NewFile, mtime_ns: int | None) -> None:
        """Give *file* its time, where the file system lets it have one: its bytes count for more."""
        try:
            if mtime_ns is not None:
                file.set_mtime(mtime_ns)
        except OSError as e:
            if is_disk_error(e):
                raise
            log.debug("the time of a file in %r was not kept: %s", self._tree.directory, e.strerror)

    def delete(self, key: str) -> None:
        self.head(key)
        with self._errors(key):
            self._tree.remove(self._parts(key), durable=self._durable)

    def copy(self, source: str, target: str) -> ObjectInfo:
        if is_directory_marker(source):
            self.head(source)
            return self.put(target, io.BytesIO(), 0)
        with self._errors(source), self._tree.open_file(self._parts(source)) as opened:
            file = ObjectFile(source, opened)
            if file.info.etag != md5_when_stored(file.info):
                raise IntegrityError(
                    f"{source!r} was changed in the store, or is damaged: push it again", key=source
                )
            attributes = Attributes(file.info.content_type, file.info.mtime_ns)
            return self.put(target, file, file.size, attributes)

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> FilesystemStorage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_container(self, key: str) -> None:
        if not os.path.isdir(self._tree.directory):
            lacks = "does not exist: push something, or make the directory"
            if os.path.lexists(self._tree.directory):
                lacks = "is no directory: name one by --storeBase"
            raise ContainerNotFoundError(
                f"the store {self._tree.directory!r} {lacks}",
                container=self._tree.directory,
                key=key,
            )

    def _parts(self, key: str) -> tuple[str, ...]:
        check_key(key)
        parts = local_parts(key.removesuffix("/"), key)
        reject_unfinished_name(parts, key)
        return parts

    def _head_marker(self, key: str, parts: tuple[str, ...]) -> ObjectInfo:
        with self._tree.open_directory(parts) as directory:
            if os.listdir(directory):
                raise NotFoundError(f"there is no object {key!r}", key=key)
            return directory_info(key, os.fstat(directory))

    def _head_empty(self, key: str, parts: tuple[str, ...]) -> ObjectInfo:
        try:
            return self._head_marker(key, parts)
        except NotFoundError:
            raise InvalidKeyError(
                f"{key!r} has objects below it: here it is no object itself", key=key
            ) from None

    def _rows(self, directory: str, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
        """Yield what lies below *directory*, "" or ending in a slash, as far as it can be asked for."""
        try:
            with self._errors(directory), self._tree.open_directory(_parts_of(directory)) as opened:
                entries, status = _entries(opened), os.fstat(opened)
        except _GONE:  # since its parent was read
            return
        except PermissionDeniedError as e:
            self._leave_out(directory, prefix, e)
            return
        if entries is None:
            yield directory_info(directory, status)
        for name in entries or ():
            key = directory + name
            if not key.startswith(prefix[: len(key)]) or (
                key <= start_after and not start_after.startswith(key)
            ):
                continue
            if is_directory_marker(key):
                yield from self._rows(key, prefix, start_after)
            elif key > start_after and len(key.encode()) <= MAX_KEY_BYTES:
                try:
                    yield self._row(key)
                except _GONE:  # since the directory was read
                    continue
                except PermissionDeniedError as e:
                    self._leave_out(key, prefix, e)

    def _leave_out(self, key: str, prefix: str, error: PermissionDeniedError) -> None:
        """Tell that what begins with *key* is left out; raise *error* if there is nobody to tell, or nothing else."""
        if self._note is None or prefix.startswith(key):
            raise error
        self._note(key, os.strerror(errno.EACCES))

    def _row(self, key: str) -> ObjectInfo:
        parts = _parts_of(key)
        with self._errors(key):
            status = self._tree.status(parts)
        if row := self._known.find(key, status):
            return row
        try:
            row = self.head(key)
            with self._errors(key):
                self._known.keep(row, status, self._tree.status(parts))
            return row
        except (PermissionDeniedError, RejectedError):  # it is there: not for us, or somebody writes into it
            with self._errors(key):
                status = self._tree.status(parts)
            return ObjectInfo(key, status.st_size, "", iso_mtime(status), guess_content_type(key))

    def _errors(self, key: str) -> contextlib.AbstractContextManager[None]:
        return store_errors(self._tree.directory, key)


_GONE = (NotFoundError, InvalidKeyError)
"""What is raised for a name that was removed, or is now that of a link, of a directory or of a file."""


def _is_there(opening: contextlib.AbstractContextManager[object]) -> bool:
    """Tell whether there is now what *opening* opens. Raise `OSError` for what is there and is something else."""
    try:
        with opening:
            return True
    except FileNotFoundError:
        return False


def _parts_of(key: str) -> tuple[str, ...]:
    """Return the components of what was found in the store."""
    return tuple(filter(None, key.split("/")))


def _entries(directory: int) -> list[str] | None:
    """Return the names in *directory*, a descriptor, in the order of their keys, directories with a slash.

    None is a directory with nothing in it; one with a file that is being written has something.
    """
    names = []
    is_empty = True
    with os.scandir(directory) as entries:
        for entry in entries:
            is_empty = False
            if is_unfinished(entry.name):  # also a directory: no key leads there
                continue
            if entry.is_dir(follow_symlinks=False):
                names.append(entry.name + "/")
            elif entry.is_file(follow_symlinks=False):
                names.append(entry.name)
    return None if is_empty else sorted(name for name in names if _is_unicode(name))


def _is_unicode(name: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in name)
