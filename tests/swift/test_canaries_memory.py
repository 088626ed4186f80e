"""No ``repr`` and no traceback shows a secret."""

from __future__ import annotations

import contextlib
import http.client
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.devswift import DevSwift
from pfstorage.errors import PfstorageError, UnauthorizedError
from pfstorage.server.access import Access
from pfstorage.server.options import ServerOptions
from pfstorage.server.tokens import TokenFile
from pfstorage.settings.loading import load_settings
from tests.conftest import ROOT
from tests.support.canaries import PATIENT, SECRETS, Keeper, found_in, login_url, write_tokens


def traceback_with_locals(error: BaseException | None) -> Iterator[str]:
    """Yield the lines of a traceback with local variables: those of pfstorage's functions, and each error."""
    while error is not None:
        yield repr(error)
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename.startswith(str(ROOT / "pfstorage")):
                yield from (
                    f"{frame.f_code.co_name}: {name}={each!r}" for name, each in frame.f_locals.items()
                )
        error = error.__cause__ or error.__context__


def test_no_repr_and_no_traceback_with_its_values_shows_a_secret(swift: DevSwift) -> None:
    with contextlib.closing(Keeper(swift.port)) as keeper:
        document = {
            "this": {"httpProxy": f"me:{SECRETS['the password of a proxy']}@127.0.0.1:9", "retries": 0},
            "swift": {
                "key": SECRETS["the Swift key"],
                "auth_url": login_url(keeper.port),
                "os_options": {"auth_token": SECRETS["an option in the configuration"]},
            },
        }
        settings, _ = load_settings(document)
        handler = StoreHandler(settings=settings)
        shown = [repr(each) for each in (settings, settings.swift, handler, handler.state, handler.storage)]
        shown += [repr(vars(handler.storage)), str(settings), f"{settings.swift}"]
        for key in ("the Swift key", "a Swift key that was not allowed"):
            swiftly = {"key": SECRETS[key], "auth_url": login_url(keeper.port), "container_name": "none"}
            with open_storage(type="swift", retries=0, **swiftly) as storage:
                for act in (
                    lambda storage=storage: storage.head(PATIENT),
                    lambda storage=storage: list(storage.list("")),
                ):
                    with pytest.raises(PfstorageError) as caught:
                        act()
                    shown += traceback_with_locals(caught.value)
        with contextlib.closing(handler), pytest.raises(PfstorageError) as caught:
            list(handler.storage.list(""))
        shown += traceback_with_locals(caught.value)
        given = keeper.given
    secrets = {**SECRETS, **{f"what Swift gave, {n}": each for n, each in enumerate(given)}}
    assert given
    assert [text for text in shown if found_in(text.encode(), secrets)] == []


@pytest.mark.parametrize("ini", [True, False])
def test_no_repr_of_the_tokens_shows_one(tmp_path: Path, ini: bool) -> None:
    path = write_tokens(tmp_path / ("tokens.cfg" if ini else "tokens"), ini=ini)
    file = TokenFile(str(path))
    options = ServerOptions(token_path=str(path))
    access = Access(options, "127.0.0.1")
    good = file.grant(f"Bearer {SECRETS['the token for all']}")
    shown = [repr(each) for each in (file, good, options, access, access.tokens)]
    headers = http.client.HTTPMessage()
    headers["Authorization"] = f"Bearer {SECRETS['a token with a slip']}"
    with pytest.raises(UnauthorizedError) as caught:
        access.grant(headers)
    shown += traceback_with_locals(caught.value)
    assert [text for text in shown if found_in(text.encode(), SECRETS)] == []
