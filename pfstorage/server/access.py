"""Who may come in, from where, and what they may then do."""

from __future__ import annotations

import functools
import re

from pfstorage.access.permissions import Permissions
from pfstorage.errors import ForbiddenError
from pfstorage.server.http1.head import Headers
from pfstorage.server.options import ServerOptions
from pfstorage.server.tokens import Grant, TokenFile
from pfstorage.settings.model import FEW
from pfstorage.settings.urls import is_loopback

ANONYMOUS = Grant("", Permissions())
_BEHIND = frozenset(("forwarded", "x-forwarded-for", "x-real-ip", "via"))
"""Headers of a request that came by way of a proxy: who sent it is not who connects."""
_PARTS = frozenset(
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
"""What browsers call the use of a resource that could act for a page, or be read by it (W3C, Fetch Metadata)."""
_HOST = re.compile(r"(?:\[([^\[\]/?#@]*)\]|([^:\[\]/?#@]*))(?::[0-9]*)?")


class Access:
    """Judges requests to a server that listens on the address *host*."""

    def __init__(self, options: ServerOptions, host: str) -> None:
        """Read the tokens. Raise `SettingsError`."""
        self._options = options
        self._host = host
        self._is_local = is_loopback(host)
        self.tokens = TokenFile(options.token_path) if options.token_path else None

    @property
    def is_open(self) -> bool:
        """Tell whether anybody comes in, and not only from this machine."""
        return self.tokens is None and not self._is_local

    def check(self, method: str, headers: Headers) -> None:
        """Raise `ForbiddenError` for what only a web page sends that should not.

        A page of any origin can make its browser send requests here, and by a name of its own that
        it lets resolve to this address (DNS rebinding) it could read the answers, too.
        """
        hosts = headers.get_all("host")
        name = _hostname(headers.only("host")) if hosts else ""
        if name and not self._is_known(name):
            raise ForbiddenError(f"this server does not go by the name {name[:80]!r}: see --allowHost")
        if "service-worker" in headers:
            raise ForbiddenError(
                "nothing here is a service worker, which could answer in the name of this server"
            )
        origin = headers.get("origin")
        is_change = method not in ("GET", "HEAD", "OPTIONS")
        if origin is not None and is_change and not (self.is_allowed(origin) or _is_same(origin, hosts)):
            raise ForbiddenError("pages of this origin may not send messages here: see --corsOrigin")

    def check_site(self, headers: Headers) -> None:
        """Raise `ForbiddenError` for what a page of elsewhere has asked for, unless it may read the answer.

        And for what is to run, or to be shown, as a part of any page.

        It could not read it, but measure how long it takes, or notice whether a download begins. Browsers say
        where a request comes from (W3C, Fetch Metadata) to servers on this machine, and to those with TLS.
        """
        site = headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and not self.is_allowed(headers.get("origin", "")):
            raise ForbiddenError("pages of other origins may not ask for this: see --corsOrigin")
        if headers.get("sec-fetch-dest") in _PARTS:
            raise ForbiddenError("nothing that is stored is a part of a page: fetch it, or save it")

    def _is_known(self, name: str) -> bool:
        if name in self._options.allow_hosts or is_loopback(name):  # no page can be of that name, see `check`
            return True
        return name == self._host if self._is_local else not self._options.allow_hosts

    def is_allowed(self, origin: str) -> bool:
        """Tell whether pages of *origin* may send messages and read the answers."""
        return origin in self._options.cors_origins

    def grant(self, headers: Headers) -> Grant:
        """Return what the token of a request allows. Raise `UnauthorizedError`."""
        if self.tokens is None:
            return ANONYMOUS
        return self.tokens.grant(_only(headers.get_all("authorization")))

    def is_trusted(self, grant: Grant, headers: Headers, client: str) -> bool:
        """Tell whether a JSON message may change or end the server: it came from no browser.

        Its sender has a token with all rights; where there are none, it is a program on this machine.
        """
        if "origin" in headers:
            return False
        if self.tokens is not None:
            return grant.permissions.is_unrestricted
        is_near = self._is_local and (client == self._host or is_loopback(client))
        return is_near and _BEHIND.isdisjoint(headers)


def _only(values: list[str]) -> str | None:
    return values[0] if len(values) == 1 else None


@functools.lru_cache(maxsize=FEW)
def _hostname(host: str) -> str:
    """Return the name in the value of a header Host, without its port; ``?`` if it is none (RFC 9110, 7.2)."""
    found = _HOST.fullmatch(host)
    return (found[1] or found[2]).lower().rstrip(".") if found else "?"


def _is_same(origin: str, hosts: list[str]) -> bool:
    """Tell whether *origin* is that of this server's own pages."""
    scheme, _, rest = origin.partition("://")
    return bool(hosts) and rest == hosts[0] and scheme in ("http", "https")
