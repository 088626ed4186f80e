"""Local files: walk a tree, read a regular file, write a file whole or not at all."""

from pfstorage.local.common import (
    is_of_disk,
    is_stable,
    local_error,
    local_errors,
    require_regular,
    settled_status,
    version_of,
)
from pfstorage.local.deny_list import DenyList, is_on_the_way
from pfstorage.local.disk import sync_one
from pfstorage.local.reading import Body, body_of, open_body
from pfstorage.local.resolved import ResolvedPath
from pfstorage.local.sandbox import AllowedRoots, LocalAccess, name_by_shell, working_directory
from pfstorage.local.tree import LocalTree
from pfstorage.local.unfinished import PART_PREFIX, PART_SUFFIX, is_part, require_no_part
from pfstorage.local.walking import LocalFile, find_files
from pfstorage.local.writing import NewFile, sync_file_systems

__all__ = [
    "PART_PREFIX",
    "PART_SUFFIX",
    "AllowedRoots",
    "Body",
    "DenyList",
    "LocalAccess",
    "LocalFile",
    "LocalTree",
    "NewFile",
    "ResolvedPath",
    "body_of",
    "find_files",
    "is_of_disk",
    "is_on_the_way",
    "is_part",
    "is_stable",
    "local_error",
    "local_errors",
    "name_by_shell",
    "open_body",
    "require_no_part",
    "require_regular",
    "settled_status",
    "sync_file_systems",
    "sync_one",
    "version_of",
    "working_directory",
]
