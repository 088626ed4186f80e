"""Servers of a storage in memory for the tests of their operation."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.server.options import ServerOptions
from tests.conftest import running_server, serving
from tests.support.held import Held


@pytest.fixture
def server() -> Iterator[ThreadedHTTPServer]:
    with contextlib.closing(open_storage("memory")) as storage, serving(StoreHandler(storage)) as server:
        yield server


@pytest.fixture
def held() -> Iterator[tuple[Held, ThreadedHTTPServer]]:
    """A server that works on one request at a time, and moves one file."""
    storage = Held()
    storage.put("x/a", io.BytesIO(b"12345"), 5)
    options = ServerOptions(max_requests=1, max_workers=1)
    server = ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), options)
    with running_server(server):
        yield storage, server
        storage.release.set()
