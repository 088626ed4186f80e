"""``/api/v1/openapi.json``: describe the API as OpenAPI 3.1.

The file ``openapi.json`` describes the paths. The schemas of messages, replies and errors are generated.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from importlib import resources
from typing import Any

from pfstorage._version import __version__
from pfstorage.handler import StoreHandler
from pfstorage.server.endpoints.schemas import error_schemas, schemas
from pfstorage.server.exchange import Request, reply_type
from pfstorage.server.http1.sending import JSON, Response

OPENAPI = "/api/v1/openapi.json"
# the statuses of errors that any request may get
_COMMON_ERRORS = (400, 403, 408, 414, 431, 500, 503, 505)


def openapi(request: Request) -> Response:
    """Return the document. It needs no token, because it says nothing about the store, its keys or its users."""
    handler = request.services.handler
    return Response(200, _document_text(_extensions(handler), reply_type(handler.settings.http_response)))


def _extensions(handler: StoreHandler) -> tuple[str, ...]:
    """Return the actions that a subclass of 2.x adds with methods like ``fly_process``."""
    names = (name for name in dir(type(handler)) if name.endswith("_process"))
    return tuple(name.removesuffix("_process") for name in names)


@functools.lru_cache(4)
def _document_text(extensions: tuple[str, ...], media_type: str) -> bytes:
    return json.dumps(document(extensions, media_type), indent=4).encode()


def document(extensions: Iterable[str] = (), media_type: str = JSON) -> dict[str, Any]:
    """Return the document for a server with *extensions*, more actions, whose replies have *media_type*."""
    text = resources.files(__package__).joinpath("openapi.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text.replace("VERSION", __version__))
    components = found["components"]
    for name, response in components["responses"].items():
        content = response["content"]
        content[media_type] = content[JSON] if name.startswith("Status") else content.pop(JSON)
    for path, methods in found["paths"].items():
        for operation in methods.values():
            _add_common_errors(operation)
        found["paths"][path] = _with_head(methods, components["responses"])
    components["schemas"] = {**schemas(extensions), **error_schemas()}
    return found


def _add_common_errors(operation: dict[str, Any]) -> None:
    statuses = (
        _COMMON_ERRORS if "security" in operation else (*_COMMON_ERRORS, 401)
    )  # an empty "security" marks a public path
    for status in statuses:
        reference = {"$ref": f"#/components/responses/Status{status}"}
        operation["responses"].setdefault(str(status), reference)


def _with_head(methods: dict[str, Any], responses: dict[str, Any]) -> dict[str, Any]:
    """Return *methods* with HEAD, which is GET without content, where a path supports it."""
    found = dict(methods)
    get = found.get("get")
    if get is None or "text/event-stream" in get["responses"]["200"].get("content", {}):
        return found
    name = f"head{get['operationId'][0].upper()}{get['operationId'][1:]}"
    head = {**get, "operationId": name, "summary": f"{get['summary']}, without the content"}
    head["responses"] = {
        status: _without_content(answer, responses) if status < "400" else answer
        for status, answer in get["responses"].items()
    }
    return {"get": get, "head": head, **found}


def _without_content(response: dict[str, Any], responses: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in response:
        response = responses[response["$ref"].rpartition("/")[2]]
    return {name: value for name, value in response.items() if name not in ("content", "links")}
