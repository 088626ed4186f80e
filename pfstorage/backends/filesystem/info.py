"""The metadata of an object: the status of its file, and its MD5 and content type in extended attributes."""

from __future__ import annotations

import errno
import os
import re
from typing import BinaryIO

from pfstorage.backends.checksums import EMPTY_MD5, new_md5
from pfstorage.backends.content_types import PEEK_SIZE, detect_content_type, guess_content_type
from pfstorage.backends.contract import CHUNK, ObjectInfo
from pfstorage.backends.errors import object_changed_error
from pfstorage.backends.times import iso_mtime
from pfstorage.errors import RejectedError
from pfstorage.local import file_version, settled_status

_MD5 = "user.pfstorage.md5"
_TYPE = "user.mime_type"  # of the Common Extended Attributes of freedesktop.org
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MAX_TRIES = 10
# The last two fields are missing in values that 3.0.0 wrote.
_STORED = re.compile(
    r"(?P<md5>[0-9a-f]{32}) (?P<stamp>\S+)(?: (?P<before>-?\d{1,20}) (?P<most>\d{1,9}))?", re.ASCII
)
# The maximum time in nanoseconds to store an MD5, for each try. From the second try on, the change before it is the
# change by the previous try.
_STORING_NS = (100_000, 100_000, 1_000_000, 5_000_000, 50_000_000)


class ObjectFile:
    """The open *file* of the object *key*. Reading fails if the file changes, as other programs may write into it."""

    def __init__(self, key: str, file: BinaryIO) -> None:
        """Read the metadata: see `read_info`."""
        self._file = file
        self.info = read_info(key, file.fileno())
        assert self.info.size is not None  # the size of a file is known
        self.size = self.info.size
        self._version = file_version(os.fstat(file.fileno()))

    def read(self, size: int = -1) -> bytes:
        """Read bytes. Raise `RejectedError` if the file has changed."""
        chunk = self._file.read(size)
        version = file_version(os.fstat(self._file.fileno()))
        if version != self._version:
            # with the same size and time, another process may only have stored the MD5 or changed permissions
            if version[:2] != self._version[:2] or self._etag_now() != self.info.etag:
                raise object_changed_error(self.info.key)
            self._version = file_version(os.fstat(self._file.fileno()))
        return chunk

    def _etag_now(self) -> str:
        return read_info(self.info.key, self._file.fileno()).etag

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def directory_info(key: str, status: os.stat_result) -> ObjectInfo:
    """Return the metadata of the object *key*, an empty directory with *status*."""
    return ObjectInfo(key, 0, EMPTY_MD5, iso_mtime(status), "application/directory")


def md5_when_stored(info: ObjectInfo) -> str:
    """Return the MD5 of the object when it was stored. If it is not the whole etag, the bytes have changed since."""
    return info.etag.partition("-")[0]


def read_info(key: str, descriptor: int) -> ObjectInfo:
    """Return the metadata of an open file. Without a valid stored MD5, compute it.

    If the bytes differ from the stored MD5 and the modification time does not, the file may be damaged. The etag is
    then composed of both MD5s. Raise `OSError`, also for an invalid stored content type, or `RejectedError` if the
    file keeps changing.
    """
    kind = _stored_type(descriptor)
    for _ in range(_MAX_TRIES):
        status = os.fstat(descriptor)
        stored, is_sure = _stored_md5(descriptor, status)
        md5, size = stored, status.st_size
        if not is_sure:
            kind = kind or _detect_type(key, descriptor)
            status = settled_status(descriptor)
            md5, size = _computed_md5(descriptor)
            now = file_version(os.fstat(descriptor))
            if now[:2] != file_version(status)[:2]:
                break  # another process writes into it
            if now != file_version(status):
                continue  # another process stored the MD5, or wrote into the file and restored its time
            if stored not in ("", md5):
                md5 = f"{stored}-{md5}"
            elif size == status.st_size:
                _store_md5(descriptor, md5)
        content_type = kind or guess_content_type(key)
        return ObjectInfo(key, size, md5, iso_mtime(status), content_type, mtime_ns=status.st_mtime_ns)
    raise object_changed_error(key)


