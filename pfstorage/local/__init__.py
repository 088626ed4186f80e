"""Local files: walk a tree, read a regular file, replace a file atomically."""

from pfstorage.local.deny_list import DenyList, passes_through
from pfstorage.local.descriptors import require_regular
from pfstorage.local.disk import sync_one
from pfstorage.local.errors import is_disk_error, local_error, local_errors
from pfstorage.local.reading import Body, body_of, open_body
from pfstorage.local.resolved import ResolvedPath
from pfstorage.local.roots import AllowedRoots
from pfstorage.local.sandbox import LocalAccess, shell_directory, working_directory
from pfstorage.local.tree import LocalTree
from pfstorage.local.unfinished import (
    UNFINISHED_PREFIX,
    UNFINISHED_SUFFIX,
    is_unfinished,
    reject_unfinished_name,
)
from pfstorage.local.versions import file_version, is_stable, settled_status
from pfstorage.local.walking import LocalFile, find_files
from pfstorage.local.writing import NewFile, sync_file_systems

__all__ = [
    "UNFINISHED_PREFIX",
    "UNFINISHED_SUFFIX",
    "AllowedRoots",
    "Body",
    "DenyList",
    "LocalAccess",
    "LocalFile",
    "LocalTree",
    "NewFile",
    "ResolvedPath",
    "body_of",
    "file_version",
    "find_files",
    "is_disk_error",
    "is_stable",
    "is_unfinished",
    "local_error",
    "local_errors",
    "open_body",
    "passes_through",
    "reject_unfinished_name",
    "require_regular",
    "settled_status",
    "shell_directory",
    "sync_file_systems",
    "sync_one",
    "working_directory",
]
