"""Large messages over HTTP."""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Iterator
from typing import Any

import pytest

from pfstorage import StoreHandler
from pfstorage.backends import ObjectInfo
from pfstorage.backends.memory import MemoryStorage
from pfstorage.server.http1.body import MAX_MESSAGE
from pfstorage.settings.model import Settings
from tests.conftest import ask, serving
from tests.support.exchange import message


def held() -> int:
    """Return how many lists of the odd length of `JUNK` there are."""
    return sum(type(each) is list and len(each) == len(JUNK) for each in gc.get_objects())


JUNK = tuple(range(4321))


@pytest.mark.parametrize(
    ("action", "meta"), [("ls", {}), ("objVerify", {}), ("objPull", {"mapLocationOver": "x"})]
)
def test_unneeded_parts_of_a_message_are_freed_before_the_answer(action: str, meta: dict[str, Any]) -> None:
    found = []

    class Looking(MemoryStorage):
        def list(self, *_: Any, **__: Any) -> Iterator[ObjectInfo]:
            found.append(held())
            return iter(())

    text = json.dumps({"action": action, "meta": {**meta, "junk": JUNK}})
    with contextlib.closing(StoreHandler(Looking(Settings(type="memory")))) as handler:
        handler.answer(text)
        with serving(handler) as server:
            ask(server, text)
    assert found
    assert not any(found)


def test_answered_large_messages_hold_no_permit() -> None:
    junk = "x" * (MAX_MESSAGE - 1000)
    with (
        contextlib.closing(StoreHandler(MemoryStorage(Settings(type="memory")))) as handler,
        serving(handler) as server,
    ):
        for content in (
            message("hello", askAbout="timestamp", junk=junk),
            message("ls", junk=junk),
            message("fly", junk=junk),
            "{" + junk,
            f"action=hello&meta[junk]={junk}",
        ):
            ask(server, content)
        load = server.load
        assert all(
            admission.counts()["busy"] == 0 for admission in (load.decoding, load.requests, load.transfers)
        )
