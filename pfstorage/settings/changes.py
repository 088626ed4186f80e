"""Decide which settings may change while a process runs, and protect its secrets from such a change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pfstorage.errors import SettingsError
from pfstorage.settings.model import Document, Settings, is_masked, secret_texts
from pfstorage.settings.redaction import without_line_end

Path = tuple[str, ...]

# The settings that a message over HTTP may change. No such change leads to another store or to a local file, and
# none skips a check.
AT_RUN_TIME: frozenset[Path] = frozenset(
    (
        *(
            ("this", name)
            for name in ("verbosity", "workers", "segmentSize", "rangeSize", "bwLimit", "durable")
        ),
        *(("this", name) for name in ("retries", "timeout", "connectTimeout")),
        ("swift", "container_name"),
    )
)


def leaves(tree: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the path and the value of each leaf. An empty object is a leaf."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


def require_new_secrets(
    before: Settings, after: Settings, documents: tuple[Document, ...], *, with_proxy: bool = False
) -> None:
    """Raise `SettingsError` if *after* would send a secret of *before* to another address.

    *after* was made of *documents*; later ones take precedence. The document with the new address may contain the
    same secret: its author knows the secret. With *with_proxy*, the proxy is an address, too.
    """
    old, new = before.swift, after.swift
    changed = [
        *([("swift", "auth_url")] if old.auth_url != new.auth_url else []),
        *([("swift", "os_options")] if _storage_url(before) != _storage_url(after) else []),
        *([("this", "httpProxy")] if with_proxy and before.http_proxy != after.http_proxy else []),
    ]
    for block, name in changed:
        given = _secrets_given_with(block, name, documents)
        kept = {
            "key": {new.key} & {old.key} - given - {""},
            "os_options": secret_texts(new.os_options) & secret_texts(old.os_options) - given,
        }
        for secret, texts in kept.items():
            if texts:
                raise SettingsError(
                    f"{block}.{name} has changed, and swift.{secret} has not: set the key of the new address in the"
                    " same place, or restart pfstorage"
                )


def _storage_url(settings: Settings) -> object:
    return settings.swift.os_options.get("object_storage_url")


def _secrets_given_with(block: str, name: str, documents: tuple[Document, ...]) -> set[str]:
    """Return the secrets in the last of *documents* that sets *name* of *block*."""
    for document in reversed(documents):
        value = document.get(block, {}).get(name)
        if value is not None and not is_masked(value):
            swift = document.get("swift", {})
            key, options = swift.get("key"), swift.get("os_options")
            texts = secret_texts(options) if isinstance(options, Mapping) else set()
            return {without_line_end(text) for text in (*texts, key) if isinstance(text, str)}
    return set()
