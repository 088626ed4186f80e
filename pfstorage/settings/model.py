"""The settings of a process.

Each source of settings is a *document*, ``{"this": {...}, "swift": {...}, ...}``. The block ``this`` has the settings
that belong to no backend, in camelCase as the flags. Each backend has its own block, in snake_case as in 2.x.
Later documents take precedence: configuration file, environment, flags or the caller. A ``repr`` shows `MASK` instead
of a secret.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pfstorage.settings.redaction import (
    MASK,
    Secret,
    passwords_of,
    says_secret,
    without_line_end,
    without_password,
)
from pfstorage.wire.fields import camel_case

_SECRET = {"secret": True}

# Bytes of the smallest segments and ranges: the overhead of smaller ones outweighs their content.
MIN_PART = 64 * 1024

Document = Mapping[str, Mapping[str, Any]]


def _shown(each: dataclasses.Field[Any], value: Any, with_secrets: bool) -> Any:
    if with_secrets:
        return value
    if value and "secret" in each.metadata:
        return MASK
    return without_password(value) if each.name in ("auth_url", "http_proxy") else value


class _MaskedRepr:
    """The ``repr`` of a dataclass, with secrets masked."""

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # of a class that is none itself
        shown = (f"{each.name}={_shown(each, getattr(self, each.name), False)!r}" for each in fields)
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, kw_only=True, repr=False)
class SwiftSettings(_MaskedRepr):
    """The location of one container of an OpenStack Swift, and its login.

    The defaults are those of pfstorage 2.x: a development Swift on this host. *os_options* has Keystone's further
    options, by swiftclient's names for the ``OS_*`` variables. pfstorage shows *file_storage* as 2.x did, and does
    not use it.
    """

    auth_url: str = "http://127.0.0.1:8080/auth/v1.0"
    username: str = "chris:chris1234"
    key: str = field(default="testing", metadata=_SECRET)
    container_name: str = "users"
    auto_create_container: bool = True
    file_storage: str = "swift.storage.SwiftStorage"
    auth_version: str = "1"
    cacert: str = ""
    os_options: Mapping[str, Any] = field(default_factory=dict, metadata=_SECRET)

    def __post_init__(self) -> None:
        options = {
            name: Secret(without_line_end(each)) if isinstance(each, str) else each
            for name, each in self.os_options.items()
        }
        for name in ("username", "container_name"):
            object.__setattr__(self, name, without_line_end(getattr(self, name)))
        object.__setattr__(self, "key", Secret(without_line_end(self.key)))
        object.__setattr__(self, "os_options", options)


@dataclass(frozen=True, kw_only=True)
class FilesystemSettings:
    """The location of a store in a directory of plain files."""

    store_base: str = ""
    auto_create_container: bool = True


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """The settings of a store in the memory of its process."""

    auto_create_container: bool = True


BLOCKS: dict[str, type[Any]] = {
    "swift": SwiftSettings,
    "filesystem": FilesystemSettings,
    "memory": MemorySettings,
}


@dataclass(frozen=True, kw_only=True, repr=False)
class CommonSettings(_MaskedRepr):
    """The settings that belong to no backend: the block ``this`` of a document.

    Times are in seconds; sizes are bytes, or a text like ``50M``.

    *timeout* bounds each silence of the store. Its default is above the 60 s for which Swift's rate limiter may hold
    a request (``max_sleep_time_seconds`` in Swift's documentation of its ratelimit middleware). *min_rate* bounds how
    slowly a body may arrive or leave, in bytes a second; 0 is no bound. *connect_timeout* bounds the opening of one
    connection. *retries* is how often a failed request is repeated.

    *workers* files move at once; ``auto`` finds the best number. An object above *segment_size* is stored in
    segments, and one above *range_size* is pulled in several ranges at once. *bw_limit* bounds the bytes a second of
    all transfers; 0 is no limit. *durable* is ``none``, ``file`` or ``batch``: it syncs pulled files, and the objects
    of a filesystem store, to the disk.
    """

    type: str = "swift"
    verbosity: int = 1
    debug_to_dir: str = ""
    ip_self: str = "127.0.0.1"
    port_self: int = 4055
    http_response: bool = False
    http_proxy: str = ""
    insecure: bool = False
    allow_plain_storage: bool = False
    workers: int | str = "auto"
    segment_size: int | str = "1G"
    range_size: int | str = "64M"
    durable: str = "none"
    bw_limit: int | str = 0
    retries: int = 3
    timeout: float = 90.0
    connect_timeout: float = 2.0
    min_rate: int | str = "1K"


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings(CommonSettings):
    """All settings of one process: the common ones and a block for each backend."""

    swift: SwiftSettings = SwiftSettings()
    filesystem: FilesystemSettings = FilesystemSettings()
    memory: MemorySettings = MemorySettings()

    @property
    def worker_count(self) -> int:
        """The number of files that move at once; 0 means ``auto``."""
        return 0 if self.workers == "auto" else int(self.workers)

    def secrets(self) -> frozenset[str]:
        """Return every secret text of the settings, so that a caller can mask it."""
        return self._secrets

    @functools.cached_property
    def _secrets(self) -> frozenset[str]:
        blocks = [getattr(self, name) for name in BLOCKS]
        found = {text for block in blocks for value in _secrets_of(block) for text in secret_texts(value)}
        return frozenset(found.union(*map(passwords_of, (self.swift.auth_url, self.http_proxy))))


# The size of caches whose keys may come from messages, and may be as long as a message.
FEW = 8

_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


@functools.lru_cache(FEW)
def size_of(value: int | str) -> int:
    """Parse a size: bytes, or a number with a unit, which is a power of 1024. Raise `ValueError`.

    >>> size_of(5), size_of("50M"), size_of("1.5k"), size_of("1GiB")
    (5, 52428800, 1536, 1073741824)
    """
    found = re.fullmatch(r"(\d{1,16}(?:\.\d{1,16})?) ?([KMGT]?)(?:I?B)?", str(value).upper(), re.ASCII)
    if not found:
        raise ValueError("a size is bytes, or a number with K, M, G or T, like 256M")
    return int(float(found[1]) * _UNITS[found[2]])


def is_masked(value: object) -> bool:
    """Return whether *value* is a masked secret. A masked secret counts as not given."""
    return value == MASK or (isinstance(value, str) and f"{MASK}@" in value)


def _secrets_of(block: Any) -> Iterator[object]:
    yield from (getattr(block, each.name) for each in dataclasses.fields(block) if "secret" in each.metadata)


def secret_texts(value: object) -> set[str]:
    """Return the texts of a secret. Of an object, only the members whose names say so are secret: a project is not."""
    values = (
        [each for name, each in value.items() if says_secret(name)] if isinstance(value, Mapping) else [value]
    )
    return {str(each) for each in values if each}


def to_document(settings: Settings, *, with_secrets: bool = False) -> dict[str, dict[str, Any]]:
    """Return *settings* as a document for `load_settings`. Mask secrets unless *with_secrets*."""
    document = {
        "this": {
            camel_case(each.name): _shown(each, getattr(settings, each.name), with_secrets)
            for each in _COMMON_FIELDS
        }
    }
    for name in BLOCKS:
        block = getattr(settings, name)
        shown = {
            each.name: _shown(each, getattr(block, each.name), with_secrets)
            for each in dataclasses.fields(block)
        }
        document[name] = shown
    return document


_COMMON_FIELDS = dataclasses.fields(CommonSettings)
