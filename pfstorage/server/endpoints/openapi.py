"""``/api/v1/openapi.json``: all that is served, as OpenAPI 3.1, made of the routes, the actions and the errors."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import replace
from http import HTTPStatus

from pfstorage._version import __version__
from pfstorage.errors import (
    BusyError,
    ForbiddenError,
    MessageError,
    PfstorageError,
    SlowRequestError,
    UnauthorizedError,
)
from pfstorage.handler import StoreHandler
from pfstorage.server.endpoints.operations import MESSAGES, OPERATIONS, Operation, header
from pfstorage.server.endpoints.schemas import by_status, kinds, ref, refusal, schemas
from pfstorage.server.exchange import JSON, Answer, Request, kind_of
from pfstorage.server.router import Route
from pfstorage.wire.fields import Schema
from pfstorage.wire.status import KIND_BY_STATUS

OPENAPI = "/api/v1/openapi.json"
_ANY = frozenset({MessageError, ForbiddenError, SlowRequestError, BusyError, PfstorageError})
"""What any request may be told, whatever it is for; 503 by a server that has too many connections."""

_BY_DOOR = {**KIND_BY_STATUS, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: MessageError}
"""What is told of a request that is not understood far enough to be for anything."""

_INFO = {
    "title": "pfstorage",
    "version": __version__,
    "description": "One regular JSON interface to object storage, for the data of medical imaging.",
}
_TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "description": "One of the server's tokens. A server that was started without any asks for none.",
}
_ID = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "what the log is to call the request",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.:/+=-]{1,128}$"},
}
_HEADERS = {
    401: {"WWW-Authenticate": "how to say who one is"},
    405: {"Allow": "the methods that the path takes"},
    416: {"Content-Range": "how many bytes there are"},
    503: {"Retry-After": "the seconds after which to try again"},
}


class Description:
    """Tells what *routes* and it itself serve.

    Anybody may ask: it is what the pages say, and nothing of the store, its keys or its users.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = (*routes, Route(OPENAPI, self, is_public=True))
        self._made: dict[tuple[str, ...], bytes] = {}

    def __call__(self, request: Request) -> Answer:
        """Answer with the document."""
        kind, extensions = kind_of(request.handler.settings.http_response), _extensions(request.handler)
        key = (kind, *extensions)
        if key not in self._made:
            self._made[key] = json.dumps(document(self.routes, extensions, kind), indent=4).encode()
        return Answer(200, self._made[key])


def _extensions(handler: StoreHandler) -> tuple[str, ...]:
    names = (name for name in dir(type(handler)) if name.endswith("_process"))
    return tuple(name.removesuffix("_process") for name in names)


def document(routes: Iterable[Route], extensions: Iterable[str] = (), kind: str = JSON) -> Schema:
    """Return what OpenAPI says of *routes*; *kind* is the type of content that replies to messages have.

    Raise `LookupError` for a route that is not described.
    """
    refusals = _refusals()
    replies = {f"Reply{status}": refusal(errors) for status, errors in refusals.items()}
    return {
        "openapi": "3.1.0",
        "info": _INFO,
        "paths": dict(_path(route, kind) for route in routes if not route.is_bare),
        "components": {
            "schemas": {**schemas(extensions), **replies},
            "responses": {f"Status{status}": _refused(status, kind) for status in refusals},
            "parameters": {"X-Request-Id": _ID},
            "headers": {"X-Request-Id": header("what the log calls the request")},
            "securitySchemes": {"token": _TOKEN},
        },
        "security": [{"token": []}],
    }


def _path(route: Route, kind: str) -> tuple[str, Schema]:
    template = template_of(route)
    described = OPERATIONS[template]
    return template, {
        method.lower(): _operation(described.get(method) or _without_content(described["GET"]), route, kind)
        for method in route.methods
    }


def template_of(route: Route) -> str:
    """Return the path of *route* with the names of what is put into it. Raise `LookupError`."""
    if not route.is_prefix:
        return route.path
    return next((template for template in OPERATIONS if template.startswith(f"{route.path}{{")), route.path)


def _without_content(operation: Operation) -> Operation:
    """Return what HEAD does, where *operation* is what GET does."""
    answers = {
        status: {name: value for name, value in answer.items() if name not in ("content", "links")}
        for status, answer in operation.answers.items()
    }
    name = f"head{operation.name[0].upper()}{operation.name[1:]}"
    return replace(operation, name=name, summary=f"{operation.summary}, without the content", answers=answers)


def _operation(operation: Operation, route: Route, kind: str) -> Schema:
    errors = _ANY | operation.errors | (frozenset() if route.is_public else {UnauthorizedError})
    statuses = sorted({int(each) for each in (*by_status(errors), *_BY_DOOR, *operation.also)})
    given = {
        "parameters": [*operation.parameters, {"$ref": "#/components/parameters/X-Request-Id"}],
        "requestBody": operation.body,
        "security": [] if route.is_public else None,
    }
    return {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": operation.text,
        **{name: value for name, value in given.items() if value is not None},
        "responses": {
            **{str(status): _answer(answer, kind) for status, answer in operation.answers.items()},
            **{str(status): {"$ref": f"#/components/responses/Status{status}"} for status in statuses},
        },
    }


def _answer(answer: Schema, kind: str) -> Schema:
    headers = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}, **answer.get("headers", {})}
    content = {kind if each is MESSAGES else each: of for each, of in answer.get("content", {}).items()}
    return {**answer, "headers": headers, **({"content": content} if content else {})}


def _refusals() -> dict[int, set[type[PfstorageError]]]:
    """Return the errors that there are by the statuses that tell of them."""
    by_path = [each.also for operations in OPERATIONS.values() for each in operations.values()]
    told = {status: set(errors) for status, errors in by_status(kinds()).items()}
    for status, error in itertools.chain(_BY_DOOR.items(), *(also.items() for also in by_path)):
        told.setdefault(int(status), set()).add(error)
    return told


def _refused(status: int, kind: str) -> Schema:
    headers = {name: header(text) for name, text in _HEADERS.get(status, {}).items()}
    content = {each: {"schema": ref(f"Reply{status}")} for each in (JSON, kind)}
    return {"description": HTTPStatus(status).phrase, "headers": headers, "content": content}
