"""The SQLite file of the jobs: open it, upgrade its schema, and run transactions with many readers and one writer."""

from __future__ import annotations

import contextlib
import queue
import sqlite3
from collections.abc import Callable, Iterator

from pfstorage.errors import FullDiskError, PfstorageError, StateFileError, StoppedError
from pfstorage.jobs.origin import Origin

VERSION = 3
# The long columns come last, since SQLite reads a row from its beginning. The only constraints are those that keep
# jobs apart: an older file may have rows that others would refuse. Such rows become failed jobs.
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
CREATE = f"""
    BEGIN IMMEDIATE;
    {SCHEMA.format(name="job")}
    CREATE INDEX job_by_state ON job (state, finished);
    CREATE INDEX job_by_jid ON job (jid);
    PRAGMA user_version = {VERSION};
    COMMIT;
"""
_COPIED_COLUMNS = (
    "number, id, owner, jid, state, is_unwanted, created, started, finished, progress, rights, message, reply"
)
UPGRADE = f"""
    BEGIN IMMEDIATE;
    {SCHEMA.format(name="new_job")}
    INSERT INTO new_job ({_COPIED_COLUMNS}, origin) SELECT {_COPIED_COLUMNS}, $origin FROM job;
    DROP TABLE job;
    ALTER TABLE new_job RENAME TO job;
    CREATE INDEX job_by_state ON job (state, finished);
    CREATE INDEX job_by_jid ON job (jid);
    PRAGMA user_version = {VERSION};
    COMMIT;
"""
# The SQL expression for the origin of a job, by the version of the file. Version 1 (pfstorage 3.0.0) has no origin.
ORIGIN_BY_VERSION = {1: f"'{Origin().to_json()}'", 2: "origin"}

# How long a write waits for another program that has locked the file, such as a backup.
BUSY_MILLISECONDS = 5000
# Connections for reading. Each read is short, so that no client waits long for another.
READERS = 4
# The memory of each connection for pages of the file.
CACHE_KIB = 512

# Words of SQLite's errors about the system. All other errors are about the content of the file.
_PASSING = ("locked", "locking", "busy", "disk i/o", "unable to open", "full", "readonly", "out of memory")
_FAILED = "the jobs can't be read or written"
# Beginnings of lines of ``PRAGMA integrity_check`` about values in a row. These damage a job, and not the file.
_ROW_PROBLEMS = ("NULL value in ", "CHECK constraint failed in ")


