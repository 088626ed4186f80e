"""Read settings from a configuration file, the environment and parsed flags. Each becomes a document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pfstorage.errors import SettingsError
from pfstorage.settings.flags import (
    AUTH_VERSION_VARIABLES,
    FLAGS,
    LOGIN_ADDRESS,
    OS_OPTIONS,
    SERVER_FLAGS,
    VARIABLES,
)
from pfstorage.settings.model import Document
from pfstorage.settings.names import SERVER, check_names
from pfstorage.settings.redaction import without_line_end
from pfstorage.settings.values import FileTooLongError, read_file
from pfstorage.wire.decoding import decoded

_BY_NAME = {flag.name: flag for flag in FLAGS}
_LOGIN = [_BY_NAME[name] for name in ("swiftAuthUrl", "swiftUsername", "swiftKey")]
# The names of pfcon, then the two groups of python-swiftclient (its documentation, "Authentication").
# The first group that has a variable is taken; the others are ignored.
_CREDENTIALS = tuple(zip(*(flag.variables for flag in _LOGIN), strict=True))


def read_settings_file(path: Path) -> Document:
    """Return the document in the JSON file *path*. Raise `SettingsError` if the file can't be read."""
    try:
        document = json.loads(decoded(read_file(str(path))), object_pairs_hook=_unique)
    except OSError as e:
        raise SettingsError(f"cannot read the configuration file {str(path)!r}: {e.strerror}") from e
    except FileTooLongError as e:
        raise SettingsError(f"cannot read the configuration file {str(path)!r}: {e}") from e
    except (ValueError, RecursionError) as e:
        raise SettingsError(f"the configuration file {str(path)!r} is not JSON: {e}") from e
    if not isinstance(document, dict):
        raise SettingsError(f"the configuration file {str(path)!r} must hold an object")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return *pairs* as a dict. Raise `ValueError` for a name that is there twice: its values may contradict."""
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"the name {name[:80]!r} is there twice in one object: remove one")
        content[name] = value
    return content


def from_environment(environ: Mapping[str, str]) -> Document:
    """Return the document that the variables in *environ* make. An empty variable counts as not given."""
    lines = {name: without_line_end(environ[name]) for name in environ.keys() & VARIABLES.keys()}
    given = {name: value for name, value in lines.items() if value}
    this: dict[str, Any] = {}
    swift: dict[str, Any] = {}
    if "HOST_IP" in given:
        this["ipSelf"] = given["HOST_IP"]
        swift["auth_url"] = v1_auth_url(given["HOST_IP"])
    group = next((group for group in _CREDENTIALS if not given.keys().isdisjoint(group)), ())
    for flag, name in zip(_LOGIN, group, strict=False):
        if name in given:
            swift[flag.key] = given[name]
    options = {option: given[name] for name, option in OS_OPTIONS.items() if name in given}
    if group == _CREDENTIALS[2] or {"auth_token", "object_storage_url"} <= options.keys():
        swift |= {"auth_version": "3", "os_options": options}
    for name in AUTH_VERSION_VARIABLES:
        if name in given:
            swift["auth_version"] = given[name]
    for name in ("swiftContainer", "caCert"):
        [variable] = _BY_NAME[name].variables
        if variable in given:
            swift[_BY_NAME[name].key] = given[variable]
    return {"this": this, "swift": swift}


def from_flags(args: Mapping[str, Any], environ: Mapping[str, str]) -> Document:
    """Return the document that the parsed flags *args* make; None and "" are flags that were not given."""
    document: dict[str, dict[str, Any]] = {"this": {}, "swift": {}, "filesystem": {}}
    address = {name: args[name] for name in LOGIN_ADDRESS if args.get(name) not in (None, "")}
    if address:
        host = address.get("ipSwift") or environ.get("HOST_IP") or "127.0.0.1"
        auth_url = v1_auth_url(host, address.get("portSwift", 8080))
        document["swift"] = {"auth_url": auth_url, "auth_version": "1", "os_options": {}}
    for dest, block, key in _FLAGS_OF_SETTINGS:
        value = args.get(dest)
        if value not in (None, ""):
            document[block][key] = value
    return document


_FLAGS_OF_SETTINGS = [
    (flag.dest, flag.block, flag.key)
    for flag in FLAGS
    if flag.block not in ("", "server") and flag.name not in LOGIN_ADDRESS
]


def server_settings(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the server by the names of their flags.

    They are those of the parsed flags *args*, else those of the block ``server`` of the file of
    ``--configFileLoad``. Raise `SettingsError` if the file can't be read, or has a name that `check_names` refuses,
    or an empty text or list.
    """
    path = args.get("str_configFileLoad")
    document = read_settings_file(Path(path)) if path else {}
    check_names(document)
    block = document.get(SERVER, {})
    for name, value in block.items():
        if value in ("", []) or (isinstance(value, list) and "" in value):
            raise SettingsError(f"the setting {SERVER}.{name} is empty: set it, or remove it for its default")
    both = {flag.name: args.get(flag.dest) or block.get(flag.name) for flag in SERVER_FLAGS}
    return {name: value for name, value in both.items() if value not in (None, "", [])}


def v1_auth_url(host: str, port: int | str = 8080) -> str:
    """Return the URL of Swift's own (version 1) login on *host*.

    >>> v1_auth_url("::1")
    'http://[::1]:8080/auth/v1.0'
    """
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/auth/v1.0"
