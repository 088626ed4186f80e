"""Errors that can occur anywhere: unexpected exceptions, and the limit of open files."""

from __future__ import annotations

import errno
import logging

from pfstorage.errors import NoDescriptorError, PfstorageError

log = logging.getLogger(__name__)

_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}
NO_DESCRIPTORS = "this process can open no more files now: try again later, or raise its limit (ulimit -n)"


def is_out_of_descriptors(error: BaseException) -> bool:
    """Return whether the system refused to open a file because too many are open, a temporary condition."""
    return isinstance(error, OSError) and error.errno in _NO_DESCRIPTORS


def unexpected_error(error: Exception, what: str) -> PfstorageError:
    """Log the unexpected *error* of *what*, such as "an action"; return the error for the reply.

    If too many files are open, there is no traceback in the log, since the error may occur anywhere.
    """
    if is_out_of_descriptors(error):
        log.error("%s failed: %s", what, NO_DESCRIPTORS)
        return NoDescriptorError(NO_DESCRIPTORS)
    log.error("%s failed for a reason that pfstorage does not know", what, exc_info=error)
    return PfstorageError(f"unexpected {type(error).__name__}; the log has the details")
