"""Permissions on the objects of a store."""

from __future__ import annotations

import re
from dataclasses import dataclass

# In ascending order: each level includes the levels before it.
LEVELS = ("read", "write", "admin")


@dataclass(frozen=True)
class Permissions:
    """A level of permission on the objects whose keys start with *prefix*.

    *prefix* is a plain string: ``chris/feed_1`` includes ``chris/feed_12/a``, ``chris/feed_1/`` does not.
    """

    level: str = "admin"
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Permissions:
        """Parse ``LEVEL [PREFIX]``. The prefix may contain blanks.

        Raise `ValueError` for an invalid text, or a prefix that no key can have, which must be a mistake. The error
        does not quote the text, because it may be a misplaced token.

        >>> Permissions.parse("write chris/feed_12/")
        Permissions(level='write', prefix='chris/feed_12/')
        """
        level, prefix = [*text.split(maxsplit=1), "", ""][:2]
        if level not in LEVELS:
            raise ValueError(f"rights are one of {', '.join(LEVELS)}, then a key prefix if they have one")
        prefix = prefix.strip()
        if re.search(r"(^|\s)[#;]", prefix):
            raise ValueError(
                "a key prefix has no word that begins with '#' or ';': write a comment on a separate line"
            )
        *inner, last = prefix.split("/")
        is_wrong = not prefix.isprintable() or not {"", ".", ".."}.isdisjoint(inner) or last in (".", "..")
        if prefix and (is_wrong or prefix.endswith("*")):
            raise ValueError(
                "a key prefix is a plain text like 'chris/feed_12/': without '/' at its beginning, '*' at its end,"
                " and '//', '.' and '..' between"
            )
        return cls(level, prefix)

    @property
    def is_unrestricted(self) -> bool:
        """Whether the permissions include everything, even the jobs of other users and the server itself."""
        return self.level == LEVELS[-1] and not self.prefix

    def allows(self, level: str) -> bool:
        """Return whether the permissions include *level*."""
        return LEVELS.index(self.level) >= LEVELS.index(level)

    def covers(self, others: Permissions) -> bool:
        """Return whether the permissions include all keys of *others*."""
        return self.allows_key(others.prefix)

    def allows_key(self, key: str) -> bool:
        """Return whether the permissions include *key*."""
        return key.startswith(self.prefix)
