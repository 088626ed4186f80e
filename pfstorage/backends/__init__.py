"""The contract of a storage, and the backends: each keeps objects in one kind of store."""

from pfstorage.backends.contract import ObjectInfo, Storage
from pfstorage.backends.registry import BACKENDS, open_settings, open_storage

__all__ = ["BACKENDS", "ObjectInfo", "Storage", "open_settings", "open_storage"]
