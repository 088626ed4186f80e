"""The description of one flag."""

from __future__ import annotations

from typing import Literal, NamedTuple

FlagKind = Literal["text", "switch", "texts", "integer", "count", "number", "size", "workers"]

# Counts and seconds of the server are bounded, so that a slip of the keyboard is refused.
MAX_COUNT = 999_999
# The ways to bring files to the disk.
DURABLE = ("none", "file", "batch")

# The flags that use a setting of the server.
SERVER_OR_SAVED = ("server", "configFileSave")


class Flag(NamedTuple):
    """One flag. *setting* is its place in a settings document, as ``block.name``; it is empty for a mode or a command.

    *value* names the value in the help; a switch has none. *attribute* is the name in the parsed arguments where
    2.x used another one than *name*. *default* is the parsed value of a flag that was not given. *holds* is
    ``"secret"`` for a secret, and ``"url"`` for a URL that may contain a password. *may_be_empty* accepts an empty
    value, which otherwise is an error: often, it is that of an unset shell variable.

    A flag has an effect only together with one of the flags *needs*; by default, that is ``server`` or
    ``configFileSave`` for an option of the server, and no flag for all others. Alone, it causes a warning, or an error
    if *is_refused_alone*. A setting has no effect on ``--remote``, unless *is_for_remote*.
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
    needs: tuple[str, ...] | None = None
    is_refused_alone: bool = False
    is_for_remote: bool = False

    @property
    def dest(self) -> str:
        """The name of the value in the parsed arguments."""
        return self.attribute or self.name

    @property
    def companions(self) -> tuple[str, ...]:
        """The flags of which this flag needs one; () if it needs none."""
        if self.needs is None:
            return SERVER_OR_SAVED if self.block == "server" else ()
        return self.needs

    @property
    def block(self) -> str:
        return self.setting.partition(".")[0]

    @property
    def key(self) -> str:
        return self.setting.partition(".")[2]
