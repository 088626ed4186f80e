"""The SQLite file of the jobs: how it is opened, brought to its present form, read by many and written by one."""

from __future__ import annotations

import contextlib
import queue
import sqlite3
from collections.abc import Callable, Iterator

from pfstorage.errors import FullDiskError, PfstorageError, StateFileError, StoppedError
from pfstorage.jobs.origin import Origin

VERSION = 3
SCHEMA = """
    CREATE TABLE {name} (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT UNIQUE,
        owner TEXT,
        jid TEXT,
        state TEXT,
        is_unwanted INTEGER DEFAULT 0,
        created REAL,
        started REAL,
        finished REAL,
        action TEXT,
        reason TEXT,
        size INTEGER DEFAULT 0,
        length INTEGER DEFAULT 0,
        progress TEXT DEFAULT '{{}}',
        rights TEXT,
        origin TEXT,
        message BLOB,
        reply BLOB,
        UNIQUE (owner, jid)
    );
"""
"""The long columns are the last ones, since SQLite reads a row from its beginning.

The only constraints are those that keep jobs apart. An older file may have rows that others would refuse: they become
failed jobs instead.
"""
CREATE = f"""
    BEGIN IMMEDIATE;
    {SCHEMA.format(name="job")}
    CREATE INDEX job_by_state ON job (state, finished);
    CREATE INDEX job_by_jid ON job (jid);
    PRAGMA user_version = {VERSION};
    COMMIT;
"""
_KEPT = (
    "number, id, owner, jid, state, is_unwanted, created, started, finished, progress, rights, message, reply"
)
UPGRADE = f"""
    BEGIN IMMEDIATE;
    {SCHEMA.format(name="new_job")}
    INSERT INTO new_job ({_KEPT}, origin) SELECT {_KEPT}, $origin FROM job;
    DROP TABLE job;
    ALTER TABLE new_job RENAME TO job;
    CREATE INDEX job_by_state ON job (state, finished);
    CREATE INDEX job_by_jid ON job (jid);
    PRAGMA user_version = {VERSION};
    COMMIT;
"""
ORIGIN_BY_VERSION = {1: f"'{Origin().to_json()}'", 2: "origin"}
"""Where the origin of a job comes from, by the version of the file: version 1, of 3.0.0, has none."""

BUSY_MILLISECONDS = 5000
"""How long another program, such as a backup, may keep others from writing to the file, before a write fails."""
READERS = 4
"""Connections that read, each for a moment, so that no client waits for another one."""
CACHE_KIB = 512
"""The memory that each connection uses for pages of the file."""

_PASSING = ("locked", "locking", "busy", "disk i/o", "unable to open", "full", "readonly", "out of memory")
"""Words of SQLite's errors about the system. All other errors are about the content of the file."""
_FAILED = "the jobs can't be read or written"
_ROW_PROBLEMS = ("NULL value in ", "CHECK constraint failed in ")
"""Beginnings of lines of ``PRAGMA integrity_check`` about values in a row. These damage a job, and not the file."""


class Database:
    """The file *path*, or one without a name that ends with the process; any thread may call a method.

    What fails is a `StateFileError` or `FullDiskError`.
    """

    def __init__(self, path: str, readers: int = READERS) -> None:
        """Open it, and make the table if there is none."""
        self._busy_milliseconds = BUSY_MILLISECONDS
        self._damage: sqlite3.Error | None = None
        with contextlib.ExitStack() as opening:
            with _errors_of_file(f"{path!r} can't be used"):
                writer = opening.enter_context(contextlib.closing(_connected(path)))
                _prepare(writer)
            self._writer = _Pool([writer])
            # a file without a name has one connection
            self._readers = self._writer
            if path:
                with _errors_of_file(f"{path!r} can't be used"):
                    rows = [
                        opening.enter_context(contextlib.closing(_connected(path))) for _ in range(readers)
                    ]
                self._readers = _Pool(rows)
            self._open = opening.pop_all()

    def close(self) -> None:
        """Wait until nobody uses it, and close it."""
        self._readers.drain()
        if self._writer is not self._readers:
            self._writer.drain()
        self._open.close()

    @contextlib.contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """Do all in the block, or nothing of it. Refuse that once the file has turned out to be damaged."""
        if self._damage:
            raise _error_of(self._damage, _FAILED)
        with self._writer.one() as rows:
            with self._transaction(rows, "BEGIN IMMEDIATE"):
                yield rows
            self._wait_for_others(rows, BUSY_MILLISECONDS)

    @contextlib.contextmanager
    def view(self) -> Iterator[sqlite3.Connection]:
        """Read in the block what was at one moment, also while another thread or program writes."""
        with self._readers.one() as rows, self._transaction(rows, "BEGIN"):
            yield rows

    def empty_log(self) -> bool:
        """Have the log of SQLite's writes go, which still has what was removed; tell whether it has gone.

        It has not where another program, or a thread, reads it.
        """
        with self._writer.one() as rows, _errors_of_file("the log of the jobs can't be emptied"):
            self._wait_for_others(rows, 0)
            [(is_busy, *_)] = rows.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._wait_for_others(rows, BUSY_MILLISECONDS)
        return not is_busy

    @contextlib.contextmanager
    def _transaction(self, rows: sqlite3.Connection, begin: str) -> Iterator[None]:
        def note(error: sqlite3.Error) -> None:
            if "locked" in str(error) and begin != "BEGIN":
                self._wait_for_others(rows, 0)  # all wait for who waits: those who come next are told at once
            if "malformed" in str(error):  # SQLite would still write to pages that it has in memory
                self._damage = error

        with _errors_of_file(_FAILED, note), rows:
            rows.execute(begin)
            yield

    def _wait_for_others(self, rows: sqlite3.Connection, milliseconds: int) -> None:
        if milliseconds != self._busy_milliseconds:
            rows.execute(f"PRAGMA busy_timeout = {milliseconds}")
            self._busy_milliseconds = milliseconds


