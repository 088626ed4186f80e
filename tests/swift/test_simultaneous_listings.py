"""Listings that several callers ask for at once."""

from __future__ import annotations

import io
import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from tests.conftest import swift_options
from tests.support.wire import wire_to

WORKERS, ROUNDS = 8, 10


@pytest.mark.parametrize("by_messages", [False, True])
def test_a_listing_shows_the_caller_their_own_objects_for_any_number_of_callers(
    swift: DevSwift, by_messages: bool
) -> None:
    listings = itertools.count()

    def counted(data: bytes) -> bytes:
        if b"format=json" in data:
            next(listings)
        return data

    def listed(storage: Storage) -> list[str]:
        if not by_messages:
            return [info.key for info in storage.list("listed/")]
        reply = StoreHandler(storage).run({"action": "ls", "meta": {"path": "listed/"}})
        return [row["name"] for row in reply["ls"]]

    def work(storage: Storage, who: int) -> None:
        for number in range(ROUNDS):
            key = f"listed/{who} {number}"
            storage.put(key, io.BytesIO(b"x"), 1)
            assert key in listed(storage)

    with wire_to(swift.port) as wire, ThreadPoolExecutor(WORKERS) as pool:
        wire.to_server = counted
        url = f"http://127.0.0.1:{wire.port}/v1/AUTH_chris"
        with open_storage(**swift_options(swift), os_options={"object_storage_url": url}) as storage:
            storage.put("listed/first", io.BytesIO(b"x"), 1)
            for worked in [pool.submit(work, storage, who) for who in range(WORKERS)]:
                worked.result(60)
    assert 0 < next(listings) < WORKERS * ROUNDS
