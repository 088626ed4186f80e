"""Provide the names and calls of pfstorage 2.x as thin wrappers of `StoreHandler`.

Their keywords and reply keys are those of 2.x, so code for 2.x runs unchanged. New code should use `open_storage` and
`StoreHandler`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pfstorage._version import __version__
from pfstorage.actions.listing import prepended
from pfstorage.errors import PfstorageError
from pfstorage.handler import StoreHandler
from pfstorage.logs.console import debug_printer
from pfstorage.settings.state import StateTree
from pfstorage.wire.forms import decode_form
from pfstorage.wire.message import Message
from pfstorage.wire.reply import Reply


def storagePath_get(key_num: str | int, storeBase: str) -> str:
    """Return the directory of a key in a store base, with a slash at its end.

    >>> storagePath_get("jid-1", "/data")
    '/data/key-jid-1/'
    """
    return os.path.join(f"{storeBase}/key-{key_num}", "")


def key_dereference(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the key that the ``meta-store`` of *request* points to: ``{"status": .., "key": ..}``.

    >>> key_dereference({"meta-store": {"meta": "meta-data", "key": "jid"}, "meta-data": {"jid": "j1"}})
    {'status': True, 'key': 'j1'}
    """
    pointer = request.get("meta-store", {})
    target = request.get(pointer.get("meta", ""), {})
    found = pointer.get("key") in target
    return {"status": found, "key": target[pointer["key"]] if found else ""}


class FL2dict:
    """A decoder of a flattened dictionary of jQuery. A call of the instance returns the nested one."""

    def __init__(self, o: str | Mapping[str, str]) -> None:
        self.d_in = o

    def __call__(self) -> dict[str, Any]:
        return self.do()

    def do(self) -> dict[str, Any]:
        from urllib.parse import urlencode

        return decode_form(self.d_in if isinstance(self.d_in, str) else urlencode(self.d_in))


class _Tree:
    """The part of pfmisc's ``C_stree`` that code for 2.x calls on ``D.T``."""

    def __init__(self, state: StateTree) -> None:
        self._state = state

    def cat(self, path: str) -> Any:
        """Return the value at *path*, or False if there is none."""
        return self._state.get(path) if self.exists(path) else False

    def touch(self, path: str, value: Any) -> None:
        self._state.set(path, value)

    def exists(self, path: str) -> bool:
        try:
            self._state.get(path)
        except PfstorageError:
            return False
        return True

    def isdir(self, path: str) -> bool:
        return self.exists(path) and isinstance(self._state.get(path), dict)


class D:
    """The state of one service as a tree. Version 2 has one tree per process, version 3 one per service."""

    def __init__(self, *, handler: StoreHandler | None = None, **kwargs: Any) -> None:
        self._handler = handler or _handler_of(**kwargs)
        self.T = _Tree(self._handler.state)
        self.dp = debug_printer(self._handler.settings.verbosity, "D")

    def __call__(self, path: str, *value: Any) -> Any:
        """Set *path* to *value*, if given. Return the value at *path*."""
        if value:
            self.T.touch(path, value[0])
        return self.T.cat(path)

    @property
    def d_state(self) -> dict[str, Any]:
        return dict(self._handler.state.get("/"))

    def internalctl_process(self, *, request: Mapping[str, Any]) -> dict[str, Any]:
        return self._handler.run({**request, "action": "internalctl"})


def _handler_of(
    *,
    args: Mapping[str, Any] | None = None,
    name: str = "pfstorage",
    version: str = __version__,
    desc: str = "",
    msg: str = "",
    test: bool = False,
) -> StoreHandler:
    """Make a handler from the keywords of 2.x's constructors. *desc*, *msg* and *test* have no effect."""
    return StoreHandler.from_args(args or {}, name=name, version=version)


