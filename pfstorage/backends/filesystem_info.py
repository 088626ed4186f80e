"""What belongs to an object beside its bytes, kept in the extended attributes of its file, where there are any."""

from __future__ import annotations

import contextlib
import os
from typing import BinaryIO

from pfstorage.backends.base import CHUNK, Attributes, ObjectInfo
from pfstorage.backends.common import MD5_OF_NOTHING, another_object, guess_content_type, iso_time, new_md5

_MD5 = "user.pfstorage.md5"
_KIND = "user.mime_type"  # as the Common Extended Attributes of freedesktop.org have it


class ObjectFile:
    """The open *file* of the object *key*, read for as long as it is what *info* tells.

    Programs that know nothing of this store may write into a file that is there.
    """

    def __init__(self, key: str, file: BinaryIO) -> None:
        """Find out what there is to tell of it. Raise `OSError`."""
        self._file = file
        self.info = info_of(key, file.fileno())
        assert self.info.size is not None  # a file has one
        self.size = self.info.size

    def read(self, size: int = -1) -> bytes:
        """Raise `RejectedError` if what was read may be of another object by now."""
        chunk = self._file.read(size)
        status = os.fstat(self._file.fileno())
        if (status.st_size, status.st_mtime_ns) != (self.info.size, self.info.mtime_ns):
            raise another_object(self.info.key)
        return chunk

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def marker_of(key: str, status: os.stat_result) -> ObjectInfo:
    """Return what there is to tell of the empty directory that is the marker *key*."""
    return ObjectInfo(key, 0, MD5_OF_NOTHING, iso_time(status.st_mtime), "application/directory")


def info_of(key: str, descriptor: int) -> ObjectInfo:
    """Return what there is to tell of an open file; its MD5 is computed where none is kept. Raise `OSError`."""
    status = os.fstat(descriptor)
    md5 = _kept_md5(descriptor) or _computed_md5(descriptor)
    kind = _kept(descriptor, _KIND) or guess_content_type(key)
    return ObjectInfo(key, status.st_size, md5, iso_time(status.st_mtime), kind, mtime_ns=status.st_mtime_ns)


def finished(key: str, descriptor: int, md5: str, attributes: Attributes) -> ObjectInfo:
    """Give a file that has all its bytes what belongs to it beside them."""
    if attributes.mtime_ns is not None:
        os.utime(descriptor, ns=(attributes.mtime_ns, attributes.mtime_ns))
    if attributes.content_type not in ("", guess_content_type(key)):
        _keep(descriptor, _KIND, attributes.content_type)
    _keep(descriptor, _MD5, f"{md5} {_stamp(descriptor)}")
    status, kind = os.fstat(descriptor), attributes.content_type or guess_content_type(key)
    return ObjectInfo(key, status.st_size, md5, iso_time(status.st_mtime), kind, mtime_ns=status.st_mtime_ns)


def _stamp(descriptor: int) -> str:
    status = os.fstat(descriptor)
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def _kept_md5(descriptor: int) -> str:
    """Return the MD5 kept with the file, "" if there is none or the file is another since."""
    md5, _, stamp = _kept(descriptor, _MD5).partition(" ")
    return md5 if stamp == _stamp(descriptor) else ""


def _kept(descriptor: int, name: str) -> str:
    try:
        return os.getxattr(descriptor, name).decode()
    except (OSError, UnicodeDecodeError):
        return ""


def _keep(descriptor: int, name: str, value: str) -> None:
    with contextlib.suppress(OSError):  # a file system may have no attributes: each listing computes MD5s
        os.setxattr(descriptor, name, value.encode())


def _computed_md5(descriptor: int) -> str:
    stamp = _stamp(descriptor)
    digest = new_md5()
    offset = 0
    while chunk := os.pread(descriptor, CHUNK, offset):
        digest.update(chunk)
        offset += len(chunk)
    _keep(descriptor, _MD5, f"{digest.hexdigest()} {stamp}")
    return digest.hexdigest()
