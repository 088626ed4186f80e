"""What a message meant where it was sent: its store, and the directories that its paths begin at.

A job may be done by another process, started in another directory, with other roots, over another store.
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
    """The store of a message by name, "" if it may be any, and `AllowedRoots.named` of the door that it came by."""

    store: str = ""
    roots: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Origin:
        """Raise `ValueError` or `TypeError` for what `to_json` has not made."""
        content = json.loads(text)
        return cls(content["store"], tuple((given, real) for given, real in content["roots"]))

    def means_as(self, other: Origin) -> bool:
        """Tell whether the same message means the same here and there; so it does where that was not kept yet."""
        known, mine = (other.store, other.roots[:1]), (self.store, self.roots[:1])
        return other == Origin() or known == mine


def store_name(settings: Settings) -> str:
    """Return what tells the store of *settings* from others, without secrets. Who logs in to an account may change.

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
