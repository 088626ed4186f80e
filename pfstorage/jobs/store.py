"""Store jobs as rows of an SQLite file. One process at a time uses the file."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import uuid
from collections.abc import Mapping
from typing import Any

from pfstorage.errors import JobConflictError, PfstorageError, SettingsError, StateFileError, UnknownJobError
from pfstorage.jobs.database import Database, is_damage
from pfstorage.jobs.directory import StateDirectory, locked_directory
from pfstorage.jobs.model import (
    CANCELLED,
    FINAL_STATES,
    MAX_LISTED,
    MAX_REASON,
    QUEUED,
    RUNNING,
    STATES,
    Job,
    JobRequest,
)
from pfstorage.jobs.queue import QueuedJob
from pfstorage.jobs.repair import repair_rows
from pfstorage.jobs.rows import (
    JOB_COLUMNS,
    REPLY_COLUMN,
    REQUEST_COLUMNS,
    job_from_row,
    parse_request,
    permissions_json,
)
from pfstorage.runtime.fair_share import FAIR_SHARE
from pfstorage.wire.packed import Packed

log = logging.getLogger(__name__)

_PREFIX = "coalesce(CASE WHEN json_valid(rights) THEN json_extract(rights, '$.prefix') END, '')"
# Identifies a row of a list and the state of its job. SQLite never uses a number again. In hex: a damaged row may have
# any bytes as its id.
_CACHE_KEY = "number || '/' || hex(id) || '/' || hex(state)"


class JobStore:
    """The jobs in ``jobs.sqlite`` of *directory*, or in a temporary file without *directory*.

    Only the owner of the process can read the directory and its files: paths may name patients. Messages and replies
    are compressed. Methods raise `StateFileError` and `FullDiskError`, besides the errors that they name. Any thread
    may call a method. Each write is one transaction; reads do not wait for writes.
    """

    def __init__(self, directory: str = "", *, repairs: bool = False) -> None:
        """Open the file, and lock it against other processes. With *repairs*, replace a damaged file by a new one.

        Raise `SettingsError`, or `StateFileError` for a failure that may pass by itself.
        """
        with contextlib.ExitStack() as opening:
            self._directory = opening.enter_context(locked_directory(directory)) if directory else None
            self._database = _open_database(self._directory, repairs)
            opening.callback(self._database.close)
            if self._directory:
                self._directory.watch(f"{self._directory.path}-wal")  # with the latest writes
            self._open = opening.pop_all()
        # by `_CACHE_KEY`; any thread may read it, so a change replaces the whole dict
        self._list_cache: dict[str, Job] = {}

    def close(self) -> None:
        """Wait for the end of all reads and writes, and unlock the file."""
        self._open.close()

    def add(self, request: JobRequest, message: Packed, now: float) -> tuple[str, bool]:
        """Add *request* as a queued job, and return its id and True. *message* is its message by `pack_message`.

        If its owner has a job of the same jid, return the id of that job and False. Raise `JobConflictError` if that
        job has another message or origin.
        """
        with self._write() as connection:
            existing = (
                request.jid
                and connection.execute(
                    f"SELECT id, {REQUEST_COLUMNS} FROM job WHERE owner = ? AND jid = ?",
                    (request.owner, request.jid),
                ).fetchone()
            )
            if existing:
                _require_same(request, message, existing[1:])
                return str(existing[0]), False
            job_id = uuid.uuid4().hex
            values = {
                "id": job_id,
                "owner": request.owner,
                "jid": request.jid or None,
                "state": QUEUED,
                "created": now,
                "action": request.message["action"],
                "size": len(message.data),
                "length": message.size,
                "rights": permissions_json(request.permissions),
                "origin": request.origin.to_json(),
                "message": message.data,
            }
            marks = ", ".join("?" * len(values))
            connection.execute(
                f"INSERT INTO job ({', '.join(values)}) VALUES ({marks})", tuple(values.values())
            )
            return job_id, True

    def resume(self, now: float) -> list[QueuedJob]:
        """Queue the jobs that were running at the end of the last process. Return all queued jobs in their order."""
        with self._write() as connection:
            connection.execute(
                f"UPDATE job SET state = '{CANCELLED}', finished = ? WHERE state = '{RUNNING}' AND is_unwanted",
                (now,),
            )
            connection.execute(f"UPDATE job SET state = '{QUEUED}', started = NULL WHERE state = '{RUNNING}'")
            queued = connection.execute(
                "SELECT id, owner, length(message), CAST(coalesce(length, 0) AS INTEGER) FROM job"
                f" WHERE state = '{QUEUED}' ORDER BY number"
            )
            return [QueuedJob(*row) for row in queued]

    def read(self, job_id: str) -> Job | None:
        """Return a job with its reply, None if there is no such job."""
        with self._database.read() as connection:
            row = connection.execute(
                f"SELECT {JOB_COLUMNS}, {REPLY_COLUMN} FROM job WHERE id = ?", (job_id,)
            ).fetchone()
        return job_from_row(row) if row else None

    def find_id(self, jid: str, owner: str, *, any_owner: bool) -> str | None:
        """Return the id of *owner*'s job of that jid. With *any_owner*, fall back to the latest of another owner."""
        with self._database.read() as connection:
            found = connection.execute(
                "SELECT id FROM job WHERE jid = ? AND (owner = ? OR ?) ORDER BY owner = ? DESC, number DESC",
                (jid, owner, any_owner, owner),
            ).fetchone()
        return str(found[0]) if found else None

    def latest(self, limit: int, owner: str | None, prefix: str = "") -> list[Job]:
        """Return up to *limit* jobs without their replies, the latest first.

        Return those of *owner*, or of all owners if it is None, and only those whose permissions are for keys that
        begin with *prefix*.
        """
        known = self._list_cache
        with self._database.read() as connection:
            # one row of text: sqlite3 releases the GIL for each row
            [(found,)] = connection.execute(
                f"SELECT group_concat(name) FROM (SELECT {_CACHE_KEY} AS name FROM job WHERE (owner = ? OR ? IS NULL)"
                f" AND substr({_PREFIX}, 1, length(?)) = ? ORDER BY number DESC LIMIT ?)",
                (owner, owner, prefix, prefix, limit),
            ).fetchall()
            names = found.split(",") if found else []
            numbers = ",".join(name.partition("/")[0] for name in names if name not in known)
            unknown = connection.execute(
                f"SELECT {_CACHE_KEY}, {JOB_COLUMNS} FROM job WHERE number IN ({numbers})"
            ).fetchall()
        jobs = {name: job_from_row(row) for name, *row in FAIR_SHARE.in_turns(unknown)}
        listed = [jobs.get(name) or known[name] for name in names]
        self._cache({name: job for name, job in zip(names, listed, strict=True) if job.state != RUNNING})
        return listed

    def counts(self) -> dict[str, int]:
        """Return the number of jobs in each state."""
        with self._database.read() as connection:
            found = connection.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall()
        return dict.fromkeys(STATES, 0) | {state: count for state, count in found if state in STATES}

    def begin(self, job_id: str, now: float) -> tuple[Job, JobRequest]:
        """Mark a queued job as running, and return it with its request.

        Raise `UnknownJobError` if the file has no such row, `PfstorageError` if the row is damaged.
        """
        with self._write() as connection:
            connection.execute("UPDATE job SET state = ?, started = ? WHERE id = ?", (RUNNING, now, job_id))
            found = connection.execute(
                f"SELECT {REQUEST_COLUMNS} FROM job WHERE id = ?", (job_id,)
            ).fetchone()
            job = connection.execute(f"SELECT {JOB_COLUMNS} FROM job WHERE id = ?", (job_id,)).fetchone()
        if not found:  # another program has removed the row
            raise UnknownJobError(f"the job {job_id} is no longer in the file of the jobs", job=job_id)
        return job_from_row(job), parse_request(found)

    def note_progress(self, job_id: str, progress: Mapping[str, Any]) -> None:
        self._set(job_id, progress=json.dumps(progress))

    def note_cancelled(self, job_id: str) -> None:
        """Mark a running job as cancelled, so that no later process resumes it."""
        self._set(job_id, is_unwanted=1)

    def requeue(self, job_id: str) -> None:
        """Queue a running job again."""
        self._set(job_id, state=QUEUED, started=None)

    def finish(  # one argument for each column
        self,
        job_id: str,
        state: str,
        now: float,
        progress: Mapping[str, Any],
        reply: Packed | None = None,
        reason: str = "",
    ) -> None:
        """Write the final *state* of a job, its progress, its reply, and the *reason* of a failure."""
        data = reply.data if reply else None
        with self._write() as connection:
            connection.execute(
                "UPDATE job SET state = ?, finished = ?, progress = ?, reply = ?, reason = ?,"
                " size = coalesce(length(message), 0) + ? WHERE id = ?",
                (state, now, json.dumps(progress), data, reason[:MAX_REASON], len(data or b""), job_id),
            )

    def remove_finished(self, before: float, max_jobs: int, max_bytes_per_owner: int, max_bytes: int) -> int:
        """Remove finished jobs, and return their number.

        Remove those that ended *before* a time. Of the others, keep at most *max_jobs*, with at most
        *max_bytes_per_owner* bytes of each owner and *max_bytes* of all. The owners with the most jobs or bytes lose
        their oldest jobs first. Each owner keeps the latest job, whatever its bytes.
        """
        is_final = f"state IN {FINAL_STATES}"
        per_owner = "(PARTITION BY owner ORDER BY finished DESC, number DESC)"
        placed = (
            f"SELECT number, size, sum(size) OVER {per_owner} AS bytes, row_number() OVER {per_owner} AS place"
            f" FROM job WHERE {is_final}"
        )
        filled = (
            "SELECT number, place, bytes, row_number() OVER (ORDER BY place, number DESC) AS count,"
            f" sum(size) OVER (ORDER BY bytes, number DESC) AS all_bytes FROM ({placed})"
        )
        with self._write() as connection:
            old = connection.execute(f"DELETE FROM job WHERE {is_final} AND finished <= ?", (before,))
            surplus = connection.execute(
                f"DELETE FROM job WHERE number IN (SELECT number FROM ({filled})"
                " WHERE count > ? OR (place > 1 AND (bytes > ? OR all_bytes > ?)))",
                (max_jobs, max_bytes_per_owner, max_bytes),
            )
            return old.rowcount + surplus.rowcount

    def truncate_log(self) -> bool:
        """Remove deleted rows from SQLite's write-ahead log, too. Return False if a reader prevents that now."""
        return self._database.truncate_log()

    def _cache(self, jobs: Mapping[str, Job]) -> None:
        """Keep *jobs* for the next list. A job that is not running changes only with its state."""
        known = {**self._list_cache, **jobs}
        self._list_cache = known if len(known) <= 2 * MAX_LISTED else dict(jobs)

    def _set(self, job_id: str, **values: object) -> None:
        assignments = ", ".join(f"{name} = ?" for name in values)
        with self._write() as connection:
            connection.execute(f"UPDATE job SET {assignments} WHERE id = ?", (*values.values(), job_id))

    def _write(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        if self._directory:
            self._directory.check()
        return self._database.write()


def _open_database(directory: StateDirectory | None, repairs: bool) -> Database:
    """Open the file, and turn damaged rows into failed jobs. Raise the errors of `JobStore`."""
    path = directory.path if directory else ""
    try:
        return _open_repaired(path)
    except StateFileError as e:
        if not is_damage(e.__cause__):
            raise
        if not (directory and repairs):
            raise SettingsError(str(e)) from e
        aside = directory.set_aside()
        log.warning("%s: the damaged file is now %r, and a new file was made", e.__cause__, aside)
        return _open_repaired(path)


def _open_repaired(path: str) -> Database:
    with contextlib.ExitStack() as opening:
        database = Database(path)
        opening.callback(database.close)
        with database.write() as connection:
            if count := repair_rows(connection):
                log.warning("jobs that have failed because their rows were damaged: %d", count)
        opening.pop_all()
        return database


def _require_same(request: JobRequest, message: Packed, row: tuple[Any, ...]) -> None:
    """Raise `JobConflictError` if the job in *row* has another message or origin than *request*."""
    try:
        existing = parse_request(row)
    except PfstorageError as e:
        raise JobConflictError(
            f"the jid {request.jid!r} is that of a job that can't be read: take another jid"
        ) from e
    if existing.message != message.value:
        raise JobConflictError(
            f"the jid {request.jid!r} is that of a job with another message: take another jid"
        )
    if not request.origin.matches(existing.origin):
        raise JobConflictError(
            f"the jid {request.jid!r} is that of a job for another store or --fsRoot: take another jid"
        )
