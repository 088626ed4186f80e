"""The errors to reply with for what nobody foresaw; that a process may open no more files can be noticed anywhere."""

from __future__ import annotations

import errno
import logging

from pfstorage.errors import NoDescriptorError, PfstorageError

log = logging.getLogger(__name__)

_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}
NO_DESCRIPTORS = "this process can open no more files now: try again later, or raise its limit (ulimit -n)"


def is_out_of_descriptors(error: BaseException) -> bool:
    """Tell whether the system has refused to open something since too many files are open, which passes."""
    return isinstance(error, OSError) and error.errno in _NO_DESCRIPTORS


def unexpected_error(error: Exception, what: str) -> PfstorageError:
    """Return the error to reply with where *what*, such as an action, has failed with *error*, and log the latter.

    That there are no descriptors is no reason for a traceback: it says nothing of the place.
    """
    if is_out_of_descriptors(error):
        log.error("%s failed: %s", what, NO_DESCRIPTORS)
        return NoDescriptorError(NO_DESCRIPTORS)
    log.error("%s failed for a reason that pfstorage does not know", what, exc_info=error)
    return PfstorageError(f"unexpected {type(error).__name__}; the log has the details")
