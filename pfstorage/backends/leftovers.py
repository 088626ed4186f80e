"""What a store may keep of large objects that are no more, or never were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Leftover:
    """The segment *name*, of *size* bytes, that was stored for an object *key*."""

    name: str
    key: str
    size: int | None
    last_modified: str


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Segments that are left over, after *manifests* were read. *unread* tells what could not be read.

    If there is any, what it is made of may be among *segments*.
    """

    segments: Sequence[Leftover]
    manifests: int
    unread: Sequence[str]


RunAll = Callable[[Sequence[Callable[[], Any]]], list[Any]]
"""Does tasks side by side, and returns what they return, in order."""
