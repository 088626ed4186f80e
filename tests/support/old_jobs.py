"""The file of jobs: its contents, and the tables of earlier versions."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from pathlib import Path

_STATES = "('queued', 'running', 'done', 'failed', 'cancelled')"


def old_schema(version: int) -> str:
    """Return the SQL with which an older version created its table: 1 is that of 3.0.0."""
    origin = "origin TEXT NOT NULL," if version == 2 else ""
    return f"""
        CREATE TABLE job (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            owner TEXT NOT NULL,
            jid TEXT,
            rights TEXT NOT NULL,
            message TEXT NOT NULL,
            {origin}
            state TEXT NOT NULL CHECK (state IN {_STATES}),
            is_unwanted INTEGER NOT NULL DEFAULT 0,
            created REAL NOT NULL,
            started REAL,
            finished REAL,
            progress TEXT NOT NULL DEFAULT '{{}}',
            reply TEXT,
            UNIQUE (owner, jid)
        );
        CREATE INDEX job_by_state ON job (state, finished);
        PRAGMA user_version = {version};
    """


def unpacked(path: Path) -> bytes:
    """Return the bytes of a file, and for a database of jobs also its decompressed messages and replies."""
    content = path.read_bytes()
    if path.name != "jobs.sqlite":
        return content
    with contextlib.closing(sqlite3.connect(path)) as rows:
        found = rows.execute("SELECT message, reply FROM job").fetchall()
    return content + b"".join(zlib.decompress(each) for row in found for each in row if each is not None)
