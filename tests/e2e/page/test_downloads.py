"""The page at /: downloads."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from pfstorage import Settings, open_storage
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.contract import ByteRange, Sink
from pfstorage.backends.memory import MemoryStorage
from pfstorage.errors import UnavailableError
from pfstorage.server.options import ServerOptions
from tests.support.objects import put
from tests.support.page import OBJECTS, Page, arrived, downloaded, opened


def test_objects_are_downloaded(page: Page, swift_storage: Storage) -> None:
    large = random.Random(7).randbytes(5_000_000)
    put(swift_storage, "chris/large.bin", large)
    page.open("chris/")
    page.row("large.bin").click()
    page.until(lambda: page.transfers() == ["downloaded"])
    assert page.by_id("transfers-status").get_property("textContent") == "large.bin is downloaded."
    assert downloaded(page, "large.bin") == large
    page.row("a.dcm").click()
    assert downloaded(page, "a.dcm") == OBJECTS["chris/a.dcm"]
    assert page.complaints() == []


LARGE = random.Random(1).randbytes(1024**2) * 65
TO_A_CHOSEN_FILE = """
window.showSaveFilePicker = async ({ suggestedName }) => {
  const directory = await navigator.storage.getDirectory();
  return directory.getFileHandle(suggestedName, { create: true });
};
"""
DIGEST = """
const directory = await navigator.storage.getDirectory();
const file = await (await directory.getFileHandle(arguments[0])).getFile();
const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
"""


def test_a_large_object_is_written_straight_to_the_chosen_file(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    with open_storage("memory") as storage, opened(storage, chromium, tmp_path) as page:
        put(storage, "large.nii", LARGE)
        page.open()
        page.browser.execute_script(TO_A_CHOSEN_FILE)
        page.row("large.nii").click()
        page.until(lambda: page.transfers() == ["downloaded"])
        assert page.browser.execute_script(DIGEST, "large.nii") == hashlib.sha256(LARGE).hexdigest()
        assert page.complaints() == []


class Breaking(MemoryStorage):
    """A store whose objects break off, as long as it *is_broken*."""

    def __init__(self) -> None:
        super().__init__(Settings(type="memory"))
        self.is_broken = True

    def get(self, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
        if not self.is_broken:
            return super().get(key, sink, byte_range)
        sink.write(b"x" * 100_000)
        raise UnavailableError("the store went away")


@pytest.fixture
def breaking(chromium: webdriver.Chrome, tmp_path: Path) -> Iterator[tuple[Breaking, Page]]:
    storage = Breaking()
    with opened(storage, chromium, tmp_path) as page:
        yield storage, page


def test_a_download_that_breaks_off_leaves_no_file(breaking: tuple[Breaking, Page]) -> None:
    storage, page = breaking
    put(storage, "a.bin", b"y" * 200_000)
    page.open()
    page.row("a.bin").click()
    page.until(lambda: page.transfers()[0:1] and "incomplete" in page.transfers()[0])
    assert list(page.downloads.iterdir()) == []
    storage.is_broken = False
    page.click("Try again")
    assert downloaded(page, "a.bin") == b"y" * 200_000


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("a\nb", "a\\u{a}b"),
        ("/a", "a"),
        ("d/a//b", "b"),
        ("100%2F%2e%2e?b#c;d&e+f", None),
        ("'\"<script>&lt;", None),
        ("\u202egpj.exe", "\\u{202e}gpj.exe"),
        ("שלום.txt", None),
        ("x" * 1024, None),
    ],
)
def test_objects_with_odd_keys_are_downloaded(
    page: Page, swift_storage: Storage, key: str, shown: str | None
) -> None:
    put(swift_storage, key, key.encode())
    page.open(key.rpartition("/")[0] + "/" if "/" in key else "")
    name = shown or key
    page.row(name).click()
    page.until(lambda: page.transfers() == ["downloaded"])
    [path] = page.until(lambda: arrived(page))
    assert path.read_bytes() == key.encode()
    assert "\u202e" not in path.name
    assert page.complaints() == []


def test_without_tokens_the_browser_downloads_by_itself(
    swift_storage: Storage, chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    put(swift_storage, "a.dcm", b"content")
    with opened(swift_storage, chromium, tmp_path) as page:
        page.server.configure(ServerOptions(), "127.0.0.1")
        page.open(token="")
        page.until(lambda: page.names() == ["a.dcm"])
        page.row("a.dcm").click()
        assert downloaded(page, "a.dcm") == b"content"
