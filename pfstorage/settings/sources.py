"""Where settings come from: a configuration file, the environment, parsed flags.

Each makes a document, as `config.load_settings` takes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pfstorage.errors import SettingsError
from pfstorage.settings.model import Document
from pfstorage.settings.redaction import without_line_end
from pfstorage.wire.decoding import decoded


def read_settings_file(path: Path) -> Document:
    """Return the document in the JSON file *path*. Raise `SettingsError` if there is none."""
    try:
        document = json.loads(decoded(path.read_bytes()))
    except OSError as e:
        raise SettingsError(f"cannot read the configuration file {str(path)!r}: {e.strerror}") from e
    except (ValueError, RecursionError) as e:
        raise SettingsError(f"the configuration file {str(path)!r} is not JSON: {e}") from e
    if not isinstance(document, dict):
        raise SettingsError(f"the configuration file {str(path)!r} must hold an object")
    return document


# Who names the credentials of a Swift: pfcon's words, then python-swiftclient's two
# (its documentation, "Authentication"). The first group of which any is set is taken whole.
_CREDENTIALS = (
    ("SWIFT_AUTH_URL", "SWIFT_USERNAME", "SWIFT_KEY"),
    ("ST_AUTH", "ST_USER", "ST_KEY"),
    ("OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD"),
)
_OS_OPTIONS = (
    *("auth_token", "auth_type", "tenant_name", "tenant_id", "project_name", "project_id", "user_id"),
    *("user_domain_name", "user_domain_id", "project_domain_name", "project_domain_id"),
    *("region_name", "service_type", "endpoint_type"),
    *("application_credential_id", "application_credential_secret"),
)


def from_environment(environ: Mapping[str, str]) -> Document:
    """Return the document that the variables in *environ* make."""
    lines = ((name, without_line_end(value)) for name, value in environ.items())
    given = {name: value for name, value in lines if value}
    this: dict[str, Any] = {}
    swift: dict[str, Any] = {}
    if "HOST_IP" in given:
        this["ipSelf"] = given["HOST_IP"]
        swift["auth_url"] = v1_auth_url(given["HOST_IP"])
    group = next((group for group in _CREDENTIALS if not given.keys().isdisjoint(group)), ())
    for each, name in zip(("auth_url", "username", "key"), group, strict=False):
        if name in given:
            swift[each] = given[name]
    options = {each: given[f"OS_{each.upper()}"] for each in _OS_OPTIONS if f"OS_{each.upper()}" in given}
    if "OS_STORAGE_URL" in given:
        options["object_storage_url"] = given["OS_STORAGE_URL"]
    if group == _CREDENTIALS[2] or {"auth_token", "object_storage_url"} <= options.keys():
        swift |= {"auth_version": "3", "os_options": options}
    for name, each in _OTHERS.items():
        if name in given:
            swift[each] = given[name]
    return {"this": this, "swift": swift}


_OTHERS = {
    "OS_IDENTITY_API_VERSION": "auth_version",
    "OS_AUTH_VERSION": "auth_version",
    "ST_AUTH_VERSION": "auth_version",  # the last one given wins
    "SWIFT_CONTAINER_NAME": "container_name",
    "OS_CACERT": "cacert",
}


# Where a flag goes, by the name that argparse keeps its value under; the older ones as 2.x named them.
_FLAGS = {
    "str_type": ("this", "type"),
    "verbosity": ("this", "verbosity"),
    "str_debugToDir": ("this", "debugToDir"),
    "ipSelf": ("this", "ipSelf"),
    "portSelf": ("this", "portSelf"),
    "b_httpResponse": ("this", "httpResponse"),
    "httpProxy": ("this", "httpProxy"),
    "workers": ("this", "workers"),
    "segmentSize": ("this", "segmentSize"),
    "rangeSize": ("this", "rangeSize"),
    "bwLimit": ("this", "bwLimit"),
    "durable": ("this", "durable"),
    "retries": ("this", "retries"),
    "timeout": ("this", "timeout"),
    "connectTimeout": ("this", "connectTimeout"),
    "minRate": ("this", "minRate"),
    "storeBase": ("filesystem", "store_base"),
    "swiftAuthUrl": ("swift", "auth_url"),
    "swiftUsername": ("swift", "username"),
    "swiftKey": ("swift", "key"),
    "swiftContainer": ("swift", "container_name"),
    "caCert": ("swift", "cacert"),
    "insecure": ("this", "insecure"),
    "allowPlainStorage": ("this", "allowPlainStorage"),
}

SECRET_FLAGS = ("swiftKey", "authToken")


def from_flags(args: Mapping[str, Any], environ: Mapping[str, str]) -> Document:
    """Return the document that the parsed flags *args* make; None and "" are flags that were not given."""
    given = {name: value for name, value in args.items() if value not in (None, "")}
    document: dict[str, dict[str, Any]] = {"this": {}, "swift": {}, "filesystem": {}}
    if "ipSwift" in given or "portSwift" in given:
        host = given.get("ipSwift", environ.get("HOST_IP") or "127.0.0.1")
        auth_url = v1_auth_url(host, given.get("portSwift", 8080))
        document["swift"] = {"auth_url": auth_url, "auth_version": "1", "os_options": {}}
    for name, (block, key) in _FLAGS.items():
        if name in given:
            document[block][key] = given[name]
    return document


def v1_auth_url(host: str, port: int | str = 8080) -> str:
    """Return where Swift's own (version 1) authentication answers on *host*.

    >>> v1_auth_url("::1")
    'http://[::1]:8080/auth/v1.0'
    """
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/auth/v1.0"