class Database:
    """Transactions on the SQLite file *path*, or on a temporary file if *path* is "".

    Any thread may call a method. A method raises `StateFileError` or `FullDiskError` if SQLite fails.
    """

    def __init__(self, path: str, readers: int = READERS) -> None:
        """Open the file. Make its table, or upgrade it from an older version."""
        self._busy_milliseconds = BUSY_MILLISECONDS
        self._damage: sqlite3.Error | None = None
        with contextlib.ExitStack() as opening:
            with _mapped_errors(f"{path!r} can't be used"):
                writer = opening.enter_context(contextlib.closing(_connect(path)))
                _prepare(writer)
            self._writer = _ConnectionPool([writer])
            self._readers = self._writer  # a temporary file has one connection
            if path:
                with _mapped_errors(f"{path!r} can't be used"):
                    connections = [
                        opening.enter_context(contextlib.closing(_connect(path))) for _ in range(readers)
                    ]
                self._readers = _ConnectionPool(connections)
            self._open = opening.pop_all()

    def close(self) -> None:
        """Wait for the end of all transactions, and close the file."""
        self._readers.drain()
        if self._writer is not self._readers:
            self._writer.drain()
        self._open.close()

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction: write all of its changes, or none.

        After SQLite has found the file damaged, raise the same error at once.
        """
        if self._damage:
            raise _map_error(self._damage, _FAILED)
        with self._writer.borrow() as connection:
            with self._transaction(connection, "BEGIN IMMEDIATE"):
                yield connection
            self._set_busy_timeout(connection, BUSY_MILLISECONDS)

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Read one consistent state of the file in the block, also while another thread or program writes."""
        with self._readers.borrow() as connection, self._transaction(connection, "BEGIN"):
            yield connection

    def truncate_log(self) -> bool:
        """Empty SQLite's write-ahead log, which still contains removed rows. Return whether it is empty now.

        Another program or thread that reads the file prevents that.
        """
        with self._writer.borrow() as connection, _mapped_errors("the log of the jobs can't be emptied"):
            self._set_busy_timeout(connection, 0)
            [(is_busy, *_)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._set_busy_timeout(connection, BUSY_MILLISECONDS)
        return not is_busy

    @contextlib.contextmanager
    def _transaction(self, connection: sqlite3.Connection, begin: str) -> Iterator[None]:
        def note(error: sqlite3.Error) -> None:
            if "locked" in str(error) and begin != "BEGIN":
                # one write has waited without success: the next ones fail at once, until one succeeds
                self._set_busy_timeout(connection, 0)
            if "malformed" in str(error):  # SQLite would still write to pages in its memory
                self._damage = error

        with _mapped_errors(_FAILED, note), connection:
            connection.execute(begin)
            yield

    def _set_busy_timeout(self, connection: sqlite3.Connection, milliseconds: int) -> None:
        if milliseconds != self._busy_milliseconds:
            connection.execute(f"PRAGMA busy_timeout = {milliseconds}")
            self._busy_milliseconds = milliseconds


class _ConnectionPool:
    """A pool that lends each of *connections* to one thread at a time."""

    def __init__(self, connections: list[sqlite3.Connection]) -> None:
        self._count = len(connections)
        self._free: queue.LifoQueue[sqlite3.Connection | None] = queue.LifoQueue()
        for each in connections:
            self._free.put(each)

    @contextlib.contextmanager
    def borrow(self) -> Iterator[sqlite3.Connection]:
        connection = self._free.get()
        try:
            if connection is None:
                raise StoppedError("the server ends: its jobs go on when it is there again")
            yield connection
        finally:
            self._free.put(connection)

    def drain(self) -> None:
        """Wait for all connections, and lend no more."""
        for _ in range(self._count):
            self._free.get()
        self._free.put(None)


def _ignore(_: sqlite3.Error) -> None:
    pass


@contextlib.contextmanager
def _mapped_errors(text: str, note: Callable[[sqlite3.Error], None] = _ignore) -> Iterator[None]:
    """Turn an error of SQLite into one of `errors`, whose text begins with *text*. Call *note* with it first."""
    try:
        yield
    except sqlite3.Error as e:
        note(e)
        raise _map_error(e, text) from e


def _map_error(error: sqlite3.Error, text: str) -> PfstorageError:
    if is_damage(error):
        return StateFileError(
            f"{text}: {error}; put a copy of the file back, or start the server with --repairState"
        )
    kind = FullDiskError if "full" in str(error) else StateFileError
    return kind(f"{text}: {error}; see the directory of --stateDir, and its disk")


def is_damage(error: BaseException | None) -> bool:
    """Return whether *error* is about the content of the file. Such an error would occur again at the next start."""
    is_passing = isinstance(error, sqlite3.OperationalError) and any(
        word in str(error).lower() for word in _PASSING
    )
    return isinstance(error, sqlite3.Error) and not is_passing


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.text_factory = _decode
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute("PRAGMA secure_delete = ON")  # removed rows may name patients
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # this makes the write-ahead log
    except BaseException:
        connection.close()
        raise
    return connection


def _decode(raw: bytes) -> str:
    return raw.decode(errors="replace")  # a row with invalid UTF-8 must not prevent a list of the others


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the table, or upgrade it from an older version. Raise `sqlite3.Error` if the file is damaged."""
    problems = [text for (text,) in connection.execute("PRAGMA integrity_check(1000)") if text != "ok"]
    for problem in problems:
        if not str(problem).startswith(_ROW_PROBLEMS):
            raise sqlite3.DatabaseError(" ".join(str(problem).split()))
    [version] = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(CREATE)
    elif version in ORIGIN_BY_VERSION:
        connection.executescript(UPGRADE.replace("$origin", ORIGIN_BY_VERSION[version]))
    elif version != VERSION:
        raise sqlite3.DatabaseError("it was written by another version of pfstorage, or is damaged")
    connection.execute(f"SELECT {_COPIED_COLUMNS}, action, reason, size, length, origin FROM job LIMIT 0")
