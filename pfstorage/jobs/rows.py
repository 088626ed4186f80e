"""Read jobs from rows of the file. An unreadable row is a failed job: it hides no other, and does not begin."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pfstorage.access.permissions import LEVELS, Permissions
from pfstorage.errors import PfstorageError, TooLargeError
from pfstorage.jobs.model import FAILED, NOBODY, STATES, Job, Order
from pfstorage.jobs.origin import Origin
from pfstorage.jobs.stored_reply import MOST_TEXT
from pfstorage.wire.packed import Packed, TooLongError

MOST_MESSAGE = 2 * MOST_TEXT
"""Characters of JSON that a message has at most: escapes make it longer than it came."""
_MOST_SHORT = 64 * 1024
"""Bytes of each value that is not a message or a reply."""
_LAST_TIME = 253402300799.0  # the last second of the year 9999, which is the last that Python can write
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


def _short(name: str) -> str:
    return f"CASE WHEN length({name}) > {_MOST_SHORT} THEN x'' ELSE {name} END"


COLUMNS = ", ".join(["number", *map(_short, _SHORT), "typeof(message)", "typeof(reply)"])
REPLY = f"CASE WHEN length(reply) > {MOST_TEXT} THEN '' ELSE reply END"
ORDER = ", ".join(
    [
        f"CASE WHEN length(message) <= {MOST_MESSAGE} THEN message END",
        *map(_short, ("owner", "jid", "rights", "origin")),
    ]
)

Row = Sequence[Any]


class DamagedRowError(ValueError):
    """A value of a row differs from all that the server writes."""


def job_of(row: Row) -> Job:
    """Return the job of a row of `COLUMNS`, perhaps with `REPLY`: a failed one if that can't be read."""
    try:
        return read_job(row)
    except DamagedRowError as e:
        return failed_job_of(row, reason_of(e))


def reason_of(error: DamagedRowError) -> str:
    return f"the row of this job in the file of the jobs is damaged: {error}; send the message anew"


def failed_job_of(row: Row, reason: str) -> Job:
    """Return a failed job with whatever of *row* can be read."""
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
        text("owner", default=NOBODY),
        Permissions(),  # to all keys, so that a token with a prefix does not see the job
        jid=text("jid"),
        reason=reason,
    )


def read_job(row: Row) -> Job:
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
        _rights_of(known["rights"]),
        known["jid"] or "",
        _object_of(known["progress"], "progress"),
        _packed(reply[0], "reply", MOST_TEXT) if reply and reply[0] is not None else None,
        known["reason"] or "",
    )


def read_order(row: Row) -> Order:
    """Return the order in a row of `ORDER`. Raise `PfstorageError` if it can't be read."""
    message, owner, jid, permissions, origin = row
    try:
        return Order(
            message_of(_packed(message, "message", MOST_MESSAGE)),
            owner,
            _rights_of(permissions),
            jid or "",
            _origin_of(origin),
        )
    except DamagedRowError as e:
        raise PfstorageError(reason_of(e)) from e


def message_of(packed: Packed) -> dict[str, Any]:
    """Return the message in *packed*, once it is sure that it is one. Raise `DamagedRowError`."""
    try:
        message = packed.value
    except (ValueError, RecursionError) as e:
        raise DamagedRowError("its message is no JSON object") from e
    _require(isinstance(message.get("action"), str) and isinstance(message.get("meta"), dict), "message")
    return message


def packed_message(message: Mapping[str, Any]) -> Packed:
    """Pack *message* as a text that is the same for the same message. Raise `TooLargeError`."""
    try:
        return Packed.of_text(json.dumps(message, sort_keys=True), MOST_MESSAGE)
    except TooLongError:
        raise TooLargeError(f"the message of a job has at most {MOST_MESSAGE} characters") from None


def rights_text(permissions: Permissions) -> str:
    return json.dumps(dataclasses.asdict(permissions))


def _packed(data: object, name: str, most: int) -> Packed:
    try:
        return Packed.checked(data, most)
    except ValueError as e:
        raise DamagedRowError(f"its {name} can't be read, {e}") from e


def _rights_of(text: object) -> Permissions:
    try:
        permissions = Permissions(**_object_of(text, "rights"))
    except TypeError as e:
        raise DamagedRowError("its rights can't be read") from e
    _require(permissions.level in LEVELS and isinstance(permissions.prefix, str), "rights")
    return permissions


def _origin_of(text: object) -> Origin:
    try:
        origin = Origin.from_json(str(text))
    except (KeyError, TypeError, ValueError, RecursionError) as e:
        raise DamagedRowError("its origin can't be read") from e
    names = [origin.store, *(name for pair in origin.roots for name in pair)]
    _require(all(isinstance(name, str) for name in names), "origin")
    return origin


def _object_of(text: object, name: str) -> dict[str, Any]:
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
