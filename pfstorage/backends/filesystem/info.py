"""What belongs to an object beside its bytes, kept in the extended attributes of its file, where there are any."""

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
_KIND = "user.mime_type"  # as the Common Extended Attributes of freedesktop.org have it
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MOST_LOOKS = 10
# the last two are not in what 3.0.0 has kept
_KEPT = re.compile(
    r"(?P<md5>[0-9a-f]{32}) (?P<stamp>\S+)(?: (?P<before>-?\d{1,20}) (?P<most>\d{1,9}))?", re.ASCII
)
_KEEPING_NS = (100_000, 100_000, 1_000_000, 5_000_000, 50_000_000)
"""How long to keep an MD5 may take, by the try: after the first, the change before is that of the try before."""


class ObjectFile:
    """The open *file* of the object *key*, read for as long as it is what *info* tells.

    Programs that know nothing of this store may write into a file that is there.
    """

    def __init__(self, key: str, file: BinaryIO) -> None:
        """Find out what there is to tell of it, as `read_info` does."""
        self._file = file
        self.info = read_info(key, file.fileno())
        assert self.info.size is not None  # a file has one
        self.size = self.info.size
        self._version = file_version(os.fstat(file.fileno()))

    def read(self, size: int = -1) -> bytes:
        """Raise `RejectedError` if what was read may be of another object by now."""
        chunk = self._file.read(size)
        version = file_version(os.fstat(self._file.fileno()))
        if version != self._version:
            # where the size and the time are the same, somebody may have kept its MD5 or changed its rights
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
    """Return what there is to tell of the empty directory that is the marker *key*."""
    return ObjectInfo(key, 0, EMPTY_MD5, iso_mtime(status), "application/directory")


def md5_when_stored(info: ObjectInfo) -> str:
    """Return the MD5 of what was stored as *info*: if its etag is another, that is not what is there now."""
    return info.etag.partition("-")[0]


def read_info(key: str, descriptor: int) -> ObjectInfo:
    """Return what there is to tell of an open file; its MD5 is computed where none is kept.

    If other bytes were written into it and its time was set back, so that they may be damaged as well, its
    etag is that of neither: it is made of both MD5s.
    Raise `OSError`, also for a kept type that is none, or `RejectedError` if it does not stay the same for as long as
    that takes.
    """
    kind = _kept_type(descriptor)
    for _ in range(_MOST_LOOKS):
        status = os.fstat(descriptor)
        kept, is_sure = _kept_md5(descriptor, status)
        md5, size = kept, status.st_size
        if not is_sure:
            kind = kind or _found_type(key, descriptor)
            status = settled_status(descriptor)
            md5, size = _computed_md5(descriptor)
            now = file_version(os.fstat(descriptor))
            if now[:2] != file_version(status)[:2]:
                break  # somebody writes into it
            if now != file_version(status):
                continue  # somebody has kept the MD5, or written into it and set the time back
            if kept not in ("", md5):
                md5 = f"{kept}-{md5}"
            elif size == status.st_size:
                _keep_md5(descriptor, md5)
        told = kind or guess_content_type(key)
        return ObjectInfo(key, size, md5, iso_mtime(status), told, mtime_ns=status.st_mtime_ns)
    raise object_changed_error(key)


def _found_type(key: str, descriptor: int) -> str:
    """Return the type of a file that another program has put there, and keep it: later, its bytes are not looked at."""
    return store_type(key, descriptor, detect_content_type(key, os.pread(descriptor, PEEK_SIZE, 0)))


def store_type(key: str, descriptor: int, content_type: str) -> str:
    """Keep the type of the object *key* with its file, unless the key tells it; return the type that it has then.

    Where the file system keeps none, its name and its first bytes tell the type. Raise `RejectedError` for one that
    no header can have.
    """
    if _CONTROL.search(content_type):
        raise RejectedError(
            f"{key!r}: the content type has a line break or another control character", key=key
        )
    if content_type in ("", guess_content_type(key)) or _keep(descriptor, _KIND, content_type):
        return content_type
    return detect_content_type(key, os.pread(descriptor, PEEK_SIZE, 0))


def finished(key: str, descriptor: int, size: int, md5: str, content_type: str) -> ObjectInfo:
    """Keep the *md5* of a file of *size* bytes that has its name, since to give it one changes its time."""
    if os.fstat(descriptor).st_size == size:
        _keep_md5(descriptor, md5)
    status, kind = os.fstat(descriptor), content_type or guess_content_type(key)
    return ObjectInfo(key, size, md5, iso_mtime(status), kind, mtime_ns=status.st_mtime_ns)


def _keep_md5(descriptor: int, md5: str) -> None:
    """Keep *md5* with the file, and what it is of.

    To keep it sets the time of change, and nobody knows to what: soon after the time of the change before. How soon
    that must be is kept as well: not longer than it takes here.
    """
    for most in _KEEPING_NS:
        status = os.fstat(descriptor)
        value = f"{md5} {_stamp(status)} {status.st_ctime_ns} {most}"
        if not _keep(descriptor, _MD5, value) or all(_kept_md5(descriptor, os.fstat(descriptor))):
            return


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def _kept_md5(descriptor: int, status: os.stat_result) -> tuple[str, bool]:
    """Return the MD5 kept with the file, and whether nothing was done to the file until its *status* was taken.

    It is "" if there is none, or the file is another since.
    """
    found = _KEPT.fullmatch(_kept(descriptor, _MD5))
    if not found or found["stamp"] != _stamp(status):
        return "", False
    age = status.st_ctime_ns - int(found["before"] or 0)
    return found["md5"], 0 <= age <= int(found["most"] or 0)


def _kept_type(descriptor: int) -> str:
    """Return the type that is kept with the file, "" if there is none. Raise `OSError` for what is no type.

    Another program may have kept anything. A line break would begin a header of its own wherever the type is sent.
    """
    kept = _read(descriptor, _KIND)
    try:
        kind = kept.decode()
    except UnicodeDecodeError:
        kind = "\0"
    if _CONTROL.search(kind):
        text = f"the extended attribute {_KIND} is no content type: remove it, by  setfattr -x {_KIND} FILE"
        raise OSError(errno.EBADMSG, text)
    return kind


def _kept(descriptor: int, name: str) -> str:
    return _read(descriptor, name).decode(errors="replace")


def _read(descriptor: int, name: str) -> bytes:
    try:
        return os.getxattr(descriptor, name)
    except OSError:
        return b""


def _keep(descriptor: int, name: str, value: str) -> bool:
    try:
        os.setxattr(descriptor, name, value.encode())
    except OSError:  # a file system may have no attributes: each listing computes MD5s
        return False
    return True


def _computed_md5(descriptor: int) -> tuple[str, int]:
    """Return the MD5 of all the bytes that a read gives, and how many those are: the system may tell another size."""
    digest = new_md5()
    size = 0
    while chunk := os.pread(descriptor, CHUNK, size):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size
