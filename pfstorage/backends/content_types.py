"""Content types by suffix and by the first bytes. They do not depend on the tables of the host.

The table has common types and those of medical data. A format without a registered type is `UNKNOWN`, as NIfTI,
Analyze, MGH, NRRD and MetaImage. Other tables take their suffixes for man pages, pictures or disk images.
"""

from __future__ import annotations

UNKNOWN = "application/octet-stream"
DICOM = "application/dicom"
GZIP = "application/gzip"
# The number of bytes that `detect_content_type` needs: the magic of DICOM is at 128 (PS3.10, 7.1).
PEEK_SIZE = 132

# Types that clients send if they do not know the type: curl with a body, and libraries with a file of unknown type.
UNSPECIFIC = frozenset(
    ("", UNKNOWN, "binary/octet-stream", "application/x-www-form-urlencoded", "application/unknown")
)

BY_SUFFIX = {
    "dcm": DICOM, "dicom": DICOM, "dic": DICOM,
    "gz": GZIP, "tgz": GZIP, "mgz": GZIP,
    "bval": "text/plain", "bvec": "text/plain", "txt": "text/plain", "log": "text/plain", "md": "text/markdown",
    "csv": "text/csv", "tsv": "text/tab-separated-values",
    "html": "text/html", "htm": "text/html", "css": "text/css", "js": "text/javascript",
    "json": "application/json", "jsonl": "application/jsonl", "xml": "application/xml", "yaml": "application/yaml",
    "yml": "application/yaml", "pdf": "application/pdf", "rtf": "application/rtf",
    "zip": "application/zip", "tar": "application/x-tar", "bz2": "application/x-bzip2", "xz": "application/x-xz",
    "zst": "application/zstd", "7z": "application/x-7z-compressed",
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "jp2": "image/jp2", "gif": "image/gif",
    "bmp": "image/bmp", "tif": "image/tiff", "tiff": "image/tiff", "svg": "image/svg+xml", "webp": "image/webp",
    "mp4": "video/mp4", "mpeg": "video/mpeg", "mpg": "video/mpeg", "avi": "video/x-msvideo", "mov": "video/quicktime",
    "webm": "video/webm", "wav": "audio/wav", "mp3": "audio/mpeg",
    "doc": "application/msword", "xls": "application/vnd.ms-excel", "ppt": "application/vnd.ms-powerpoint",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "hl7": "application/hl7-v2",
}  # fmt: skip

# The first bytes of files with an unknown suffix.
_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"%PDF-": "application/pdf",
    b"PK\x03\x04": "application/zip",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
}


def guess_content_type(key: str) -> str:
    """Return the type by the suffix of *key*, or `UNKNOWN`.

    >>> guess_content_type("a/scan.NII.gz"), guess_content_type("1.2.840.113619.2.5.1")
    ('application/gzip', 'application/octet-stream')
    """
    name = key.rpartition("/")[2]
    stem, _, suffix = name.rpartition(".")
    return BY_SUFFIX.get(suffix.lower(), UNKNOWN) if stem else UNKNOWN


def detect_content_type(key: str, beginning: bytes, declared: str = "") -> str:
    """Return the type of an object: the type *declared* by the client if it is specific, or else detect it.

    *beginning* is its first `PEEK_SIZE` bytes, or fewer if it is shorter. The magic of gzip takes precedence over the
    suffix. The magic of DICOM takes precedence over an unknown or a text suffix only: other formats may have any
    bytes at this offset.
    """
    if declared.partition(";")[0].strip().lower() not in UNSPECIFIC:
        return declared
    if beginning.startswith(b"\x1f\x8b"):
        return GZIP
    guessed = guess_content_type(key)
    if beginning[128:132] == b"DICM" and (guessed == UNKNOWN or guessed.startswith("text/")):
        return DICOM
    if guessed != UNKNOWN:
        return guessed
    return next((kind for magic, kind in _MAGIC.items() if beginning.startswith(magic)), UNKNOWN)