class _Pool:
    """Connections, each lent to one thread at a time."""

    def __init__(self, connections: list[sqlite3.Connection]) -> None:
        self._count = len(connections)
        self._free: queue.LifoQueue[sqlite3.Connection | None] = queue.LifoQueue()
        for each in connections:
            self._free.put(each)

    @contextlib.contextmanager
    def one(self) -> Iterator[sqlite3.Connection]:
        rows = self._free.get()
        try:
            if rows is None:
                raise StoppedError("the server ends: its jobs go on when it is there again")
            yield rows
        finally:
            self._free.put(rows)

    def drain(self) -> None:
        """Take all of them back, and give out no more."""
        for _ in range(self._count):
            self._free.get()
        self._free.put(None)


def _nothing(_: sqlite3.Error) -> None:
    pass


@contextlib.contextmanager
def _errors_of_file(text: str, note: Callable[[sqlite3.Error], None] = _nothing) -> Iterator[None]:
    """Turn what SQLite raises into ours, after *text*; *note* is told of it before."""
    try:
        yield
    except sqlite3.Error as e:
        note(e)
        raise _error_of(e, text) from e


def _error_of(error: sqlite3.Error, text: str) -> PfstorageError:
    if tells_damage(error):
        return StateFileError(
            f"{text}: {error}; put a copy of the file back, or start the server with --repairState"
        )
    return (FullDiskError if "full" in str(error) else StateFileError)(f"{text}: {error}")


def tells_damage(error: BaseException | None) -> bool:
    """Tell whether *error* is about what is in the file, and so would be the same at the next start."""
    is_passing = isinstance(error, sqlite3.OperationalError) and any(
        word in str(error).lower() for word in _PASSING
    )
    return isinstance(error, sqlite3.Error) and not is_passing


def _connected(path: str) -> sqlite3.Connection:
    rows = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        rows.text_factory = _decoded
        rows.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        rows.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        rows.execute("PRAGMA secure_delete = ON")  # what is removed is gone: it may name patients
        rows.execute("PRAGMA journal_mode = WAL")
        rows.execute(
            "SELECT count(*) FROM sqlite_master"
        ).fetchone()  # its log is there from the first look on
    except BaseException:
        rows.close()
        raise
    return rows


def _decoded(raw: bytes) -> str:
    return raw.decode(errors="replace")  # a row that is no UTF-8 is damaged, and hides no other


def _prepare(rows: sqlite3.Connection) -> None:
    """Make the table, or bring it to the present form; raise what is wrong with the file."""
    problems = [text for (text,) in rows.execute("PRAGMA integrity_check(1000)") if text != "ok"]
    for problem in problems:
        if not str(problem).startswith(_ROW_PROBLEMS):
            raise sqlite3.DatabaseError(" ".join(str(problem).split()))
    [version] = rows.execute("PRAGMA user_version").fetchone()
    if version == 0:
        rows.executescript(CREATE)
    elif version in ORIGIN_BY_VERSION:
        rows.executescript(UPGRADE.replace("$origin", ORIGIN_BY_VERSION[version]))
    elif version != VERSION:
        raise sqlite3.DatabaseError("it was written by another version of pfstorage, or is damaged")
    rows.execute(f"SELECT {_KEPT}, action, reason, size, length, origin FROM job LIMIT 0")
