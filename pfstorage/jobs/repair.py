"""Convert rows of older versions, and turn damaged rows into failed jobs."""

from __future__ import annotations

import contextlib
import sqlite3
import time
import uuid
from typing import Any

from pfstorage.jobs.model import CANCELLED, FAILED, FINAL_STATES
from pfstorage.jobs.rows import (
    JOB_COLUMNS,
    MAX_MESSAGE_TEXT,
    DamagedRowError,
    damage_reason,
    failed_job_from_row,
    parse_job,
    parse_message,
)
from pfstorage.jobs.stored_reply import MAX_TEXT
from pfstorage.wire.packed import Packed, TooLongError

_UNCOMPRESSED = "typeof(message) = 'text' OR typeof(reply) = 'text'"
_NO_TIME = "typeof(finished) NOT IN ('real', 'integer') OR finished NOT BETWEEN 0 AND 253402300799"


def repair_rows(connection: sqlite3.Connection) -> int:
    """Compress the messages and replies of older versions, and turn each damaged row into a failed job.

    Return the number of jobs whose state has become failed.
    """
    for (number,) in connection.execute(f"SELECT number FROM job WHERE {_UNCOMPRESSED}").fetchall():
        _compress(connection, number)
    connection.execute(
        f"UPDATE job SET finished = ? WHERE state IN {FINAL_STATES} AND ({_NO_TIME})", (time.time(),)
    )
    numbers = [number for (number,) in connection.execute("SELECT number FROM job ORDER BY number")]
    return sum(_is_failed_now(connection, number) for number in numbers)


def _compress(connection: sqlite3.Connection, number: int) -> None:
    [message, reply, state] = connection.execute(
        f"SELECT substr(message, 1, {MAX_MESSAGE_TEXT + 1}), substr(reply, 1, {MAX_TEXT + 1}), state FROM job"
        " WHERE number = ?",
        (number,),
    ).fetchone()
    values: dict[str, Any] = {}
    with contextlib.suppress(
        DamagedRowError
    ):  # the row keeps a damaged text, and is repaired as a damaged row
        if isinstance(message, str):
            packed = _packed_text(message, MAX_MESSAGE_TEXT)
            values |= {
                "action": parse_message(packed)["action"],
                "message": packed.data,
                "length": packed.size,
            }
        if isinstance(reply, str):
            packed = _packed_text(reply, MAX_TEXT)
            reason = packed.value.get("msg") if state in (FAILED, CANCELLED) else None
            values |= {"reply": packed.data, "reason": reason if isinstance(reason, str) else None}
    if values:
        assignments = ", ".join(f"{name} = ?" for name in values)
        connection.execute(f"UPDATE job SET {assignments} WHERE number = ?", (*values.values(), number))
        connection.execute(
            "UPDATE job SET size = coalesce(length(message), 0) + coalesce(length(reply), 0) WHERE number = ?",
            (number,),
        )


def _packed_text(text: str, max_length: int) -> Packed:
    try:
        packed = Packed.of_text(text, max_length)
        packed.value  # noqa: B018 - it raises if the text is not JSON
    except (TooLongError, ValueError, RecursionError) as e:
        raise DamagedRowError("it is no JSON object") from e
    return packed


def _is_failed_now(connection: sqlite3.Connection, number: int) -> bool:
    """Turn a damaged row into a failed job. Return whether the job had not failed before."""
    row = connection.execute(f"SELECT {JOB_COLUMNS} FROM job WHERE number = ?", (number,)).fetchone()
    try:
        parse_job(row)
        return False
    except DamagedRowError as e:
        reason = damage_reason(e)
    job = failed_job_from_row(row, reason)
    is_new = job.reason == reason and row[4] != FAILED
    job_id = job.id if job.id == row[1] else uuid.uuid4().hex
    connection.execute(
        "UPDATE job SET id = ?, state = ?, reason = ?, finished = ? WHERE number = ?",
        (job_id, FAILED, job.reason, job.finished or time.time(), number),
    )
    return is_new
