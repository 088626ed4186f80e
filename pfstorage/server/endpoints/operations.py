"""What the document says of each path beyond its route: what it is for, what it takes, what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from pfstorage._version import __version__
from pfstorage.errors import (
    ExistsError,
    LocalFileError,
    MessageError,
    MethodNotAllowedError,
    NoLengthError,
    PfstorageError,
    SettingsError,
    StorageError,
    TooLargeError,
    UnavailableError,
    UnknownJobError,
    UnknownPathError,
)
from pfstorage.server.endpoints.objects import MOST_ROWS, ROWS
from pfstorage.server.endpoints.schemas import TEXT, kinds, record, ref
from pfstorage.server.exchange import JSON
from pfstorage.server.page import KINDS
from pfstorage.wire.fields import Schema

Kinds = frozenset[type[PfstorageError]]
MESSAGES = ""
"""Stands for the type of content that a reply to a message has: JSON, or what passes for HTML."""


@dataclass(frozen=True)
class Operation:
    """What one method of a path is for. *answers* are by status, and so are *also*, which tell of an error.

    *errors* are those that it may tell of beside the ones of any request, and of who has no token.
    """

    name: str
    summary: str
    answers: dict[int, Schema]
    errors: Kinds = frozenset()
    text: str = ""
    parameters: tuple[Schema, ...] = ()
    body: Schema | None = None
    also: dict[int, type[PfstorageError]] = field(default_factory=dict)


def _and_below(*bases: type[PfstorageError]) -> Kinds:
    return frozenset(kind for kind in kinds() if issubclass(kind, bases))


_BODY: Kinds = frozenset({NoLengthError, TooLargeError})
_STORE = _and_below(StorageError) | {SettingsError}
_GET_ALONE: Kinds = frozenset({MethodNotAllowedError})
_ELSEWHERE: Kinds = frozenset({UnknownPathError})
_MD5: Schema = {"type": "string", "pattern": "^[A-Za-z0-9+/]{22}==$"}
_BYTES: Schema = {"type": "string", "format": "binary"}


def _content(schema: Schema, kind: str = MESSAGES, **more: Any) -> Schema:
    return {"content": {kind: {"schema": schema, **more}}}


def _parameter(name: str, place: str, text: str, schema: Schema = TEXT, **more: Any) -> Schema:
    return {"name": name, "in": place, "description": text, "schema": schema, **more}


def header(text: str) -> Schema:
    return {"description": text, "required": True, "schema": TEXT}


EXAMPLES: dict[str, tuple[Schema, Schema]] = {
    "echo": (
        {"action": "hello", "meta": {"askAbout": "echoBack", "echoBack": "Hi there!"}},
        {
            "d_ret": {"name": "pfstorage", "version": __version__, "echoBack": {"msg": "Hi there!"}},
            "status": True,
        },
    ),
    "nothing": (
        {"action": "ls", "meta": {"path": "chris/nothing/", "retSpec": ["name", "bytes"]}},
        {"status": False, "ls": [], "msg": "no object begins with 'chris/nothing/'"},
    ),
    "absent": (
        {"payload": {"action": "objExists", "meta": {"obj": "chris/no.dcm"}}},
        {"status": False, "objPath": "chris/no.dcm", "msg": "there is no object 'chris/no.dcm'"},
    ),
}
"""Messages by name, and the replies of a store that has nothing of the kind."""

_JOB = {"action": "objPull", "meta": {"path": "chris/", "mapLocationOver": "copies", "async": True}}
_EVENTS = {
    "events": {
        "operationId": "jobEvents",
        "parameters": {"id": "$response.body#/job"},
        "description": "what becomes of the job",
    }
}
_REPLY = {
    "description": "The action ran, also if it found nothing or a part of it failed: `status` tells.",
    **_content(ref("Reply"), examples={name: {"value": reply} for name, (_, reply) in EXAMPLES.items()}),
}
_COMMAND = Operation(
    "command",
    "Answer a message",
    {
        200: _REPLY,
        202: {"description": "A job has begun.", **_content(ref("Accepted")), "links": _EVENTS},
    },
    kinds() - _GET_ALONE - _ELSEWHERE,
    "A message names an action and its `meta`. It comes as JSON, bare or under `payload`, whatever the"
    " Content-Type says; as a form in jQuery's encoding, `meta[path]=x`, or one with a field `payload` of"
    " JSON; or in the field `d_msg` of a multipart form, whose file `local` `objPut` stores as `toObject`."
    " Also taken: `args` for `meta`, `null` for what is left out, a single text for a list of one, and the"
    " text of a number or of a truth value. A meta that an action does not know is told of under `warnings`.",
    body={
        "required": True,
        "content": {
            JSON: {
                "schema": {"anyOf": [ref("Message"), ref("Envelope"), ref("Quit")]},
                "examples": {
                    **{name: {"value": message} for name, (message, _) in EXAMPLES.items()},
                    "job": {"value": _JOB},
                },
            },
            "application/x-www-form-urlencoded": {
                "schema": record({"action": TEXT, "meta": {"type": "object"}}, "action"),
                "encoding": {"meta": {"style": "deepObject", "explode": True}},
            },
            "multipart/form-data": {
                "schema": record({"d_msg": ref("Message"), "filename": TEXT, "local": _BYTES}, "d_msg"),
                "encoding": {"d_msg": {"contentType": JSON}},
            },
        },
    },
)
_QUERY = Operation(
    "query",
    "Answer a message that changes nothing",
    {200: _REPLY},
    kinds() - _ELSEWHERE,
    "Actions that change something are answered 405. `meta` may also be a Python literal, or come as"
    " `meta[path]=x`; `payload` is a whole message.",
    (
        _parameter("action", "query", "the action", required=True, example="ls"),
        {
            "name": "meta",
            "in": "query",
            "description": "its meta",
            "content": {JSON: {"schema": {"type": "object"}, "example": {"path": "chris/nothing/"}}},
        },
    ),
)
_KEY = _parameter(
    "key",
    "path",
    "the key of the object. A `/` in it stands as it is or as `%2F`.",
    {"type": "string", "minLength": 1, "maxLength": 1024},
    required=True,
    example="chris/notes.txt",
)
_HAS = _parameter("If-None-Match", "header", "the ETag of what the client has")
_CONDITIONS = (
    _HAS,
    _parameter("If-Match", "header", "the ETag of the only object that is wanted"),
    _parameter("If-Modified-Since", "header", "the Last-Modified of what the client has"),
    _parameter("If-Unmodified-Since", "header", "the Last-Modified of the only object that is wanted"),
)
_OBJECT_HEADERS = {
    "ETag": header("what is another when the bytes are"),
    "Last-Modified": header("when the object was stored"),
    "Accept-Ranges": header("`bytes`"),
    "Content-Disposition": header("the last part of the key, as the name of a file"),
    "Content-Security-Policy": header("no browser shows it as a page of this server"),
}
_PART = {**_OBJECT_HEADERS, "Content-Range": header("which bytes of how many")}
_OBJECT: Schema = {"content": {kind: {"schema": _BYTES} for kind in ("application/octet-stream", "*/*")}}
_GET_OBJECT = Operation(
    "getObject",
    "Give out an object",
    {
        200: {"description": "Its bytes.", "headers": _OBJECT_HEADERS, **_OBJECT},
        206: {"description": "The part that was asked for.", "headers": _PART, **_OBJECT},
        304: {"description": "It is what the client has.", "headers": _OBJECT_HEADERS},
    },
    _STORE,
    "A whole object is verified as it passes; if it turns out to be wrong, the connection ends before the last byte.",
    (
        _KEY,
        _parameter(
            "Range", "header", "one range of bytes; anything else is all of them", example="bytes=0-3"
        ),
        *_CONDITIONS,
    ),
    also={412: MessageError, 416: MessageError},
)
_PUT_OBJECT = Operation(
    "putObject",
    "Store an object",
    {
        201: {
            "description": "It is stored, whole.",
            "headers": {"ETag": header("that of the object")},
            **_content(ref("Stored"), JSON),
            "links": {
                "object": {"operationId": "getObject", "parameters": {"key": "$request.path.key"}},
            },
        }
    },
    _STORE | _BODY | _and_below(LocalFileError) | {ExistsError},
    "Whatever was under the key is replaced, whole or not at all. A Content-Type"
    " that is specific is kept; else the first bytes or the key tell it.",
    (
        _KEY,
        _parameter("Content-MD5", "header", "the MD5 of the body: what has another is not stored", _MD5),
        _parameter("If-None-Match", "header", "`*` keeps what is there"),
    ),
    _content(_BYTES, "application/octet-stream", example="Hi there!"),
    also={415: MessageError},
)
_LIST = Operation(
    "listObjects",
    "List objects",
    {200: {"description": "A page of rows.", **_content(ref("Listing"), JSON)}},
    _STORE,
    parameters=(
        _parameter("prefix", "query", "what keys begin with, a plain text"),
        _parameter("delimiter", "query", "keys that have it after the prefix are told as one folder"),
        _parameter("marker", "query", "the key after which rows begin"),
        _parameter(
            "limit",
            "query",
            "how many rows there are at most",
            {"type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": ROWS},
        ),
    ),
)
_EVENT = record({"data": {**TEXT, "contentMediaType": JSON, "contentSchema": ref("Job")}}, "data")
_JOB_EVENTS = Operation(
    "jobEvents",
    "Follow a job",
    {200: {"description": "Server-sent events until its end.", **_content(_EVENT, "text/event-stream")}},
    _STORE | _ELSEWHERE | {UnknownJobError},
    "Each event has the JSON of `jobStatus`; the last has the reply.",
    (_parameter("id", "path", "the id that was replied", required=True),),
)
_ETAG = {"ETag": header("what is another when the file is")}
_FILE: Schema = {"content": {kind: {"schema": TEXT} for kind in KINDS.values()}}
_ROOT = replace(
    _QUERY,
    name="queryAtRoot",
    text=f"{_QUERY.text} Without any query, the answer is a page for people.",
    answers={200: {**_REPLY, "content": {**_REPLY["content"], "text/html": {"schema": TEXT}}}},
)
_WELL = {200: {"description": "It is.", **_content(ref("Well"), JSON)}}

OPERATIONS: dict[str, dict[str, Operation]] = {
    "/": {"POST": replace(_COMMAND, name="commandAtRoot"), "GET": _ROOT},
    "/page/{name}": {
        "GET": Operation(
            "page",
            "Give out what belongs to the page",
            {
                200: {"description": "The file.", "headers": _ETAG, **_FILE},
                304: {"description": "It is what the client has.", "headers": _ETAG},
            },
            _ELSEWHERE,
            parameters=(_parameter("name", "path", "its name", required=True, example="page.css"), _HAS),
        )
    },
    "/api/v1/cmd": {"POST": _COMMAND, "GET": _QUERY},
    "/api/v1/cmd/": {
        "POST": replace(_COMMAND, name="commandBelow"),
        "GET": replace(_QUERY, name="queryBelow"),
    },
    "/api/v1/objects": {"GET": _LIST},
    "/api/v1/objects/{key}": {"GET": _GET_OBJECT, "PUT": _PUT_OBJECT},
    "/api/v1/jobs/{id}/events": {"GET": _JOB_EVENTS},
    "/api/v1/openapi.json": {
        "GET": Operation(
            "openapi",
            "Tell what there is",
            {200: {"description": "This document.", **_content({"type": "object"}, JSON)}},
        )
    },
    "/healthz": {"GET": Operation("healthz", "Tell whether the server lives", _WELL)},
    "/readyz": {
        "GET": Operation("readyz", "Tell whether the store answers", _WELL, frozenset({UnavailableError}))
    },
    "/metrics": {
        "GET": Operation(
            "metrics",
            "Tell what the server has done",
            {200: {"description": "Metrics for Prometheus.", **_content(TEXT, "text/plain")}},
        )
    },
}
"""By template and method; HEAD is as GET."""
