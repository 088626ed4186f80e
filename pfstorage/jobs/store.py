"""The jobs as rows of an SQLite file, which one process at a time uses."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from pfstorage.errors import FullDiskError, JobConflictError, SettingsError, StateFileError, UnknownJobError
from pfstorage.jobs.directory import guarded
from pfstorage.jobs.job import CANCELLED, FAILED, OVER, QUEUED, RUNNING, STATES, Job, Order
from pfstorage.jobs.origin import Origin
from pfstorage.rights import Rights

VERSION = 2
SCHEMA = f"""
    CREATE TABLE job (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        jid TEXT,
        rights TEXT NOT NULL,
        message TEXT NOT NULL,
        origin TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN {STATES}),
        is_unwanted INTEGER NOT NULL DEFAULT 0,
        created REAL NOT NULL,
        started REAL,
        finished REAL,
        progress TEXT NOT NULL DEFAULT '{{}}',
        reply TEXT,
        UNIQUE (owner, jid)
    );
    CREATE INDEX job_by_state ON job (state, finished);
    PRAGMA user_version = {VERSION};
"""
UPGRADE = f"""
    ALTER TABLE job ADD COLUMN origin TEXT NOT NULL DEFAULT '{Origin().to_json()}';
    PRAGMA user_version = {VERSION};
