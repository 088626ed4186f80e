"""Check the access of clients: their origin, their token, and the local files of their messages."""

from __future__ import annotations

import functools
import logging
import os
import re

from pfstorage.access.permissions import Permissions
from pfstorage.errors import ForbiddenError
from pfstorage.jobs.directory import STATE_FILES
from pfstorage.local import AllowedRoots, passes_through
from pfstorage.server.http1.head import Headers
from pfstorage.server.options import ServerOptions
from pfstorage.server.tokens import Grant, TokenFile
from pfstorage.settings.model import FEW, Settings
from pfstorage.settings.urls import is_loopback

log = logging.getLogger(__name__)

ANONYMOUS_GRANT = Grant("", Permissions())
# A proxy adds these headers: the address of the connection is not that of the client.
_PROXY_HEADERS = frozenset(("forwarded", "x-forwarded-for", "x-real-ip", "via"))
# The uses of a resource that could run in a page, or that a page could inspect (W3C, Fetch Metadata, Sec-Fetch-Dest).
_EMBEDDED = frozenset(
    (
        *(
            "script",
            "worker",
            "sharedworker",
            "serviceworker",
            "audioworklet",
            "paintworklet",
            "style",
            "xslt",
        ),
        *("embed", "object", "frame", "iframe", "fencedframe", "manifest"),
    )
)
_HOST_HEADER = re.compile(r"(?:\[([^\[\]/?#@]*)\]|([^:\[\]/?#@]*))(?::[0-9]*)?")


class Access:
    """The checks of the requests to a server that listens on the address *host*."""

    def __init__(self, options: ServerOptions, host: str) -> None:
        """Read the tokens. Raise `SettingsError`."""
        self._options = options
        self._host = host
        self._is_local = is_loopback(host)
        self.tokens = TokenFile(options.token_path) if options.token_path else None

    @property
    def is_open(self) -> bool:
        """Whether clients of other machines need no token."""
        return self.tokens is None and not self._is_local

    def check(self, method: str, headers: Headers) -> None:
        """Raise `ForbiddenError` for a request that a web page of another origin may have caused.

        A page of any origin can make its browser send requests to this server. If the page lets its own name
        resolve to this address (DNS rebinding), it could read the responses, too.
        """
        hosts = headers.get_all("host")
        name = _hostname(headers.only("host")) if hosts else ""
        if name and not self._is_known(name):
            raise ForbiddenError(
                f"{name[:80]!r} in the header Host is not a name of this server: see --allowHost"
            )
        if "service-worker" in headers:
            raise ForbiddenError(
                "no resource may become a service worker, because that could answer for this server"
            )
        origin = headers.get("origin")
        is_change = method not in ("GET", "HEAD", "OPTIONS")
        if (
            origin is not None
            and is_change
            and not (self.is_allowed(origin) or _is_same_origin(origin, hosts))
        ):
            raise ForbiddenError(
                "pages of this origin may not send messages to this server: see --corsOrigin"
            )

    def check_fetch_metadata(self, headers: Headers) -> None:
        """Raise `ForbiddenError` for a request by a page of another origin, or for an embedded resource.

        Such a page can't read the response, but could measure its time, or notice that a download starts. Browsers
        send these headers (W3C, Fetch Metadata) to servers on the same machine, and over TLS.
        """
        site = headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and not self.is_allowed(headers.get("origin", "")):
            raise ForbiddenError("pages of other origins may not request this: see --corsOrigin")
        if headers.get("sec-fetch-dest") in _EMBEDDED:
            raise ForbiddenError("objects can't be embedded in a page: fetch the object, or save it")

    def _is_known(self, name: str) -> bool:
        if name in self._options.allow_hosts or is_loopback(name):  # no page can have a loopback name
            return True
        return name == self._host if self._is_local else not self._options.allow_hosts

    def is_allowed(self, origin: str) -> bool:
        """Return whether pages of *origin* may send messages and read the responses."""
        return origin in self._options.cors_origins

    def grant(self, headers: Headers) -> Grant:
        """Return the grant of the token of a request. Raise `UnauthorizedError`."""
        if self.tokens is None:
            return ANONYMOUS_GRANT
        return self.tokens.grant(_only(headers.get_all("authorization")))

    def is_trusted(self, grant: Grant, headers: Headers, client: str) -> bool:
        """Return whether a JSON message may change or stop the server.

        A browser never may. Otherwise, the token must have all permissions or, without tokens, the client must be a
        program on this machine.
        """
        if "origin" in headers:
            return False
        if self.tokens is not None:
            return grant.permissions.is_unrestricted
        is_near = self._is_local and (client == self._host or is_loopback(client))
        return is_near and _PROXY_HEADERS.isdisjoint(headers)


def _only(values: list[str]) -> str | None:
    return values[0] if len(values) == 1 else None


@functools.lru_cache(maxsize=FEW)
def _hostname(host: str) -> str:
    """Return the name in the header Host without its port, or ``?`` if it is not valid (RFC 9110, section 7.2)."""
    found = _HOST_HEADER.fullmatch(host)
    return (found[1] or found[2]).lower().rstrip(".") if found else "?"


def _is_same_origin(origin: str, hosts: list[str]) -> bool:
    """Return whether *origin* is the origin of this server's own pages."""
    scheme, _, rest = origin.partition("://")
    return bool(hosts) and rest == hosts[0] and scheme in ("http", "https")


class PrivateFiles:
    """The private files of the server, which *options* and the settings name. Messages may not access them.

    *roots* are the directories that messages may access. *settings* are the latest settings of `deny`.
    """

    def __init__(self, roots: AllowedRoots, options: ServerOptions) -> None:
        self.roots = roots
        self._options = options
        self.settings: Settings | None = None
        # includes the paths of earlier settings, because files stay there when a setting changes
        self._paths: set[str] = set()

    def update(self, settings: Settings) -> None:
        """Deny the private files of *settings*. Log an error if that is not possible."""
        if problem := self.deny(settings):
            log.error("messages could access private files of the server: %s", problem)

    def deny(self, settings: Settings) -> str:
        """Deny the private files of *settings* to messages. Return the problem and its solution, or "".

        A root itself can't be denied. If it is private, all local files are denied. A private file below the directory
        of a filesystem store would be an object.
        """
        private = {**self._options.private_files(), "--debugToDir": settings.debug_to_dir}
        private = {flag: path for flag, path in private.items() if path}
        store = settings.filesystem.store_base if settings.type == "filesystem" else ""
        shared = [flag for flag, path in private.items() if self.roots.contains_root(path)]
        jobs = (
            [os.path.join(private["--stateDir"], name) for name in STATE_FILES]
            if "--stateDir" in private
            else []
        )
        self._paths.update(private.values(), jobs, filter(None, [store]))
        self.roots.deny(self._paths, everything=bool(shared))
        self.settings = settings
        if shared:
            return (
                f"{shared[0]}: messages may read and write the files in {private[shared[0]]!r}:"
                f" set {shared[0]} or --fsRoot to another directory"
            )
        stored = [
            flag for flag, path in private.items() if store and passes_through(os.path.realpath(store), path)
        ]
        if stored:
            return f"{stored[0]}: a file below --storeBase is an object: set {stored[0]} to another directory"
        return ""
