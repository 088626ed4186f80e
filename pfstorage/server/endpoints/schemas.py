"""What messages, replies and errors look like, as JSON Schema: read off the actions, their metas and the errors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

from pfstorage.actions import ACTIONS, Action
from pfstorage.actions.listing import ATTRIBUTES
from pfstorage.errors import PfstorageError
from pfstorage.jobs.model import STATES
from pfstorage.wire.fields import Schema, wire_fields
from pfstorage.wire.status import status_of

TEXT: Schema = {"type": "string"}


def ref(name: str) -> Schema:
    """Return what stands for the schema *name* of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(properties: Schema, *required: str, **more: Any) -> Schema:
    """Return the schema of an object, which may have further members."""
    needed = {"required": list(required)} if required else {}
    return {"type": "object", "properties": properties, **needed, **more}


def schemas(extensions: Iterable[str] = ()) -> dict[str, Schema]:
    """Return the schemas of the document by name; *extensions* are actions that the server has of its own."""
    metas = {action.meta.__name__: _of_meta(action.meta) for action in ACTIONS.values()}
    messages = {name: _of_message(action) for name, action in ACTIONS.items()}
    messages |= {name: _message(name, {"type": "object"}, "") for name in extensions}
    names = {name: f"{name[:1].upper()}{name[1:]}Message" for name in messages}
    mapping = {name: ref(title)["$ref"] for name, title in names.items()}
    return {
        "Message": {
            "oneOf": [ref(title) for title in names.values()],
            "discriminator": {"propertyName": "action", "mapping": mapping},
        },
        "Envelope": record({"payload": ref("Message")}, "payload"),
        "Quit": _quit(),
        **{names[name]: schema for name, schema in messages.items()},
        **metas,
        **_replies(),
    }


def _of_message(action: Action) -> Schema:
    return _message(action.name, ref(action.meta.__name__), action.text)


def _message(name: str, meta: Schema, text: str) -> Schema:
    return record({"action": {"const": name}, "meta": meta}, "action", description=text)


def _of_meta(meta: Any) -> Schema:
    properties: Schema = {}
    for field in wire_fields(meta):
        name, *aliases = field.names
        known = field.default not in (dataclasses.MISSING, None)
        schema = {**field.schema, **({"default": field.default} if known else {})}
        properties[name] = schema
        properties |= {alias: {**schema, "description": f"an older name of {name}"} for alias in aliases}
    return record(properties)


def _or_unknown(schema: Schema) -> Schema:
    """Return the schema of what the store may not tell: null is then in its place."""
    return {**schema, "type": [schema["type"], "null"]}


def _quit() -> Schema:
    order = record({"serverCmd": {"const": "quit"}}, "serverCmd")
    return record({"action": TEXT, "meta": record({"ctl": order}, "ctl")}, "meta")


def _replies() -> dict[str, Schema]:
    flag: Schema = {"type": "boolean", "description": "whether all that was asked for was found or done"}
    said: Schema = {
        "status": flag,
        "msg": {**TEXT, "description": "what failed, and what to do about it, in one line"},
        "error": ref("Error"),
        "warnings": {"type": "array", "items": TEXT},
    }
    row = {name: _or_unknown({"type": "integer"} if name == "bytes" else TEXT) for name in ATTRIBUTES}
    row["name"] = TEXT
    yes: Schema = {"const": True}
    rows = {"type": "array", "items": {"anyOf": [ref("Row"), ref("Folder")]}}
    marker = {"type": ["string", "null"], "description": "what begins the next page, if there is one"}
    writable = {"type": "boolean", "description": "whether the token may store what it may list"}
    listing = {"status": yes, "objects": rows, "marker": marker, "writable": writable}
    return {
        "Error": record({"type": {"enum": sorted(kind.__name__ for kind in kinds())}}, "type"),
        "Reply": record(said, "status"),
        "Accepted": record({**said, "status": yes, "job": TEXT}, "status", "job"),
        "Row": record(row, *row),
        "Folder": record({"subdir": TEXT}, "subdir"),
        "Stored": record({"status": yes, "object": ref("Row")}, "status", "object"),
        "Listing": record({**listing, "warnings": said["warnings"]}, *listing),
        "Job": _job(),
        "Well": record({"status": yes}, "status"),
    }


def _job() -> Schema:
    of_it = dict.fromkeys(("job", "jid", "owner", "action", "created", "started", "finished"), TEXT)
    so_far: Schema = {"progress": {"type": "object"}, "msg": TEXT, "reply": {"type": "object"}}
    return record(
        {**of_it, "state": {"enum": list(STATES)}, **so_far}, "job", "action", "state", "created", "progress"
    )


def refusal(errors: Iterable[type[PfstorageError]]) -> Schema:
    """Return the schema of a reply that tells of one of *errors*."""
    names = sorted({kind.__name__ for kind in errors})
    error = {"allOf": [ref("Error"), record({"type": {"enum": names}})]}
    return record({"status": {"const": False}, "msg": TEXT, "error": error}, "status", "msg", "error")


@functools.cache
def kinds() -> frozenset[type[PfstorageError]]:
    """Return all kinds of errors that there are."""
    return frozenset(_with_kinds_of(PfstorageError))


def _with_kinds_of(kind: type[PfstorageError]) -> Iterator[type[PfstorageError]]:
    if kind.reported_as == kind.__name__:
        yield kind
    for each in kind.__subclasses__():
        yield from _with_kinds_of(each)


def by_status(errors: Iterable[type[PfstorageError]]) -> dict[int, list[type[PfstorageError]]]:
    """Return *errors* by the HTTP status that tells of them, in its order."""
    found: dict[int, list[type[PfstorageError]]] = {}
    for kind in errors:
        found.setdefault(int(status_of(kind(""))), []).append(kind)
    return dict(sorted(found.items()))
