"""Generate the JSON Schemas of messages, replies and errors from the actions, their metas and the error classes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any

from pfstorage.actions import ACTIONS
from pfstorage.actions.listing import ATTRIBUTES
from pfstorage.errors import MessageError, PfstorageError
from pfstorage.jobs.model import STATES
from pfstorage.wire.fields import Schema, wire_fields
from pfstorage.wire.status import KIND_BY_STATUS, status_of

_STRING_SCHEMA: Schema = {"type": "string"}
# errors that have another status than the one of `status_of`
_BY_HTTP = {
    **KIND_BY_STATUS,
    HTTPStatus.PRECONDITION_FAILED: MessageError,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: MessageError,
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: MessageError,
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: MessageError,
}


def _ref(name: str) -> Schema:
    """Return a reference to the schema *name* of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Schema, *required: str, **more: Any) -> Schema:
    """Return the schema of an object, which may have further members."""
    needed = {"required": list(required)} if required else {}
    return {"type": "object", "properties": properties, **needed, **more}


def schemas(extensions: Iterable[str] = ()) -> dict[str, Schema]:
    """Return the schemas of messages and replies by name. *extensions* are the names of more actions."""
    metas = {action.meta.__name__: _meta_schema(action.meta) for action in ACTIONS.values()}
    messages = {
        name: _message_schema(name, _ref(action.meta.__name__), action.text)
        for name, action in ACTIONS.items()
    }
    messages |= {name: _message_schema(name, {"type": "object"}, "") for name in extensions}
    names = {name: f"{name[:1].upper()}{name[1:]}Message" for name in messages}
    mapping = {name: _ref(title)["$ref"] for name, title in names.items()}
    return {
        "Message": {
            "oneOf": [_ref(title) for title in names.values()],
            "discriminator": {"propertyName": "action", "mapping": mapping},
        },
        "Envelope": _object({"payload": _ref("Message")}, "payload"),
        "Quit": _quit(),
        **{names[name]: schema for name, schema in messages.items()},
        **metas,
        **_replies(),
    }


def _message_schema(name: str, meta: Schema, text: str) -> Schema:
    return _object({"action": {"const": name}, "meta": meta}, "action", description=text)


def _meta_schema(meta: Any) -> Schema:
    properties: Schema = {}
    for field in wire_fields(meta):
        name, *aliases = field.names
        has_default = field.default not in (dataclasses.MISSING, None)
        schema = {**field.schema, **({"default": field.default} if has_default else {})}
        properties[name] = schema
        properties |= {alias: {**schema, "description": f"an older name of {name}"} for alias in aliases}
    return _object(properties)


def _or_null(schema: Schema) -> Schema:
    """Return the schema of a value that is null if the store does not report it."""
    return {**schema, "type": [schema["type"], "null"]}


def _quit() -> Schema:
    order = _object({"serverCmd": {"const": "quit"}}, "serverCmd")
    return _object({"action": _STRING_SCHEMA, "meta": _object({"ctl": order}, "ctl")}, "meta")


def _replies() -> dict[str, Schema]:
    flag: Schema = {
        "type": "boolean",
        "description": "true if the action found or did everything",
    }
    said: Schema = {
        "status": flag,
        "msg": {**_STRING_SCHEMA, "description": "the failure and its solution, in one line"},
        "error": _ref("Error"),
        "warnings": {"type": "array", "items": _STRING_SCHEMA},
    }
    row = {name: _or_null({"type": "integer"} if name == "bytes" else _STRING_SCHEMA) for name in ATTRIBUTES}
    row["name"] = _STRING_SCHEMA
    yes: Schema = {"const": True}
    rows = {"type": "array", "items": {"anyOf": [_ref("Row"), _ref("Folder")]}}
    marker = {
        "type": ["string", "null"],
        "description": "the start of the next page, or null after the last one",
    }
    writable = {"type": "boolean", "description": "true if the token may write the objects that it may list"}
    listing = {"status": yes, "objects": rows, "marker": marker, "writable": writable}
    return {
        "Error": _object({"type": {"enum": sorted(kind.__name__ for kind in kinds())}}, "type"),
        "Reply": _object(said, "status"),
        "Accepted": _object({**said, "status": yes, "job": _STRING_SCHEMA}, "status", "job"),
        "Row": _object(row, *row),
        "Folder": _object({"subdir": _STRING_SCHEMA}, "subdir"),
        "Stored": _object({"status": yes, "object": _ref("Row")}, "status", "object"),
        "Listing": _object({**listing, "warnings": said["warnings"]}, *listing),
        "Job": _job(),
        "Well": _object({"status": yes}, "status"),
    }


def _job() -> Schema:
    of_it = dict.fromkeys(("job", "jid", "owner", "action", "created", "started", "finished"), _STRING_SCHEMA)
    so_far: Schema = {"progress": {"type": "object"}, "msg": _STRING_SCHEMA, "reply": {"type": "object"}}
    return _object(
        {**of_it, "state": {"enum": list(STATES)}, **so_far}, "job", "action", "state", "created", "progress"
    )


def error_schemas() -> dict[str, Schema]:
    """Return the schemas of error replies, such as ``Reply404``: each lists the errors with that status."""
    found: dict[int, set[str]] = {int(status): {kind.__name__} for status, kind in _BY_HTTP.items()}
    for kind in kinds():
        found.setdefault(int(status_of(kind(""))), set()).add(kind.__name__)
    return {f"Reply{status}": _error_reply(sorted(names)) for status, names in sorted(found.items())}


def _error_reply(names: list[str]) -> Schema:
    error = {"allOf": [_ref("Error"), _object({"type": {"enum": names}})]}
    return _object(
        {"status": {"const": False}, "msg": _STRING_SCHEMA, "error": error}, "status", "msg", "error"
    )


@functools.cache
def kinds() -> frozenset[type[PfstorageError]]:
    """Return all error classes."""
    return frozenset(_with_subclasses(PfstorageError))


def _with_subclasses(kind: type[PfstorageError]) -> Iterator[type[PfstorageError]]:
    if kind.reported_as == kind.__name__:
        yield kind
    for each in kind.__subclasses__():
        yield from _with_subclasses(each)