class PfStorage:
    """The base class of the storages of 2.x, for the backend ``str_type`` in *args*."""

    storagePath_get = staticmethod(storagePath_get)
    getStoragePath = staticmethod(storagePath_get)

    def __init__(self, **kwargs: Any) -> None:
        """Accept the keywords of 2.x: ``args=vars(parsed flags)``, ``name=``, ``desc=``, ``version=``."""
        self._handler = _handler_of(**kwargs)
        self._bucket_path = ""
        self.s = D(handler=self._handler)
        self.dp = debug_printer(self._handler.settings.verbosity, type(self).__name__)

    def run(self, str_msg: str) -> dict[str, Any]:
        """Answer the JSON message *str_msg* with a dict. A method ``<action>_process`` answers its action."""
        try:
            message = Message.parse(str_msg)
        except PfstorageError as e:
            return Reply.from_error(e).body
        method = getattr(self, f"{message.action}_process", None)
        request = {"action": message.action, "meta": dict(message.meta)}
        result: dict[str, Any] = method(request=request) if callable(method) else self._handler.run(request)
        return result

    def ls(self, **kwargs: Any) -> dict[str, Any]:
        """List objects: ``{"status", "objectDict": [rows], "lsList": [names], "fullPath"}``."""
        reply = self._act("ls", {**kwargs, "retSpec": []})
        listing = reply.get("ls")
        if isinstance(listing, dict):
            return listing
        return {**reply, "objectDict": [], "lsList": [], "fullPath": str(kwargs.get("path", ""))}

    def objExists(self, **kwargs: Any) -> dict[str, Any]:
        """Return whether the object *obj* exists: ``{"status", "objPath"}``."""
        return self._act("objExists", kwargs)

    def objPut(self, **kwargs: Any) -> dict[str, Any]:
        """Store ``file=`` or ``fileList=`` under the keys of ``inLocation=`` and ``mapLocationOver=``."""
        return self._act("objPut", kwargs)

    def objPull(self, **kwargs: Any) -> dict[str, Any]:
        """Write the objects that ``path=`` and ``substr=`` select to local files."""
        return self._act("objPull", kwargs)

    def _act(self, action: str, meta: Mapping[str, Any]) -> dict[str, Any]:
        return self._handler.run({"action": action, "meta": {"prependBucketPath": self._bucket_path, **meta}})

    def ls_process(self, *, request: Mapping[str, Any]) -> dict[str, Any]:
        return self._handler.run({**request, "action": "ls"})

    def objPut_process(self, *, request: Mapping[str, Any]) -> dict[str, Any]:
        return self._handler.run({**request, "action": "objPut"})

    def objPull_process(self, *, request: Mapping[str, Any]) -> dict[str, Any]:
        return self._handler.run({**request, "action": "objPull"})

    def key_dereference(self, *, request: Mapping[str, Any]) -> dict[str, Any]:
        return key_dereference(request)

    def close(self) -> None:
        """Close the connections. Version 2 kept none."""
        self._handler.close()

    def filesFind(self, *, root: str = "") -> dict[str, Any]:
        """Return the files and directories below *root*, in the order of the system."""
        files: list[str] = []
        directories: list[str] = []
        for parent, names, filenames in os.walk(root) if root else ():
            files += [os.path.join(parent, name) for name in filenames]
            directories += [os.path.join(parent, name) for name in names]
        return {
            "status": bool(files),
            "l_fileFS": files,
            "l_dirFS": directories,
            "numFiles": len(files),
            "numDirs": len(directories),
        }


class swiftStorage(PfStorage):
    """The storage of 2.x for OpenStack Swift."""

    def connect(self, *, prependBucketPath: str | None = None, **_: Any) -> dict[str, Any]:
        """Return a new ``swiftclient.Connection`` and its arguments.

        From now on, this instance puts *prependBucketPath* before each location. The caller closes the connection;
        the methods of this class use others.
        """
        if prependBucketPath is not None:
            self._bucket_path = prepended(prependBucketPath, "")
        settings = self._handler.settings
        from pfstorage.backends.swift.session import SwiftSession

        return {
            "status": True,
            "conn": SwiftSession(settings).sdk_connection(),
            "prependBucketPath": self._bucket_path,
            "user": settings.swift.username,
            "key": settings.swift.key,
            "authurl": settings.swift.auth_url,
            "container_name": settings.swift.container_name,
        }
