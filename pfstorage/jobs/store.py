"""The jobs as rows of an SQLite file, which one process at a time uses."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import uuid
from collections.abc import Mapping
from typing import Any

from pfstorage.errors import JobConflictError, PfstorageError, SettingsError, StateFileError, UnknownJobError
from pfstorage.jobs import repair as mending
from pfstorage.jobs.database import Database, tells_damage
from pfstorage.jobs.directory import StateDirectory, guarded
from pfstorage.jobs.model import (
    CANCELLED,
    MOST_LISTED,
    MOST_REASON,
    OVER,
    QUEUED,
    RUNNING,
    STATES,
    Job,
    Order,
)
from pfstorage.jobs.queue import QueuedJob
from pfstorage.jobs.rows import COLUMNS, ORDER, REPLY, job_of, read_order, rights_text
from pfstorage.runtime.fair_share import FAIR_SHARE
from pfstorage.wire.packed import Packed

log = logging.getLogger(__name__)

_PREFIX = "coalesce(CASE WHEN json_valid(rights) THEN json_extract(rights, '$.prefix') END, '')"
_NAME = "number || '/' || hex(id) || '/' || hex(state)"
"""What names a job in a list: no later one has its number, and whatever a damaged row has for an id is in hex."""


class JobStore:
    """Keeps jobs in ``jobs.sqlite`` of *directory*, or in a file without a name for as long as the process lives.

    The directory is made for its owner alone, and so are its files: paths may name patients. Messages and replies are
    compressed in it, and are read when they are needed. Once it is open, methods raise `StateFileError`,
    `FullDiskError` and the errors that they name. Any thread may call a method. Reading does not wait for writing.
    """

    def __init__(self, directory: str = "", *, repairs: bool = False) -> None:
        """Open the file, and keep other processes from it. If it can't be read, *repairs* begins another one.

        Raise `SettingsError`, or `StateFileError` for what may pass by itself.
        """
        with contextlib.ExitStack() as opening:
            self._directory = opening.enter_context(guarded(directory)) if directory else None
            self._database = _opened(self._directory, repairs)
            opening.callback(self._database.close)
            if self._directory:
                self._directory.watch(
                    f"{self._directory.path}-wal"
                )  # where SQLite keeps what was written last
            self._open = opening.pop_all()
        self._known: dict[str, Job] = {}  # by `_NAME`; it is replaced as a whole, as any thread may read it

    def close(self) -> None:
        """Let others have the file."""
        self._open.close()

    def add(self, order: Order, message: Packed, now: float) -> tuple[str, bool]:
        """Keep *order*, and its *message* by `packed_message`, as a queued job; return its id, and whether it is new.

        It isn't if its owner has a job of that jid. Raise `JobConflictError` if that is
        another message, or meant another store or other files.
        """
        with self._change() as rows:
            there = (
                order.jid
                and rows.execute(
                    f"SELECT id, {ORDER} FROM job WHERE owner = ? AND jid = ?", (order.owner, order.jid)
                ).fetchone()
            )
            if there:
                _require_same(order, message, there[1:])
                return str(there[0]), False
            job_id = uuid.uuid4().hex
            values = {
                "id": job_id,
                "owner": order.owner,
                "jid": order.jid or None,
                "state": QUEUED,
                "created": now,
                "action": order.message["action"],
                "size": len(message.data),
                "length": message.size,
                "rights": rights_text(order.permissions),
                "origin": order.origin.to_json(),
                "message": message.data,
            }
            marks = ", ".join("?" * len(values))
            rows.execute(f"INSERT INTO job ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))
            return job_id, True

    def resume(self, now: float) -> list[QueuedJob]:
        """Queue again what was running when the process ended; return what is queued, the first first."""
        with self._change() as rows:
            rows.execute(
                f"UPDATE job SET state = '{CANCELLED}', finished = ? WHERE state = '{RUNNING}' AND is_unwanted",
                (now,),
            )
            rows.execute(f"UPDATE job SET state = '{QUEUED}', started = NULL WHERE state = '{RUNNING}'")
            queued = rows.execute(
                "SELECT id, owner, length(message), CAST(coalesce(length, 0) AS INTEGER) FROM job"
                f" WHERE state = '{QUEUED}' ORDER BY number"
            )
            return [QueuedJob(*row) for row in queued]

    def read(self, job_id: str) -> Job | None:
        """Return a job with its reply."""
        with self._database.view() as rows:
            row = rows.execute(f"SELECT {COLUMNS}, {REPLY} FROM job WHERE id = ?", (job_id,)).fetchone()
        return job_of(row) if row else None

    def id_of(self, jid: str, owner: str, *, of_all: bool) -> str | None:
        """Return the id of *owner*'s job of that jid; *of_all*: or of the last of another's."""
        with self._database.view() as rows:
            found = rows.execute(
                "SELECT id FROM job WHERE jid = ? AND (owner = ? OR ?) ORDER BY owner = ? DESC, number DESC",
                (jid, owner, of_all, owner),
            ).fetchone()
        return str(found[0]) if found else None

    def latest(self, limit: int, owner: str | None, prefix: str = "") -> list[Job]:
        """Return jobs for keys that begin with *prefix*, without their replies, the last first: *owner*'s, or all."""
        known = self._known
        with self._database.view() as rows:
            # in one row: Python lets other threads go first before each
            [(found,)] = rows.execute(
                f"SELECT group_concat(name) FROM (SELECT {_NAME} AS name FROM job WHERE (owner = ? OR ? IS NULL)"
                f" AND substr({_PREFIX}, 1, length(?)) = ? ORDER BY number DESC LIMIT ?)",
                (owner, owner, prefix, prefix, limit),
            ).fetchall()
            names = found.split(",") if found else []
            numbers = ",".join(name.partition("/")[0] for name in names if name not in known)
            unknown = rows.execute(
                f"SELECT {_NAME}, {COLUMNS} FROM job WHERE number IN ({numbers})"
            ).fetchall()
        jobs = {name: job_of(row) for name, *row in FAIR_SHARE.in_turns(unknown)}
        listed = [jobs.get(name) or known[name] for name in names]
        self._know({name: job for name, job in zip(names, listed, strict=True) if job.state != RUNNING})
        return listed

    def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state."""
        with self._database.view() as rows:
            found = rows.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall()
        return dict.fromkeys(STATES, 0) | {state: count for state, count in found if state in STATES}

    def begin(self, job_id: str, now: float) -> tuple[Job, Order]:
        """Note that a queued job runs; return it.

        Raise `UnknownJobError` if it is there no more, `PfstorageError` if it is damaged.
        """
        with self._change() as rows:
            rows.execute("UPDATE job SET state = ?, started = ? WHERE id = ?", (RUNNING, now, job_id))
            found = rows.execute(f"SELECT {ORDER} FROM job WHERE id = ?", (job_id,)).fetchone()
            job = rows.execute(f"SELECT {COLUMNS} FROM job WHERE id = ?", (job_id,)).fetchone()
        if not found:  # only what is over is removed; but the file is there for others, too
            raise UnknownJobError(f"the job {job_id} is no longer in the file of the jobs", job=job_id)
        return job_of(job), read_order(found)

    def note_progress(self, job_id: str, progress: Mapping[str, Any]) -> None:
        self._set(job_id, progress=json.dumps(progress))

    def note_unwanted(self, job_id: str) -> None:
        """See that a running job is not resumed."""
        self._set(job_id, is_abandoned=1)

    def park(self, job_id: str) -> None:
        """Queue a running job again."""
        self._set(job_id, state=QUEUED, started=None)

    def finish(  # one argument for each thing to note
        self,
        job_id: str,
        state: str,
        now: float,
        progress: Mapping[str, Any],
        reply: Packed | None = None,
        reason: str = "",
    ) -> None:
        """Note how a job has ended, and why, how far it came, and its reply."""
        data = reply.data if reply else None
        with self._change() as rows:
            rows.execute(
                "UPDATE job SET state = ?, finished = ?, progress = ?, reply = ?, reason = ?,"
                " size = coalesce(length(message), 0) + ? WHERE id = ?",
                (state, now, json.dumps(progress), data, reason[:MOST_REASON], len(data or b""), job_id),
            )

    def remove_finished(self, before: float, most: int, bytes_of_one: int, bytes_of_all: int) -> int:
        """Remove the jobs that ended *before* that time, and of the others those beyond the bounds.

        The bounds are *most* jobs of all owners, *bytes_of_one* owner and *bytes_of_all*. The owners who have the most
        lose their oldest jobs first. Return the number of jobs removed.
        """
        is_over = f"state IN {OVER}"
        of_one = "(PARTITION BY owner ORDER BY finished DESC, number DESC)"
        placed = (
            f"SELECT number, size, sum(size) OVER {of_one} AS bytes, row_number() OVER {of_one} AS place"
            f" FROM job WHERE {is_over}"
        )
        filled = (
            "SELECT number, place, bytes, row_number() OVER (ORDER BY place, number DESC) AS count,"
            f" sum(size) OVER (ORDER BY bytes, number DESC) AS all_bytes FROM ({placed})"
        )
        with self._change() as rows:
            old = rows.execute(f"DELETE FROM job WHERE {is_over} AND finished <= ?", (before,))
            surplus = rows.execute(
                f"DELETE FROM job WHERE number IN (SELECT number FROM ({filled})"
                " WHERE count > ? OR (place > 1 AND (bytes > ? OR all_bytes > ?)))",
                (most, bytes_of_one, bytes_of_all),
            )
            return old.rowcount + surplus.rowcount

    def empty_log(self) -> bool:
        """Remove deleted rows from SQLite's log, too. Return False if another reader prevents that now."""
        return self._database.empty_log()

    def _know(self, jobs: Mapping[str, Job]) -> None:
        """Keep *jobs* for the next list: they do not change as long as their state is the same."""
        known = {**self._known, **jobs}
        self._known = known if len(known) <= 2 * MOST_LISTED else dict(jobs)

    def _set(self, job_id: str, **values: object) -> None:
        assignments = ", ".join(f"{name} = ?" for name in values)
        with self._change() as rows:
            rows.execute(f"UPDATE job SET {assignments} WHERE id = ?", (*values.values(), job_id))

    def _change(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        if self._directory:
            self._directory.check()
        return self._database.change()


def _opened(directory: StateDirectory | None, repairs: bool) -> Database:
    """Open the file, and make failed jobs of rows that can't be read. Raise as `JobStore` does."""
    path = directory.path if directory else ""
    try:
        return _mended(path)
    except StateFileError as e:
        if not tells_damage(e.__cause__):
            raise
        if not (directory and repairs):
            raise SettingsError(str(e)) from e
        aside = directory.set_aside()
        log.warning("%s: it is kept as %r, and the jobs begin anew", e.__cause__, aside)
        return _mended(path)


def _mended(path: str) -> Database:
    with contextlib.ExitStack() as opening:
        database = Database(path)
        opening.callback(database.close)
        with database.change() as rows:
            if count := mending.mend(rows):
                log.warning("jobs whose rows were damaged, and which have failed: %d", count)
        opening.pop_all()
        return database


def _require_same(order: Order, message: Packed, row: tuple[Any, ...]) -> None:
    """Raise `JobConflictError` if the job in *row* is not the one that *order*, with *message*, would be."""
    try:
        there = read_order(row)
    except PfstorageError as e:
        raise JobConflictError(
            f"the jid {order.jid!r} is that of a job that can't be read: take another"
        ) from e
    if there.message != message.value:
        raise JobConflictError(f"the jid {order.jid!r} is that of a job with another message")
    if not order.origin.means_as(there.origin):
        raise JobConflictError(
            f"the jid {order.jid!r} is that of a job for another store or --fsRoot: take another jid"
        )
