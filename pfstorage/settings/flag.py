"""The description of one flag."""

from __future__ import annotations

from typing import Literal, NamedTuple

FlagKind = Literal["text", "switch", "texts", "integer", "count", "number", "size", "workers"]

# Counts and seconds of the server are bounded, so that a slip of the keyboard is refused.
MAX_COUNT = 999_999
# The ways to bring files to the disk.
DURABLE = ("none", "file", "batch")


class Flag(NamedTuple):
    """One flag. *setting* is its place in a settings document, as ``block.name``; it is empty for a mode or a command.

    *value* names the value in the help; a switch has none. *attribute* is the name in the parsed arguments where
    2.x used another one than *name*. *default* is the parsed value of a flag that was not given. *holds* is
    ``"secret"`` for a secret, and ``"url"`` for a URL that may contain a password. *may_be_empty* accepts an empty
    value, which otherwise is an error: often, it is that of an unset shell variable.
    """

    name: str
    help: str
    value: str = ""
    setting: str = ""
    kind: FlagKind = "text"
    short: str = ""
    attribute: str = ""
    choices: tuple[str, ...] = ()
    default: object = None
    variables: tuple[str, ...] = ()
    holds: Literal["", "secret", "url"] = ""
    may_be_empty: bool = False

    @property
    def dest(self) -> str:
        """The name of the value in the parsed arguments."""
        return self.attribute or self.name

    @property
    def block(self) -> str:
        return self.setting.partition(".")[0]

    @property
    def key(self) -> str:
        return self.setting.partition(".")[2]
