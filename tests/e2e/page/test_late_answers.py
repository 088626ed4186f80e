"""The page at /: answers of the store that come late."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from pfstorage import Settings
from pfstorage.backends import ObjectInfo
from pfstorage.backends.memory import MemoryStorage
from tests.support.objects import get, put
from tests.support.page import SOON, opened


class Late(MemoryStorage):
    """A store that does not list ``hidden``, as if it were created a moment later, and delays one folder."""

    def __init__(self) -> None:
        super().__init__(Settings(type="memory"))
        self.held, self.release = "?", threading.Event()

    def list(self, prefix: str = "", **more: Any) -> Iterator[ObjectInfo]:
        if prefix == self.held:
            self.release.wait(SOON)
        return iter(()) if prefix == "hidden" else super().list(prefix, **more)


def test_an_object_that_appears_meanwhile_is_not_replaced_unasked(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    storage = Late()
    put(storage, "hidden", b"theirs")
    with opened(storage, chromium, tmp_path) as page:
        page.open()
        page.drop("hidden", "mine")
        page.until(lambda: page.by_id("replace-dialog").get_attribute("open"))
        page.press(Keys.ENTER)  # which is "Keep it"
        page.until(lambda: page.transfers() == ["not replaced"])
        assert get(storage, "hidden") == b"theirs"


def test_a_folder_that_comes_late_is_not_shown_in_another(chromium: webdriver.Chrome, tmp_path: Path) -> None:
    storage = Late()
    for key in ("slow/a", "quick/b"):
        put(storage, key, b"")
    storage.held = "slow/"
    with opened(storage, chromium, tmp_path) as page:
        page.open("quick/")
        for prefix in ("slow", "quick"):
            page.browser.execute_script("location.hash = arguments[0]", f"#/{prefix}%2F")
            page.until(lambda prefix=prefix: prefix in page.text("crumbs"))  # type: ignore[misc]
        page.until(lambda: page.names() == ["b"])
        storage.release.set()
        time.sleep(0.3)
        assert page.names() == ["b"]