def _detect_type(key: str, descriptor: int) -> str:
    """Detect and store the type of a file from another program, so that later calls need not read its bytes."""
    return store_type(key, descriptor, detect_content_type(key, os.pread(descriptor, PEEK_SIZE, 0)))


def store_type(key: str, descriptor: int, content_type: str) -> str:
    """Store the type of the object *key* with its file, unless the key implies it; return the effective type.

    If the file system can't store it, the effective type is detected from the key and the first bytes. Raise
    `RejectedError` for a type with control characters, which no header can contain.
    """
    if _CONTROL.search(content_type):
        raise RejectedError(
            f"{key!r}: the content type has a line break or another control character", key=key
        )
    if content_type in ("", guess_content_type(key)) or _write(descriptor, _TYPE, content_type):
        return content_type
    return detect_content_type(key, os.pread(descriptor, PEEK_SIZE, 0))


def finish_upload(key: str, descriptor: int, size: int, md5: str, content_type: str) -> ObjectInfo:
    """Store the *md5* of a new file of *size* bytes; return its metadata. Call this after the rename.

    A rename changes the change time, which would invalidate an MD5 that was stored before.
    """
    if os.fstat(descriptor).st_size == size:
        _store_md5(descriptor, md5)
    status, kind = os.fstat(descriptor), content_type or guess_content_type(key)
    return ObjectInfo(key, size, md5, iso_mtime(status), kind, mtime_ns=status.st_mtime_ns)


def _store_md5(descriptor: int, md5: str) -> None:
    """Store *md5* with the file, together with the size, times and inode that it belongs to.

    This updates the change time of the file, to an unknown time soon after the previous change. So the value also
    contains the previous change time and the maximum difference, which is the time that the update takes here.
    """
    for most in _STORING_NS:
        status = os.fstat(descriptor)
        value = f"{md5} {_stamp(status)} {status.st_ctime_ns} {most}"
        if not _write(descriptor, _MD5, value) or all(_stored_md5(descriptor, os.fstat(descriptor))):
            return


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def _stored_md5(descriptor: int, status: os.stat_result) -> tuple[str, bool]:
    """Return the MD5 stored with the file, and whether the file had no other change before *status* was read.

    The MD5 is "" if none is stored, or if the file has changed since.
    """
    found = _STORED.fullmatch(_read_attribute_text(descriptor, _MD5))
    if not found or found["stamp"] != _stamp(status):
        return "", False
    age = status.st_ctime_ns - int(found["before"] or 0)
    return found["md5"], 0 <= age <= int(found["most"] or 0)


def _stored_type(descriptor: int) -> str:
    """Return the type stored with the file, "" if there is none. Raise `OSError` for an invalid type.

    Another program may have stored any bytes. A line break would start another header wherever the type is sent.
    """
    stored = _read(descriptor, _TYPE)
    try:
        kind = stored.decode()
    except UnicodeDecodeError:
        kind = "\0"
    if _CONTROL.search(kind):
        text = f"the extended attribute {_TYPE} is no content type: remove it, by  setfattr -x {_TYPE} FILE"
        raise OSError(errno.EBADMSG, text)
    return kind


def _read_attribute_text(descriptor: int, name: str) -> str:
    return _read(descriptor, name).decode(errors="replace")


def _read(descriptor: int, name: str) -> bytes:
    try:
        return os.getxattr(descriptor, name)
    except OSError:
        return b""


def _write(descriptor: int, name: str, value: str) -> bool:
    try:
        os.setxattr(descriptor, name, value.encode())
    except OSError:  # without extended attributes, each listing computes the MD5s
        return False
    return True


def _computed_md5(descriptor: int) -> tuple[str, int]:
    """Return the MD5 and the number of the bytes read. The system may report another size."""
    digest = new_md5()
    size = 0
    while chunk := os.pread(descriptor, CHUNK, size):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size
