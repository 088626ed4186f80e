"""The page at / in a real browser, over the real Swift or over a storage that waits for the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from pfstorage.backends import Storage
from tests.support.held import Held
from tests.support.objects import put
from tests.support.page import OBJECTS, Page, opened


@pytest.fixture
def page(swift_storage: Storage, chromium: webdriver.Chrome, tmp_path: Path) -> Iterator[Page]:
    """The page of a server with tokens and some objects, over the real Swift."""
    for key, content in OBJECTS.items():
        put(swift_storage, key, content)
    with opened(swift_storage, chromium, tmp_path) as page:
        yield page


@pytest.fixture
def held(chromium: webdriver.Chrome, tmp_path: Path) -> Iterator[tuple[Held, Page]]:
    """The page of a server whose objects come when they are released."""
    storage = Held()
    for number in range(3):
        put(storage, f"x/{number}", b"12345")
    with opened(storage, chromium, tmp_path) as page:
        yield storage, page
        storage.release.set()
