"""The server's own files, such as those of the tokens: no message may touch them, wherever they lie."""

from __future__ import annotations

import logging
import os

from pfstorage.jobs.directory import STATE_FILES
from pfstorage.local import AllowedRoots, passes_through
from pfstorage.server.options import ServerOptions
from pfstorage.settings.model import Settings

log = logging.getLogger(__name__)


class OwnFiles:
    """What *options*, and the settings of the time, name: closed to the messages that name files below *roots*."""

    def __init__(self, roots: AllowedRoots, options: ServerOptions) -> None:
        self.roots = roots
        self._options = options
        self._settings: Settings | None = None
        self._named: set[str] = set()
        """What is or was named: records stay where they are when the setting changes."""

    def follow(self, settings: Settings) -> None:
        """Close what *settings* name, if they have changed, and log what can't be closed."""
        if settings is not self._settings and (reason := self.close(settings)):
            log.error("messages could touch what is the server's own: %s", reason)

    def close(self, settings: Settings) -> str:
        """Close what *settings* name; return what can't be closed and what to do about it, "" if all is.

        Messages can be kept from what lies in a root, but not from the root itself: then they
        are kept from all local files. What lies in a store of files is an object of it.
        """
        own = {**self._options.own_files(), "--debugToDir": settings.debug_to_dir}
        own = {flag: path for flag, path in own.items() if path}
        store = settings.filesystem.store_base if settings.type == "filesystem" else ""
        shared = [flag for flag, path in own.items() if self.roots.contains_root(path)]
        jobs = [os.path.join(own["--stateDir"], name) for name in STATE_FILES] if "--stateDir" in own else []
        self._named.update(own.values(), jobs, filter(None, [store]))
        self.roots.deny(self._named, everything=bool(shared))
        self._settings = settings  # from now on, there is nothing to do for it
        if shared:
            return (
                f"{shared[0]}: messages may read and write what is in {own[shared[0]]!r}:"
                " name another directory, or another by --fsRoot"
            )
        stored = [
            flag for flag, path in own.items() if store and passes_through(os.path.realpath(store), path)
        ]
        return f"{stored[0]}: what lies below --storeBase is an object: name another place" if stored else ""
