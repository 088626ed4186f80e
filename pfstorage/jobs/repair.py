"""Rows that an older version, another program or a failing disk has left, as the present version has them."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import uuid
from typing import Any

from pfstorage.jobs.model import CANCELLED, FAILED, OVER
from pfstorage.jobs.rows import (
    COLUMNS,
    MOST_MESSAGE,
    DamagedRowError,
    failed_job_of,
    message_of,
    read_job,
    reason_of,
)
from pfstorage.jobs.stored_reply import MOST_TEXT
from pfstorage.wire.packed import Packed, TooLongError

_LONG_BEFORE = "typeof(message) = 'text' OR typeof(reply) = 'text'"
_NO_TIME = "typeof(finished) NOT IN ('real', 'integer') OR finished NOT BETWEEN 0 AND 253402300799"


def mend(rows: sqlite3.Connection) -> int:
    """Compress the messages and replies of older versions, and turn each unreadable row into a failed job.

    Return the number of jobs that have failed by that.
    """
    for (number,) in rows.execute(f"SELECT number FROM job WHERE {_LONG_BEFORE}").fetchall():
        _compress(rows, number)
    rows.execute(f"UPDATE job SET finished = ? WHERE state IN {OVER} AND ({_NO_TIME})", (time.time(),))
    numbers = [number for (number,) in rows.execute("SELECT number FROM job ORDER BY number")]
    return sum(_is_failed_now(rows, number) for number in numbers)


def _compress(rows: sqlite3.Connection, number: int) -> None:
    [message, reply, state] = rows.execute(
        f"SELECT substr(message, 1, {MOST_MESSAGE + 1}), substr(reply, 1, {MOST_TEXT + 1}), state FROM job"
        " WHERE number = ?",
        (number,),
    ).fetchone()
    values: dict[str, Any] = {}
    with contextlib.suppress(DamagedRowError):  # a damaged text stays a text, which shows the damage
        if isinstance(message, str):
            packed = _packed(message, MOST_MESSAGE)
            values |= {"action": message_of(packed)["action"], "message": packed.data, "length": packed.size}
        if isinstance(reply, str):
            packed = _packed(reply, MOST_TEXT)
            reason = packed.value.get("msg") if state in (FAILED, CANCELLED) else None
            values |= {"reply": packed.data, "reason": reason if isinstance(reason, str) else None}
    if values:
        assignments = ", ".join(f"{name} = ?" for name in values)
        rows.execute(f"UPDATE job SET {assignments} WHERE number = ?", (*values.values(), number))
        rows.execute(
            "UPDATE job SET size = coalesce(length(message), 0) + coalesce(length(reply), 0) WHERE number = ?",
            (number,),
        )


def _packed(text: str, most: int) -> Packed:
    try:
        packed = Packed.of_text(text, most)
        packed.value  # noqa: B018 - it raises if the text is no JSON
    except (TooLongError, ValueError, RecursionError) as e:
        raise DamagedRowError("it is no JSON object") from e
    return packed


def _is_failed_now(rows: sqlite3.Connection, number: int) -> bool:
    """Turn an unreadable row into a failed job. Return whether the job had not failed before."""
    row = rows.execute(f"SELECT {COLUMNS} FROM job WHERE number = ?", (number,)).fetchone()
    try:
        read_job(row)
        return False
    except DamagedRowError as e:
        reason = reason_of(e)
    job = failed_job_of(row, reason)
    is_new = job.reason == reason and row[4] != FAILED
    job_id = job.id if job.id == row[1] else uuid.uuid4().hex
    rows.execute(
        "UPDATE job SET id = ?, state = ?, reason = ?, finished = ? WHERE number = ?",
        (job_id, FAILED, job.reason, job.finished or time.time(), number),
    )
    return is_new
