"""Give one regular JSON interface to object storage, for the data of medical imaging.

The names below are imported at their first use: ``import pfstorage`` loads no SDK and changes nothing in the importing
program.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pfstorage._version import __version__

if TYPE_CHECKING:
    from pfstorage.backends import ObjectInfo, Storage, open_storage
    from pfstorage.compat.v2 import D, FL2dict, PfStorage, swiftStorage
    from pfstorage.errors import PfstorageError
    from pfstorage.handler import StoreHandler
    from pfstorage.server.server import ThreadedHTTPServer
    from pfstorage.settings.model import Settings

_HOME = {
    "D": "compat.v2",
    "FL2dict": "compat.v2",
    "ObjectInfo": "backends",
    "PfStorage": "compat.v2",
    "PfstorageError": "errors",
    "Settings": "settings.model",
    "Storage": "backends",
    "StoreHandler": "handler",
    "ThreadedHTTPServer": "server.server",
    "open_storage": "backends",
    "swiftStorage": "compat.v2",
}

__all__ = [
    "D",
    "FL2dict",
    "ObjectInfo",
    "PfStorage",
    "PfstorageError",
    "Settings",
    "Storage",
    "StoreHandler",
    "ThreadedHTTPServer",
    "__version__",
    "open_storage",
    "swiftStorage",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
