"""The origin of a message: its store, and the directories to which its paths belong.

A job may run in another process than the one that accepted it: in another directory, with other roots or another store.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass

from pfstorage.settings.model import Settings
from pfstorage.settings.redaction import says_secret, without_password

_ACCOUNT_OPTIONS = ("tenant_", "project_", "object_storage_url", "region_name")


@dataclass(frozen=True)
class Origin:
    """The name of a message's store, "" for any store, and the `AllowedRoots.named` of its interface."""

    store: str = ""
    roots: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Origin:
        """Read the text of `to_json`. Raise `KeyError`, `ValueError` or `TypeError` for any other text."""
        content = json.loads(text)
        return cls(content["store"], tuple((given, real) for given, real in content["roots"]))

    def matches(self, other: Origin) -> bool:
        """Return whether one message has the same meaning in both. Jobs of version 3.0.0 have no origin and match."""
        known, mine = (other.store, other.roots[:1]), (self.store, self.roots[:1])
        return other == Origin() or known == mine


def store_name(settings: Settings) -> str:
    """Return a text without secrets that distinguishes the store of *settings* from others.

    The text does not depend on the login: the user of an account may change.

    >>> store_name(Settings())
    "the container 'users' of 'chris' at http://127.0.0.1:8080/auth/v1.0"
    """
    if settings.type == "filesystem":
        return f"the directory {os.path.realpath(settings.filesystem.store_base)!r}"
    if settings.type != "swift":
        return f"the {settings.type} store"
    swift = settings.swift
    options = {
        name: str(value)
        for name, value in sorted(swift.os_options.items())
        if value and name.startswith(_ACCOUNT_OPTIONS) and not says_secret(name)
    }
    account = options or swift.username.partition(":")[0]
    return f"the container {swift.container_name!r} of {account!r} at {without_password(swift.auth_url)}"
