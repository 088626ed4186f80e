"""The state over HTTP."""

from __future__ import annotations

from pfstorage import StoreHandler, open_storage
from tests.conftest import ask, serving


def test_a_path_that_is_too_deep_is_a_bad_request_and_nothing_else_fails_then() -> None:
    with open_storage(type="memory") as storage, serving(StoreHandler(storage)) as server:
        for meta in ({"set": "x"}, {"get": "value"}):
            status, reply = ask(
                server, {"action": "internalctl", "meta": {"var": "/scratch" * 20_000, **meta}}
            )
            assert (status, reply["error"]["type"]) in ((400, "SettingsError"), (403, "ForbiddenError"))
            assert len(str(reply)) < 500
        status, reply = ask(server, {"action": "internalctl", "meta": {"var": "/", "get": "value"}})
        assert (status, "scratch" in str(reply)) == (200, False)
