"""What somebody may do with the objects of a store."""

from __future__ import annotations

import re
from dataclasses import dataclass

LEVELS = ("read", "write", "admin")
"""Each allows what those before it do."""


@dataclass(frozen=True)
class Permissions:
    """To *level*, with the keys that begin with *prefix*.

    *prefix* is a plain text: ``chris/feed_1`` is for ``chris/feed_12/a`` too, ``chris/feed_1/`` is not.
    """

    level: str = "admin"
    prefix: str = ""

    @classmethod
    def parse(cls, text: str) -> Permissions:
        """Read ``LEVEL [PREFIX]``; the prefix may have blanks in it. Raise `ValueError`, which quotes nothing.

        A prefix that no key can have is refused: whoever writes it means another one.

        >>> Rights.parse("write chris/feed_12/")
        Rights(level='write', prefix='chris/feed_12/')
        """
        level, prefix = [*text.split(maxsplit=1), "", ""][:2]
        if level not in LEVELS:  # which may be a token that stands in the wrong place
            raise ValueError(f"rights are one of {', '.join(LEVELS)}, then a key prefix if they have one")
        prefix = prefix.strip()
        if re.search(r"(^|\s)[#;]", prefix):
            raise ValueError(
                "a key prefix has no word that begins with '#' or ';': a comment is a line of its own"
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
        """Whether nothing is beyond them: not the jobs of others, nor the server itself."""
        return self.level == LEVELS[-1] and not self.prefix

    def allows(self, level: str) -> bool:
        """Tell whether they reach as far as *level*."""
        return LEVELS.index(self.level) >= LEVELS.index(level)

    def reach(self, others: Permissions) -> bool:
        """Tell whether each key of *others* is one of those that these are for, too."""
        return self.allows_key(others.prefix)

    def allows_key(self, key: str) -> bool:
        """Tell whether *key* is one of those that they are for."""
        return key.startswith(self.prefix)
