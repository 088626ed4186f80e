"""Replies over HTTP."""

from __future__ import annotations

import json

from pfstorage import StoreHandler
from pfstorage.errors import UnavailableError
from pfstorage.wire.reply import Reply
from tests.conftest import ask, serving
from tests.support.replies import LS, STREAMING, Shelf, written


def test_a_listing_that_breaks_off_has_no_rows_where_it_cannot_be_streamed() -> None:
    error = UnavailableError("the store went away")
    handler = StoreHandler(Shelf(3, error))
    assert handler.run(LS) == Reply.from_error(error).body
    with serving(handler) as server:
        assert ask(server, LS) == (503, Reply.from_error(error).body)
    assert len(json.loads(written(handler.answer(LS, STREAMING)))["ls"]) == 3
