"""A storage in a local directory: each object is a plain file, and its key is the path below the directory.

The MD5 of an object is in an extended attribute of its file, so that a listing need not read the file. On a file
system without extended attributes, a listing computes all MD5s. An empty directory is listed as the object ``name/``.
An empty object with such a key, or with the content type of a directory, creates a directory. Symbolic links, special
files and files whose names are not Unicode are not objects.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
from collections.abc import Callable, Iterator

from pfstorage.backends.contract import CHUNK, NO_ATTRIBUTES, Attributes, ByteRange, ObjectInfo, Sink, Source
from pfstorage.backends.errors import already_exists_error, resolve_range
from pfstorage.backends.filesystem.errors import store_errors
from pfstorage.backends.filesystem.info import (
    ObjectFile,
    directory_info,
    finish_upload,
    md5_when_stored,
    read_info,
    store_type,
)
from pfstorage.backends.filesystem.listing import Listing
from pfstorage.backends.filesystem.row_cache import RowCache
from pfstorage.backends.listing import select
from pfstorage.backends.streams import HashedBody, HashedSink, announce
from pfstorage.errors import (
    ContainerNotFoundError,
    IntegrityError,
    InvalidKeyError,
    NotFoundError,
)
from pfstorage.keys.mapping import check_key, is_directory_marker, local_parts
from pfstorage.local import (
    DenyList,
    LocalTree,
    NewFile,
    is_disk_error,
    reject_unfinished_name,
    sync_one,
    working_directory,
)
from pfstorage.settings.model import Settings

log = logging.getLogger(__name__)


def open_storage(settings: Settings) -> FilesystemStorage:
    """Open the directory ``store_base`` of *settings*, which need not exist."""
    return FilesystemStorage(settings)


class FilesystemStorage:
    """Objects as files below one directory, each written atomically. See `Storage`."""

    takes_streams = True

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        base = settings.filesystem.store_base
        self._tree = LocalTree(
            os.path.normpath(os.path.join("" if os.path.isabs(base) else working_directory(), base))
        )
        self._cache = RowCache()
        self._on_skip: Callable[[str, str], None] | None = None
        self._durable = settings.durable != "none"

    def with_deny_list(self, deny_list: DenyList) -> FilesystemStorage:
        """See `SupportsDenyList`."""
        made = copy.copy(self)
        made._tree = self._tree.with_deny_list(deny_list)
        return made

    def allow_partial_listing(self, on_skip: Callable[[str, str], None]) -> FilesystemStorage:
        """See `SupportsPartialListing`: listings skip unreadable files and directories."""
        made = copy.copy(self)
        made._on_skip = on_skip
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
            # the files of one directory follow each other, so this opens it once
            storage = self._keeping_directories(1)
            listing = Listing(storage._tree, storage.head, self._cache, self._on_skip, prefix, start_after)
            yield from select(listing.rows(), prefix, start_after, stop_before, limit, delimiter)

    def _keeping_directories(self, count: int) -> FilesystemStorage:
        """Return this storage with the last *count* directories kept open."""
        made = copy.copy(self)
        made._tree = self._tree.kept_open(count)
        return made

    def head(self, key: str) -> ObjectInfo:
        parts = self._parts(key)
        with self._errors(key):
            if is_directory_marker(key):
                return self._head_directory(key, parts)
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
            left = size if byte_range else size + 1  # one more byte than expected, to detect a file that grew
            while chunk := self._read(file, min(CHUNK, left), key):
                hashed.write(chunk)
                left -= len(chunk)
        hashed.verify(
            key, size, md5_when_stored(info) if is_whole else (byte_range and byte_range.md5) or None
        )
        return info

    def _read(self, file: ObjectFile, size: int, key: str) -> bytes:
        with self._errors(key):  # errors of the sink pass through
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
                    raise InvalidKeyError(
                        f"{key!r} marks a directory: in this store it can only be empty", key=key
                    )
                if if_absent and _is_there(self._tree.open_directory(parts)):
                    raise already_exists_error(key)
                self._tree.make_directory(parts, durable=self._durable)
                return self._head_new_directory(key, parts)
            if if_absent and _is_there(self._tree.open_file(parts)):  # checked before the body is read
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
        for tries_left in reversed(range(100)):  # a failed try has not read the body
            body.seek(start)
            try:
                return self._put_once(key, parts, HashedBody(body, size, key), attributes, if_absent)
            except FileNotFoundError:  # a concurrent delete removed a directory that was empty
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
                self._tree.remove_empty(parts[:-1])  # directories that were created for this file
                raise
            info = finish_upload(key, descriptor, hashed.size, hashed.md5, kind)
            if self._durable:
                sync_one(descriptor)  # syncs the extended attributes
            return info

    def _set_time(self, file: NewFile, mtime_ns: int | None) -> None:
        """Set the modification time of *file*. If the file system refuses, only log that: the bytes are stored."""
        try:
            if mtime_ns is not None:
                file.set_mtime(mtime_ns)
        except OSError as e:
            if is_disk_error(e):
                raise
            log.debug("can't set the modification time of a file in %r: %s", self._tree.directory, e.strerror)

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
        """Do nothing: no resources are held."""

    def __enter__(self) -> FilesystemStorage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_container(self, key: str) -> None:
        directory = self._tree.directory
        if os.path.isdir(directory):
            return
        problem = "does not exist: push something, or make the directory"
        with self._errors(""), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(directory)
            problem = "is no directory: name one by --storeBase"
            os.stat(directory)
        raise ContainerNotFoundError(f"the store {directory!r} {problem}", container=directory, key=key)

    def _parts(self, key: str) -> tuple[str, ...]:
        check_key(key)
        parts = local_parts(key.removesuffix("/"), key)
        reject_unfinished_name(parts, key)
        return parts

    def _head_directory(self, key: str, parts: tuple[str, ...]) -> ObjectInfo:
        with self._tree.open_directory(parts) as directory:
            if os.listdir(directory):
                raise NotFoundError(f"there is no object {key!r}", key=key)
            return directory_info(key, os.fstat(directory))

    def _head_new_directory(self, key: str, parts: tuple[str, ...]) -> ObjectInfo:
        try:
            return self._head_directory(key, parts)
        except NotFoundError:
            raise InvalidKeyError(
                f"{key!r} has objects below it: in this store it is no object itself", key=key
            ) from None

    def _errors(self, key: str) -> contextlib.AbstractContextManager[None]:
        return store_errors(self._tree.directory, key)


def _is_there(opening: contextlib.AbstractContextManager[object]) -> bool:
    """Return whether the file or directory of *opening* exists. Raise `OSError` if it is of another type."""
    try:
        with opening:
            return True
    except FileNotFoundError:
        return False
