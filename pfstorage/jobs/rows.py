"""Read jobs from rows of the file. A damaged row becomes a failed job: it does not hide other jobs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pfstorage.access.permissions import LEVELS, Permissions
from pfstorage.errors import PfstorageError, TooLargeError
from pfstorage.jobs.model import FAILED, STATES, UNKNOWN_OWNER, Job, JobRequest
from pfstorage.jobs.origin import Origin
from pfstorage.jobs.stored_reply import MAX_TEXT
from pfstorage.wire.packed import Packed, TooLongError

# Characters of JSON of a message. Escapes make it longer than the text that the server received.
MAX_MESSAGE_TEXT = 2 * MAX_TEXT
# Bytes of each value that is not a message or a reply.
_MAX_SHORT = 64 * 1024
# The last second of the year 9999. `datetime` has no later year.
_LAST_TIME = 253402300799.0
_SHORT = (
    "id",
    "owner",
    "jid",
    "state",
    "created",
    "started",
    "finished",
    "action",
    "reason",
    "progress",
    "rights",
)


def _short_column(name: str) -> str:
    return f"CASE WHEN length({name}) > {_MAX_SHORT} THEN x'' ELSE {name} END"


JOB_COLUMNS = ", ".join(["number", *map(_short_column, _SHORT), "typeof(message)", "typeof(reply)"])
REPLY_COLUMN = f"CASE WHEN length(reply) > {MAX_TEXT} THEN '' ELSE reply END"
REQUEST_COLUMNS = ", ".join(
    [
        f"CASE WHEN length(message) <= {MAX_MESSAGE_TEXT} THEN message END",
        *map(_short_column, ("owner", "jid", "rights", "origin")),
    ]
)

JobRow = Sequence[Any]


class DamagedRowError(ValueError):
    """A row has a value that the server never writes."""


def job_from_row(row: JobRow) -> Job:
    """Return the job of a row of `JOB_COLUMNS`, with or without `REPLY_COLUMN`. A damaged row gives a failed job."""
    try:
        return parse_job(row)
    except DamagedRowError as e:
        return failed_job_from_row(row, damage_reason(e))


def damage_reason(error: DamagedRowError) -> str:
    return f"the row of this job in the file of the jobs is damaged: {error}; send the message again"


def failed_job_from_row(row: JobRow, reason: str) -> Job:
    """Return a failed job with the values of *row* that are valid."""
    number, *values, _, _ = row[: len(_SHORT) + 3]
    known = dict(zip(_SHORT, values, strict=True))

    def text(name: str, default: str = "") -> str:
        value = known[name]
        return value if isinstance(value, str) else default

    def time(name: str) -> float | None:
        return known[name] if _is_time(known[name]) else None

    job_id = text("id") or f"number-{number}"
    reason = text("reason") if known["state"] == FAILED and text("reason") else reason
    return Job(
        job_id,
        text("action"),
        FAILED,
        time("created"),
        time("started"),
        time("finished"),
        text("owner", default=UNKNOWN_OWNER),
        Permissions(),  # for all keys, so that a token with a prefix can't see the job
        jid=text("jid"),
        reason=reason,
    )


def parse_job(row: JobRow) -> Job:
    """Return the job of *row*. Raise `DamagedRowError` for a value of a wrong type or form."""
    _, *values = row[: len(_SHORT) + 1]
    message_type, reply_type, *reply = row[len(_SHORT) + 1 :]
    known = dict(zip(_SHORT, values, strict=True))
    for name in ("id", "owner", "action"):
        _require(isinstance(known[name], str), name)
    for name in ("jid", "reason"):
        _require(known[name] is None or isinstance(known[name], str), name)
    _require(known["state"] in STATES, "state")
    _require(_is_time(known["created"]), "created")
    for name in ("started", "finished"):
        _require(known[name] is None or _is_time(known[name]), name)
    _require(message_type == "blob", "message")
    _require(reply_type in ("blob", "null"), "reply")
    return Job(
        known["id"],
        known["action"],
        known["state"],
        known["created"],
        known["started"],
        known["finished"],
        known["owner"],
        _parse_permissions(known["rights"]),
        known["jid"] or "",
        _parse_object(known["progress"], "progress"),
        _packed_column(reply[0], "reply", MAX_TEXT) if reply and reply[0] is not None else None,
        known["reason"] or "",
    )


def parse_request(row: JobRow) -> JobRequest:
    """Return the request in a row of `REQUEST_COLUMNS`. Raise `PfstorageError` if the row is damaged."""
    message, owner, jid, permissions, origin = row
    try:
        return JobRequest(
            parse_message(_packed_column(message, "message", MAX_MESSAGE_TEXT)),
            owner,
            _parse_permissions(permissions),
            jid or "",
            _parse_origin(origin),
        )
    except DamagedRowError as e:
        raise PfstorageError(damage_reason(e)) from e


def parse_message(packed: Packed) -> dict[str, Any]:
    """Return the message in *packed*. Raise `DamagedRowError` if it is not a message."""
    try:
        message = packed.value
    except (ValueError, RecursionError) as e:
        raise DamagedRowError("its message is no JSON object") from e
    _require(isinstance(message.get("action"), str) and isinstance(message.get("meta"), dict), "message")
    return message


def pack_message(message: Mapping[str, Any]) -> Packed:
    """Return *message* as compressed JSON with sorted keys: equal messages have equal texts. Raise `TooLargeError`."""
    try:
        return Packed.of_text(json.dumps(message, sort_keys=True), MAX_MESSAGE_TEXT)
    except TooLongError:
        raise TooLargeError(f"the message of a job has at most {MAX_MESSAGE_TEXT} characters") from None


def permissions_json(permissions: Permissions) -> str:
    return json.dumps(dataclasses.asdict(permissions))


def _packed_column(data: object, name: str, max_length: int) -> Packed:
    try:
        return Packed.checked(data, max_length)
    except ValueError as e:
        raise DamagedRowError(f"its {name} can't be read, {e}") from e


def _parse_permissions(text: object) -> Permissions:
    try:
        permissions = Permissions(**_parse_object(text, "rights"))
    except TypeError as e:
        raise DamagedRowError("its rights can't be read") from e
    _require(permissions.level in LEVELS and isinstance(permissions.prefix, str), "rights")
    return permissions


def _parse_origin(text: object) -> Origin:
    try:
        origin = Origin.from_json(str(text))
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        raise DamagedRowError("its origin can't be read") from e
    names = [origin.store, *(name for pair in origin.roots for name in pair)]
    _require(all(isinstance(name, str) for name in names), "origin")
    return origin


def _parse_object(text: object, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError) as e:
        raise DamagedRowError(f"its {name} can't be read") from e
    _require(isinstance(found, dict), name)
    assert isinstance(found, dict)
    return found


def _is_time(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= _LAST_TIME


def _require(is_so: bool, name: str) -> None:
    if not is_so:
        raise DamagedRowError(f"its {name} can't be read")
