"""Settings: defaults < configuration file < environment < flags or the caller.

Each source is a *document*, ``{"this": {...}, "swift": {...}, ...}``: what is no
backend's own stands under ``this`` in camelCase, as the flags are spelled; each
backend has a block, in snake_case as 2.x wrote it. A secret is never part of a
``repr``; whatever shows settings shows `MASK` in its place.
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

DURABLE = ("none", "file", "batch")
LEAST_PIECE = 64 * 1024
"""Bytes of the smallest segments and ranges that can be asked for: smaller ones are all overhead."""

Document = Mapping[str, Mapping[str, Any]]


def _shown(each: dataclasses.Field[Any], value: Any, with_secrets: bool) -> Any:
    if with_secrets:
        return value
    if value and "secret" in each.metadata:
        return MASK
    return without_password(value) if each.name in ("auth_url", "http_proxy") else value


class _Shown:
    """A ``repr`` as a dataclass has it, secrets masked."""

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # of a class that is none itself
        shown = (f"{each.name}={_shown(each, getattr(self, each.name), False)!r}" for each in fields)
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, kw_only=True, repr=False)
class SwiftSettings(_Shown):
    """How to reach one container of an OpenStack Swift.

    The defaults are those of pfstorage 2.x: a development Swift on this host.
    *os_options* holds what Keystone needs beside a name and a password, by the
    names that swiftclient gives the ``OS_*`` variables.
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
    """A directory of plain files as a store: no server, nothing to configure."""

    store_base: str = ""
    auto_create_container: bool = True


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """A store that lives and dies with its process."""

    auto_create_container: bool = True


BLOCKS: dict[str, type[Any]] = {
    "swift": SwiftSettings,
    "filesystem": FilesystemSettings,
    "memory": MemorySettings,
}


@dataclass(frozen=True, kw_only=True, repr=False)
class CommonSettings(_Shown):
    """What is no backend's own: the block ``this`` of a document. Times are in seconds.

    *timeout* bounds each silence of the store, and *min_rate*, in bytes a second, how slowly bodies may come and
    go beyond that; 0 is no such bound. *timeout* lies above the 60 s for which
    Swift's rate limiter may hold a request (``max_sleep_time_seconds`` in Swift's
    documentation of its ratelimit middleware). *connect_timeout* bounds the opening
    of one connection. *retries* is how often a failed request is repeated. *workers*
    files are moved at once, ``auto`` finds out how many. Sizes are bytes, or a text like ``50M``:
    above *segment_size* an object is stored in segments, above *range_size* it is pulled in
    several ranges at once; *bw_limit* bytes a second are moved at most, 0 is no limit.
    *durable* tells whether pulled files, and the objects of a store of files, are brought to the disk: ``none``,
    ``file`` or ``batch``.
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
    """All that configures one pfstorage: the common settings and a block for each backend."""

    swift: SwiftSettings = SwiftSettings()
    filesystem: FilesystemSettings = FilesystemSettings()
    memory: MemorySettings = MemorySettings()

    @property
    def worker_count(self) -> int:
        """The files that are moved at once; 0 stands for ``auto``."""
        return 0 if self.workers == "auto" else int(self.workers)

    def secrets(self) -> frozenset[str]:
        """Return every secret text in here, for whoever writes something to mask it."""
        return self._secrets

    @functools.cached_property
    def _secrets(self) -> frozenset[str]:
        blocks = [getattr(self, name) for name in BLOCKS]
        found = {text for block in blocks for value in _secrets_of(block) for text in secret_texts(value)}
        return frozenset(found.union(*map(passwords_of, (self.swift.auth_url, self.http_proxy))))


FEW = 8
"""Values that are remembered: anybody may send more, each as long as a message."""

_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


@functools.lru_cache(FEW)
def size_of(value: int | str) -> int:
    """Return the bytes that *value* stands for. Units are powers of 1024. Raise `ValueError`.

    >>> size_of(5), size_of("50M"), size_of("1.5k"), size_of("1GiB")
    (5, 52428800, 1536, 1073741824)
    """
    found = re.fullmatch(r"(\d{1,16}(?:\.\d{1,16})?) ?([KMGT]?)(?:I?B)?", str(value).upper(), re.ASCII)
    if not found:
        raise ValueError("a size is bytes, or a number with K, M, G or T, like 256M")
    return int(float(found[1]) * _UNITS[found[2]])


def is_masked(value: object) -> bool:
    """Tell whether *value* is what shows a secret, and so counts as not given."""
    return value == MASK or (isinstance(value, str) and f"{MASK}@" in value)


def _secrets_of(block: Any) -> Iterator[object]:
    yield from (getattr(block, each.name) for each in dataclasses.fields(block) if "secret" in each.metadata)


def secret_texts(value: object) -> set[str]:
    """Return the texts of a secret; of an object, those whose names say that they are: a project's is none."""
    values = (
        [each for name, each in value.items() if says_secret(name)] if isinstance(value, Mapping) else [value]
    )
    return {str(each) for each in values if each}


def to_document(settings: Settings, *, with_secrets: bool = False) -> dict[str, dict[str, Any]]:
    """Return *settings* as `load_settings` reads them; secrets as `MASK` unless *with_secrets*."""
    document = {
        "this": {
            camel_case(each.name): _shown(each, getattr(settings, each.name), with_secrets)
            for each in _COMMON
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


_COMMON = dataclasses.fields(CommonSettings)
