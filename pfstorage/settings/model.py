"""Settings: defaults < configuration file < environment < flags or the caller.

Each source is a *document*, ``{"this": {...}, "swift": {...}, ...}``: what is no
backend's own stands under ``this`` in camelCase, as the flags are spelled; each
backend has a block, in snake_case as 2.x wrote it. A secret is never part of a
``repr``; whatever shows settings shows `MASK` in its place.
"""

from __future__ import annotations

import dataclasses
import functools
import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pfstorage.errors import SettingsError
from pfstorage.settings.redaction import (
    MASK,
    Secret,
    passwords_of,
    says_secret,
    without_line_end,
    without_password,
)
from pfstorage.settings.urls import is_url, proxy_url
from pfstorage.wire.fields import FieldError, camel_case, read_fields, snake_case

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


def load_settings(*documents: Document) -> tuple[Settings, list[str]]:
    """Build the settings from *documents*, the later over the earlier.

    Return them with one warning a line for whoever started this. Raise
    `SettingsError` for a wrong type, a value out of range or an unknown backend.
    """
    merged: dict[str, dict[str, Any]] = {"this": {}, **{name: {} for name in BLOCKS}}
    warnings = []
    for name, values in (block for document in documents for block in document.items()):
        if not isinstance(values, Mapping):
            raise SettingsError(f"the settings block {name!r} must be an object")
        if name in merged:
            merged[name].update(
                {key: _as_meant(key, value) for key, value in values.items() if not is_masked(value)}
            )
        else:
            warnings.append(f"the settings block {name!r} is not known and was left out")
    common, unknown = _read_block(CommonSettings, "this", merged["this"])
    warnings += unknown
    blocks = {}
    for name, cls in BLOCKS.items():
        blocks[name], unknown = _read_block(cls, name, merged[name])
        warnings += unknown
    settings = Settings(**vars(common), **blocks)
    _check(settings)
    return settings, warnings + _credential_warnings(settings) + _insecurity_warnings(settings)


def _as_meant(key: str, value: Any) -> Any:
    """Return *value* without the line end and the blanks around it, where it is an address."""
    is_address = key in ("auth_url", "httpProxy") and isinstance(value, str)
    return without_line_end(value).strip() if is_address else value


# What 2.x wrote into the block ``this`` of a configuration file and 3 has no use for.
_OLD_NAMES = {"name", "version", "desc", "colorize", "configFileLoad", "configFileSave", "args"}


def _read_block(cls: type[Any], name: str, values: Mapping[str, Any]) -> tuple[Any, list[str]]:
    naming = camel_case if name == "this" else snake_case
    try:
        block, unknown = read_fields(cls, values, naming)
    except FieldError as e:
        raise SettingsError(f"settings, block {name!r}: {e.without_value}") from None
    surplus = [key for key in unknown if name != "this" or key not in _OLD_NAMES]
    return block, [f"the setting {name}.{key} is not known and was left out" for key in surplus]


def _check(settings: Settings) -> None:
    if settings.type not in BLOCKS:
        raise SettingsError(f"there is no backend {settings.type!r}; --type takes one of {', '.join(BLOCKS)}")
    if settings.type == "filesystem" and not settings.filesystem.store_base:
        raise SettingsError("--type filesystem needs --storeBase DIR, the directory that is the store")
    _check_workers(settings.workers)
    for name in ("segment_size", "range_size", "bw_limit", "min_rate"):
        _check_size(name, getattr(settings, name))
    if settings.durable not in DURABLE:
        raise SettingsError(f"durable must be one of {', '.join(DURABLE)}")
    _check_range("retries", settings.retries, 0, 100)
    _check_range("portSelf", settings.port_self, 0, 65535)
    _check_range("timeout", settings.timeout, 0.1, 86400)
    _check_range("connectTimeout", settings.connect_timeout, 0.1, 3600)
    if not is_url(settings.swift.auth_url):
        raise SettingsError(
            "swift.auth_url must be a URL like http://HOST:8080/auth/v1.0, its port at most 65535;"
            " see --swiftAuthUrl, --ipSwift, --portSwift, SWIFT_AUTH_URL"
        )
    try:
        proxy_url(settings.http_proxy)
    except ValueError as e:
        raise SettingsError(f"httpProxy: {e}") from None
    name = settings.swift.container_name
    if name in ("", ".", "..") or "/" in name or not name.isprintable() or len(name.encode()) > 256:
        raise SettingsError(
            "swift.container_name must be a name of up to 256 bytes, not '.' or '..', and without '/' and control"
            " characters"
        )
    if settings.swift.cacert and not Path(settings.swift.cacert).is_file():
        raise SettingsError(
            f"swift.cacert: there is no file {settings.swift.cacert!r}; see --caCert, OS_CACERT"
        )


def _check_workers(value: int | str) -> None:
    if value != "auto" and not re.fullmatch(r"\d{1,9}", str(value), re.ASCII):
        raise SettingsError("workers must be a number, or auto")
    if value != "auto":
        _check_range("workers", int(value), 1, 256)


def _check_size(name: str, value: int | str) -> None:
    try:
        size = size_of(value)
    except ValueError as e:
        raise SettingsError(f"{camel_case(name)}: {e}") from None
    least = 0 if name in ("bw_limit", "min_rate") else LEAST_PIECE
    _check_range(camel_case(name), size, least, 2**50)


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # also refuses NaN
        raise SettingsError(f"{name} must lie between {least} and {most}, not {value}")


def _credential_warnings(settings: Settings) -> list[str]:
    known_to_all = (settings.swift.username, settings.swift.key) == (
        SwiftSettings.username,
        SwiftSettings.key,
    )
    host = urlsplit(settings.swift.auth_url).hostname or ""
    if settings.type != "swift" or not known_to_all or is_loopback(host):
        return []
    return [
        f"the well-known development credentials are used against {host}: set SWIFT_USERNAME and SWIFT_KEY"
    ]


def _insecurity_warnings(settings: Settings) -> list[str]:
    if settings.type != "swift" or not settings.insecure:
        return []
    text = "certificates are not verified (--insecure): others on the way can read keys and tokens, and change files"
    return [f"{text}; use --caCert FILE instead"]


@functools.lru_cache(FEW)
def is_loopback(host: str) -> bool:
    """Tell whether *host*, a name or an address, can only be this machine.

    >>> is_loopback("localhost"), is_loopback("127.0.0.9"), is_loopback("::1"), is_loopback("10.0.0.1")
    (True, True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
