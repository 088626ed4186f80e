"""Build settings from documents, and check them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pfstorage.errors import SettingsError
from pfstorage.settings.flag import DURABLE
from pfstorage.settings.model import (
    BLOCKS,
    MIN_PART,
    CommonSettings,
    Document,
    Settings,
    SwiftSettings,
    is_masked,
    size_of,
)
from pfstorage.settings.names import check_names
from pfstorage.settings.redaction import without_line_end
from pfstorage.settings.urls import is_loopback, is_url, proxy_url
from pfstorage.wire.fields import FieldError, camel_case, read_fields, snake_case


def load_settings(*documents: Document) -> tuple[Settings, list[str]]:
    """Build the settings from *documents*; later ones take precedence. Return them with warnings, one a line.

    Raise `SettingsError` for a wrong type, a value out of range, an unknown backend, and a name that `check_names`
    refuses.
    """
    merged: dict[str, dict[str, Any]] = {"this": {}, **{name: {} for name in BLOCKS}}
    warnings = [warning for document in documents for warning in check_names(document)]
    for name, values in (block for document in documents for block in document.items()):
        if name in merged:  # the options of the server are read when one starts
            merged[name].update(
                {key: _stripped(key, value) for key, value in values.items() if not is_masked(value)}
            )
    common = _read_block(CommonSettings, "this", merged["this"])
    blocks = {name: _read_block(cls, name, merged[name]) for name, cls in BLOCKS.items()}
    settings = Settings(**vars(common), **blocks)
    _check_settings(settings)
    return settings, warnings + _credential_warnings(settings) + _insecurity_warnings(settings)


def _stripped(key: str, value: Any) -> Any:
    """Return *value*; strip an address of its line end and of the blanks around it."""
    is_address = key in ("auth_url", "httpProxy") and isinstance(value, str)
    return without_line_end(value).strip() if is_address else value


def _read_block(cls: type[Any], name: str, values: Mapping[str, Any]) -> Any:
    naming = camel_case if name == "this" else snake_case
    try:
        return read_fields(cls, values, naming)[0]
    except FieldError as e:
        raise SettingsError(f"settings, block {name!r}: {e.without_value}") from None


def _check_settings(settings: Settings) -> None:
    if settings.type not in BLOCKS:
        raise SettingsError(f"there is no backend {settings.type!r}; --type takes one of {', '.join(BLOCKS)}")
    if settings.type == "filesystem" and not settings.filesystem.store_base:
        raise SettingsError("--type filesystem needs --storeBase DIR, the directory of the store")
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
    least = 0 if name in ("bw_limit", "min_rate") else MIN_PART
    _check_range(camel_case(name), size, least, 2**50)


def _check_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # also refuses NaN
        raise SettingsError(f"{name} must be between {least} and {most}, not {value}")


def _credential_warnings(settings: Settings) -> list[str]:
    known_to_all = (settings.swift.username, settings.swift.key) == (
        SwiftSettings.username,
        SwiftSettings.key,
    )
    host = urlsplit(settings.swift.auth_url).hostname or ""
    if settings.type != "swift" or not known_to_all or is_loopback(host):
        return []
    return [
        f"pfstorage uses the well-known development credentials at {host}: set SWIFT_USERNAME and SWIFT_KEY"
    ]


def _insecurity_warnings(settings: Settings) -> list[str]:
    if settings.type != "swift" or not settings.insecure:
        return []
    text = "pfstorage does not verify certificates (--insecure): others on the network can read keys and change files"
    return [f"{text}; use --caCert FILE instead"]
