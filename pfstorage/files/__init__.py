"""Local files: walk a tree, read a regular file, write a file whole or not at all."""

from pfstorage.files.common import local_error, local_errors
from pfstorage.files.disk import folds_names, free_bytes
from pfstorage.files.reading import Body, open_body
from pfstorage.files.tree import LocalTree
from pfstorage.files.unfinished import PART_PREFIX, PART_SUFFIX, is_part
from pfstorage.files.walking import LocalFile, Walk, find_files, walk
from pfstorage.files.writing import NewFile, sync_file_systems

__all__ = [
    "PART_PREFIX",
    "PART_SUFFIX",
    "Body",
    "LocalFile",
    "LocalTree",
    "NewFile",
    "Walk",
    "find_files",
    "folds_names",
    "free_bytes",
    "is_part",
    "local_error",
    "local_errors",
    "open_body",
    "sync_file_systems",
    "walk",
]
