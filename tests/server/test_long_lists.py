"""Messages with long lists, over HTTP."""

from __future__ import annotations

import contextlib
import json

from pfstorage import StoreHandler
from pfstorage.server.http1.body import MAX_MESSAGE
from pfstorage.settings.model import Settings
from tests.conftest import ask, serving


def test_forty_of_the_largest_listings_of_one_field_are_refused() -> None:
    content = json.dumps({"action": "ls", "meta": {"retSpec": ["name"] * 100_000}}).replace(" ", "")
    assert len(content) < MAX_MESSAGE
    with (
        contextlib.closing(StoreHandler(settings=Settings(type="memory"))) as handler,
        serving(handler) as server,
    ):
        assert {ask(server, content)[0] for _ in range(40)} == {400}