"""
REASON = f"CASE WHEN state IN {(FAILED, CANCELLED)} THEN json_extract(reply, '$.msg') END"
COLUMNS = f"id, owner, jid, rights, message, origin, state, created, started, finished, progress, {REASON}"
BUSY_MILLISECONDS = 5000
"""How long another program, such as a backup, may keep others from writing to the file, before a write fails."""


class JobStore:
    """Keeps jobs in ``jobs.sqlite`` of *directory*, or in memory for as long as the process lives.

    The directory is made for its owner alone, and so are its files: paths may name patients. Nothing else
    than `StateFileError` and `FullDiskError` is raised once it is open. One thread at a time may call a method.
    """

    def __init__(self, directory: str = "") -> None:
        """Open the file, and keep other processes from it.

        Raise `SettingsError`, or `StateFileError` for what may pass by itself.
        """
        self._open = contextlib.ExitStack()
        self._busy_milliseconds = BUSY_MILLISECONDS
        with contextlib.ExitStack() as opening:
            self._directory = opening.enter_context(guarded(directory)) if directory else None
            path = self._directory.path if self._directory else ":memory:"
            self._rows = opening.enter_context(_connected(path))
            if self._directory:
                self._directory.watch(f"{path}-wal")  # where SQLite keeps what was written last
            self._open = opening.pop_all()

    def close(self) -> None:
        """Let others have the file."""
        self._open.close()

    def add(self, order: Order, now: float) -> tuple[Job, bool]:
        """Keep *order* as a queued job; return it, and whether it is new.

        It isn't if its owner has a job of that jid. Raise `JobConflictError` if that is
        another message, or meant another store or other files.
        """
        message = _canonical(order.message)
        with self._change() as rows:
            there = (
                order.jid
                and rows.execute(
                    f"SELECT message, {COLUMNS} FROM job WHERE owner = ? AND jid = ?",
                    (order.owner, order.jid),
                ).fetchone()
            )
            if there:
                job = _job_of(there[1:])
                if there[0] != message:
                    raise JobConflictError(f"the jid {order.jid!r} is that of a job with another message")
                if not order.origin.means_as(job.order.origin):
                    raise JobConflictError(
                        f"the jid {order.jid!r} is that of a job for another store or --fsRoot: take another jid"
                    )
                return job, False
            job = Job(uuid.uuid4().hex, order, QUEUED, now)
            rights = json.dumps(dataclasses.asdict(order.rights))
            origin = order.origin.to_json()
            values = (job.id, order.owner, order.jid or None, rights, message, origin, QUEUED, now)
            rows.execute(
                "INSERT INTO job (id, owner, jid, rights, message, origin, state, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            return job, True

    def resume(self, now: float) -> dict[str, str]:
        """Queue again what was running when the process ended; return the owners of what is queued, the first first."""
        with self._change() as rows:
            rows.execute(
                f"UPDATE job SET state = '{CANCELLED}', finished = ? WHERE state = '{RUNNING}' AND is_unwanted",
                (now,),
            )
            rows.execute(f"UPDATE job SET state = '{QUEUED}', started = NULL WHERE state = '{RUNNING}'")
            queued = rows.execute(f"SELECT id, owner FROM job WHERE state = '{QUEUED}' ORDER BY number")
            return dict(queued.fetchall())

    def read(self, job_id: str) -> Job | None:
        """Return a job with its reply."""
        with self._view() as rows:
            row = rows.execute(f"SELECT {COLUMNS}, reply FROM job WHERE id = ?", (job_id,)).fetchone()
            return _job_of(row) if row else None

    def id_of(self, jid: str, owner: str, *, of_all: bool) -> str | None:
        """Return the id of *owner*'s job of that jid; *of_all*: or of the last of another's."""
        with self._view() as rows:
            found = rows.execute(
                "SELECT id FROM job WHERE jid = ? AND (owner = ? OR ?) ORDER BY owner = ? DESC, number DESC",
                (jid, owner, of_all, owner),
            ).fetchone()
            return str(found[0]) if found else None

    def latest(self, limit: int, owner: str | None, prefix: str = "") -> list[Job]:
        """Return jobs for keys that begin with *prefix*, without their replies, the last first: *owner*'s, or all."""
        with self._view() as rows:
            found = rows.execute(
                f"SELECT {COLUMNS} FROM job WHERE (owner = ? OR ? IS NULL)"
                " AND substr(json_extract(rights, '$.prefix'), 1, length(?)) = ? ORDER BY number DESC LIMIT ?",
                (owner, owner, prefix, prefix, limit),
            )
            return [_job_of(row) for row in found]

    def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state."""
        with self._view() as rows:
            return dict.fromkeys(STATES, 0) | dict(
                rows.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall()
            )

    def begin(self, job_id: str, now: float) -> Job:
        """Note that a queued job runs; return it."""
        self._set(job_id, state=RUNNING, started=now)
        job = self.read(job_id)
        if job is None:  # only what is over is removed; but the file is there for others, too
            raise UnknownJobError(f"the job {job_id} is no longer in the file of the jobs", job=job_id)
        return job

    def note_progress(self, job_id: str, progress: Mapping[str, Any]) -> None:
        self._set(job_id, progress=json.dumps(progress))

    def note_unwanted(self, job_id: str) -> None:
        """See that a running job is not resumed."""
        self._set(job_id, is_unwanted=1)

    def park(self, job_id: str) -> None:
        """Queue a running job again."""
        self._set(job_id, state=QUEUED, started=None)

    def finish(
        self, job_id: str, state: str, now: float, progress: Mapping[str, Any], reply: str | None = None
    ) -> None:
        """Note how a job has ended, how far it came, and its reply as JSON."""
        self._set(job_id, state=state, finished=now, progress=json.dumps(progress), reply=reply)

    def remove_finished(self, before: float, most: int) -> int:
        """Remove the jobs that ended *before* that time, and, of the others that ended, all but the last *most*.

        Return how many that were.
        """
        is_over = f"state IN {OVER}"
        with self._change() as rows:
            old = rows.execute(f"DELETE FROM job WHERE {is_over} AND finished <= ?", (before,))
            surplus = rows.execute(
                f"DELETE FROM job WHERE number IN (SELECT number FROM job WHERE {is_over}"
                " ORDER BY finished DESC LIMIT -1 OFFSET ?)",
                (most,),
            )
            count = old.rowcount + surplus.rowcount
        if count:
            self._empty_log()
        return count

    def _empty_log(self) -> None:
        """Have the log of SQLite's writes go, which still has what was removed, unless another program reads it."""
        try:
            self._wait_for_others(0)
            self._rows.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._wait_for_others(BUSY_MILLISECONDS)
        except sqlite3.Error as e:
            raise StateFileError(f"the log of the jobs can't be emptied: {e}") from e

    def _set(self, job_id: str, **values: object) -> None:
        assignments = ", ".join(f"{name} = ?" for name in values)
        with self._change() as rows:
            rows.execute(f"UPDATE job SET {assignments} WHERE id = ?", (*values.values(), job_id))

    def _change(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """Do all in the block, or nothing of it. Raise `StateFileError`, or `FullDiskError`."""
        if self._directory:
            self._directory.check()
        return self._transaction("BEGIN IMMEDIATE")

    def _view(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """Read in the block what was at one moment, also while another program writes. Raise `StateFileError`."""
        return self._transaction("BEGIN")

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        try:
            with self._rows:
                self._rows.execute(begin)
                yield self._rows
        except sqlite3.Error as e:
            if "locked" in str(e):
                self._wait_for_others(0)  # all wait for who waits: those who come next are told at once
            kind = FullDiskError if "full" in str(e) else StateFileError
            raise kind(f"the jobs can't be read or written: {e}") from e
        else:
            if begin != "BEGIN":
                self._wait_for_others(BUSY_MILLISECONDS)

    def _wait_for_others(self, milliseconds: int) -> None:
        if milliseconds != self._busy_milliseconds:
            self._rows.execute(f"PRAGMA busy_timeout = {milliseconds}")
            self._busy_milliseconds = milliseconds


@contextlib.contextmanager
def _connected(path: str) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as rows:
            rows.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
            rows.execute("PRAGMA journal_mode = WAL")
            rows.execute("PRAGMA secure_delete = ON")  # what is removed is gone: it may name patients
            [version] = rows.execute("PRAGMA user_version").fetchone()
            if version == 0:
                rows.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
            elif version == 1:  # of 3.0.0: its jobs mean what they mean here
                rows.executescript(f"BEGIN IMMEDIATE; {UPGRADE} COMMIT;")
            elif version != VERSION:
                raise SettingsError(f"{path!r} was written by another version of pfstorage: move it away")
            rows.execute("SELECT count(*) FROM job").fetchone()  # its log is there from the first look on
            yield rows
    except sqlite3.Error as e:
        # one that is about the system, and not about what is in the file, may pass
        kind = StateFileError if isinstance(e, sqlite3.OperationalError) else SettingsError
        raise kind(f"{path!r} can't be used: {e}") from e


def _canonical(message: Mapping[str, Any]) -> str:
    """Return *message* as a text that is the same for the same message."""
    return json.dumps(message, sort_keys=True)


def _job_of(row: tuple[Any, ...]) -> Job:
    job_id, owner, jid, rights, message, origin, state, *rest = row
    created, started, finished, progress, reason, *reply = rest
    try:
        order = Order(
            json.loads(message), owner, Rights(**json.loads(rights)), jid or "", Origin.from_json(origin)
        )
        answer = json.loads(reply[0]) if reply and reply[0] else None
        return Job(
            job_id, order, state, created, started, finished, json.loads(progress), answer, reason or ""
        )
    except (KeyError, TypeError, ValueError) as e:
        raise StateFileError(f"the file of the jobs is damaged: {job_id} can't be read") from e
