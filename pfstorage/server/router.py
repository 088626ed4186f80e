"""Find the endpoint of a request, and check the access of its client."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from pfstorage.access.principal import Principal
from pfstorage.errors import MethodNotAllowedError, UnknownPathError
from pfstorage.server.access import Access
from pfstorage.server.endpoints.commands import command
from pfstorage.server.exchange import MESSAGE_METHODS, Request
from pfstorage.server.http1.head import RequestHead
from pfstorage.server.http1.sending import Response

COMMANDS = "/api/v1/cmd"
Endpoint = Callable[[Request], Response]


@dataclass(frozen=True)
class Route:
    """An *endpoint* at *path* for *methods*, or for all paths that begin with *path* (*is_prefix*).

    *is_public* routes need no token. *is_reserved* routes answer even if all connections are taken. *is_bare* routes
    match only requests without a query; others match the next route. All responses, errors included, have *headers*,
    unless they set the same names.
    """

    path: str
    endpoint: Endpoint
    methods: tuple[str, ...] = ("GET", "HEAD")
    is_public: bool = False
    is_prefix: bool = False
    is_bare: bool = False
    is_reserved: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


ROUTES = tuple(Route(path, command, MESSAGE_METHODS) for path in ("/", COMMANDS, f"{COMMANDS}/"))

# the request headers that a page of an allowed origin may send
_CORS_HEADERS = (
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


class Router:
    """A router that answers requests by *routes*, if *access* allows them."""

    def __init__(self, access: Access, routes: tuple[Route, ...] = ROUTES) -> None:
        self.access = access
        self.routes = routes
        self._prefixes = [route for route in routes if route.is_prefix]
        self._exact: dict[str, list[Route]] = {}
        for route in routes:
            if not route.is_prefix:
                self._exact.setdefault(route.path, []).append(route)

    def route(self, head: RequestHead) -> Route:
        """Return the route of a request. Raise `UnknownPathError`."""
        for route in self._exact.get(head.path, ()):
            if not route.is_bare or (head.method in route.methods and not head.query):
                return route
        for route in self._prefixes:
            if head.path.startswith(route.path):
                return route
        raise UnknownPathError(
            f"this path does not exist: send messages, such as jobList, to {COMMANDS},"
            " and get objects from /api/v1/objects/KEY"
        )

    def respond(self, request: Request, route: Route) -> Response:
        """Check the access of *request*, set its context, and return the response of its endpoint.

        The permit of the client may be in use afterwards: end it when the response was sent. Raise `PfstorageError`
        for an error that the endpoint did not turn into a response.
        """
        head = request.head
        self.access.check(head.method, head.headers)
        if head.method == "OPTIONS":
            return self._preflight(head, route)
        if head.method not in route.methods:
            raise MethodNotAllowedError(
                f"this path takes {', '.join(route.methods)}, not {head.method[:20]!r}",
                allow=", ".join(route.methods),
            )
        if not route.is_public:
            self.access.check_fetch_metadata(head.headers)
            request.context = request.new_context(self._principal(head, request.client.address))
        if not route.is_reserved:
            request.client.admit(request.principal.owner)
        return route.endpoint(request)

    def _principal(self, head: RequestHead, address: str) -> Principal:
        grant = self.access.grant(head.headers)
        return Principal(
            grant.permissions,
            grant.name,
            is_trusted=self.access.is_trusted(grant, head.headers, address),
            is_remote=True,
            is_anonymous=self.access.is_open,
            renew=functools.partial(self._principal, head, address),
        )

    def _preflight(self, head: RequestHead, route: Route) -> Response:
        """Answer a browser that asks whether a page of another origin may send a request (CORS)."""
        origin = head.headers.get("origin", "")
        if not self.access.is_allowed(origin):
            raise MethodNotAllowedError(
                "pages of this origin have no access: see --corsOrigin", allow=", ".join(route.methods)
            )
        allowed = {
            "Access-Control-Allow-Methods": ", ".join(route.methods),
            "Access-Control-Allow-Headers": ", ".join(_CORS_HEADERS),
            "Access-Control-Max-Age": "600",
        }
        return Response(HTTPStatus.NO_CONTENT, headers=allowed)

    def cors_headers(self, origin: str | None) -> dict[str, str]:
        """Return the headers that let a page of *origin* read a response, or none if it may not."""
        if origin is None or not self.access.is_allowed(origin):
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": "ETag, X-Request-Id, Content-Disposition, Content-Range",
            "Vary": "Origin",
        }
