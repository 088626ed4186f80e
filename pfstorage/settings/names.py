"""Check the names of blocks and settings in a document."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from pfstorage.errors import SettingsError
from pfstorage.settings.flags import SERVER_FLAGS
from pfstorage.settings.model import BLOCKS, CommonSettings, Document
from pfstorage.wire.fields import camel_case, known_names, snake_case, without_style

SERVER = "server"
# The names of the settings in each block.
NAMES: dict[str, frozenset[str]] = {
    "this": frozenset(known_names(CommonSettings, camel_case)),
    **{block: frozenset(known_names(cls, snake_case)) for block, cls in BLOCKS.items()},
    SERVER: frozenset(flag.key for flag in SERVER_FLAGS),
}
# Version 2 wrote these names into the block "this" of a configuration file. Version 3 ignores them.
_OLD_NAMES = {"name", "version", "desc", "colorize", "configFileLoad", "configFileSave", "args"}


def check_names(document: Document) -> list[str]:
    """Return a warning for each setting in *document* that is unknown and was left out.

    Raise `SettingsError` if an unknown name could be a mistake for a setting that protects something: an unknown
    block, an unknown name in the block ``server``, a name of that block in another one, and everywhere a name that
    differs from a known one only in case, ``_`` and ``-``. For example, a server with ``enabletokenauth`` would
    otherwise require no tokens.
    """
    warnings = []
    for block, values in document.items():
        if block not in NAMES:
            raise _unknown_block(block)
        if not isinstance(values, Mapping):
            raise SettingsError(f"the settings block {block!r} must be an object")
        for name in map(str, values):
            if name in NAMES[block] or (block == "this" and name in _OLD_NAMES):
                continue
            if intended := _intended(block, name):
                raise SettingsError(f"the setting {_quoted(block, name)} is unknown: it is called {intended}")
            if block == SERVER:
                close = difflib.get_close_matches(name, NAMES[SERVER], 1)
                advice = f"did you mean {SERVER}.{close[0]}?" if close else "remove it from the configuration"
                raise SettingsError(f"the setting {_quoted(block, name)} is unknown: {advice}")
            warnings.append(f"the setting {block}.{name} is not known and was left out")
    return warnings


def _intended(block: str, name: str) -> str:
    """Return the setting that is surely meant by the unknown *name* in *block*, or ""."""
    for each in (block, SERVER):
        if found := _same(name, NAMES[each]):
            return f"{each}.{found}"
    return ""


def _unknown_block(block: str) -> SettingsError:
    names = ", ".join(NAMES)
    found = _same(block, NAMES) or next(iter(difflib.get_close_matches(block, NAMES, 1)), "")
    if found:
        return SettingsError(f"the settings block {block[:80]!r} is unknown: did you mean {found!r}?")
    if place := _intended(SERVER, block):
        return SettingsError(f"the setting {block[:80]!r} is outside of its block: it is called {place}")
    return SettingsError(f"the settings block {block[:80]!r} is unknown: use {names}, or remove it")


def _same(name: str, known: Iterable[str]) -> str:
    """Return the name of *known* that differs from *name* only in case, ``_`` and ``-``, or ""."""
    return next((each for each in known if without_style(each) == without_style(name)), "")


def _quoted(block: str, name: str) -> str:
    return repr(f"{block}.{name}"[:80])
