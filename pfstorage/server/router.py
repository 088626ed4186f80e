"""What is served where: from a path to its endpoint, for who may go there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from pfstorage.access.principal import Principal
from pfstorage.errors import MethodNotAllowedError, UnknownPathError
from pfstorage.server.access import Access
from pfstorage.server.endpoints.commands import command
from pfstorage.server.exchange import Answer, Request

COMMANDS = "/api/v1/cmd"
Endpoint = Callable[[Request], Answer]


@dataclass(frozen=True)
class Route:
    """An *endpoint* at *path*, or below it, for some methods. *is_public* ones need no token.

    One that *is_reserved* answers also where all connections are taken. All its answers have *headers*, those to
    errors, too, unless they have others of those names.
    One that *is_bare* takes requests without a query alone, and leaves others to the next one.
    """

    path: str
    endpoint: Endpoint
    methods: tuple[str, ...] = ("GET", "HEAD")
    is_public: bool = False
    is_prefix: bool = False
    is_bare: bool = False
    is_reserved: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


ALL = ("GET", "HEAD", "POST")
ROUTES = (Route("/", command, ALL), Route(COMMANDS, command, ALL), Route(f"{COMMANDS}/", command, ALL))

_ASKED_WITH = (
    "Authorization",
    "Content-MD5",
    "Content-Type",
    "If-Match",
    "If-Modified-Since",
    "If-None-Match",
    "If-Range",
    "If-Unmodified-Since",
    "Range",
    "X-Request-Id",
)
"""What a page of another origin may send with its requests."""


class Site:
    """Answers requests for whom *access* lets in."""

    def __init__(self, access: Access, routes: tuple[Route, ...] = ROUTES) -> None:
        self.access = access
        self.routes = routes
        self._prefixes = [route for route in routes if route.is_prefix]
        self._exact: dict[str, list[Route]] = {}
        for route in routes:
            if not route.is_prefix:
                self._exact.setdefault(route.path, []).append(route)

    def answer(self, request: Request) -> Answer:
        """Answer *request*; its turn is the caller's to end. Raise `PfstorageError` for what the door says itself."""
        route = self._route(request)
        request.route, request.defaults = route.path, route.headers
        self.access.check(request.method, request.headers)
        if request.method == "OPTIONS":
            return self._options(request, route)
        if request.method not in route.methods:
            raise MethodNotAllowedError(
                f"this path takes {', '.join(route.methods)}, not {request.method[:20]!r}",
                allow=", ".join(route.methods),
            )
        if not route.is_public:
            self.access.check_site(request.headers)
            request.context = request.new_context(self._principal(request))
        if not route.is_reserved:
            request.admit(request.principal.owner)
        return route.endpoint(request)

    def _route(self, request: Request) -> Route:
        for route in self._exact.get(request.path, ()):
            if not route.is_bare or (request.method in route.methods and not request.query):
                return route
        for route in self._prefixes:
            if request.path.startswith(route.path):
                return route
        raise UnknownPathError(
            f"there is nothing at this path: messages, such as jobList, go to {COMMANDS},"
            " and objects to /api/v1/objects/KEY"
        )

    def _principal(self, request: Request) -> Principal:
        grant = self.access.grant(request.headers)
        return Principal(
            grant.permissions,
            grant.name,
            is_trusted=self.access.is_trusted(grant, request.headers, request.client),
            is_remote=True,
            is_anonymous=self.access.is_open,
            renew=functools.partial(self._principal, request),
        )

    def _options(self, request: Request, route: Route) -> Answer:
        """Answer a browser that asks whether a page of another origin may send what it wants to."""
        origin = request.headers.get("origin", "")
        if not self.access.is_allowed(origin):
            raise MethodNotAllowedError(
                "pages of this origin are not served: see --corsOrigin", allow=", ".join(route.methods)
            )
        asked = {
            "Access-Control-Allow-Methods": ", ".join(route.methods),
            "Access-Control-Allow-Headers": ", ".join(_ASKED_WITH),
            "Access-Control-Max-Age": "600",
        }
        return Answer(HTTPStatus.NO_CONTENT, headers=asked)

    def cors_headers(self, origin: str | None) -> dict[str, str]:
        """Return what lets a page of *origin* read the answer, if it may."""
        if origin is None or not self.access.is_allowed(origin):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": "ETag, X-Request-Id, Content-Disposition, Content-Range",
            "Vary": "Origin",
        }
