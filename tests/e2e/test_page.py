"""The page at /, in a real browser: its contents, its requests, and mistakes that it prevents."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import axe_core_python
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from pfstorage import Settings, StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.contract import ByteRange, Sink
from pfstorage.backends.memory import MemoryStorage
from pfstorage.errors import RejectedError, UnavailableError
from pfstorage.server.options import ServerOptions
from tests.conftest import ask, running_server, write_tree
from tests.support.held import Held

T = TypeVar("T")

SOON = 40.0
WRITER, READER, GUEST = "writer-0123456789abcdef", "reader-0123456789abcdef", "gäst-0123456789abcdef"
TOKENS = f"""\
[AUTH TOKENS]
writer = {WRITER}
reader = {READER}
guest = {GUEST}

[TOKEN RIGHTS]
writer = admin
reader = read
guest = write chris/feed_12/
"""

NOTHING_MAY = ("default-src", "base-uri", "form-action", "frame-ancestors")
HOSTILE = "<img src=x onerror=document.title='broken'>.txt"
OBJECTS = {
    "chris/a.dcm": b"a" * 3000,
    f"chris/{HOSTILE}": b"nothing",
    "chris/\u202egpj.exe": b"reversed",
    "chris/feed_12/x.dcm": b"x",
    "chris/feed_12/deep/er": b"y",
    "chris/a//b": b"no name between",
    "top.txt": b"top",
}


@dataclass
class Page:
    """The page of *server* in the *browser*."""

    server: ThreadedHTTPServer
    browser: webdriver.Chrome
    downloads: Path

    def open(self, prefix: str = "", token: str = WRITER) -> None:
        """Load the page with the folder *prefix*, and paste the *token*."""
        self.browser.get(f"http://127.0.0.1:{self.server.server_port}/healthz")
        self.browser.execute_script("sessionStorage.clear()")
        self.browser.get_log("browser")
        self.browser.get(f"http://127.0.0.1:{self.server.server_port}/#/{quote(prefix, safe='')}")
        if token:
            self.paste(token)
            self.until(lambda: self.names() is not None and self.text("summary") not in ("", "Loading…"))

    def paste(self, token: str) -> None:
        self.until(lambda: self.by_id("token-dialog").get_attribute("open"))
        self.by_id("token").send_keys(token, Keys.ENTER)

    def is_loaded(self) -> bool:
        """Return whether a document is loaded. Between two documents, there is none."""
        script = "return document.readyState === 'complete' && !!document.querySelector('dialog[open]')"
        return bool(self.browser.execute_script(script))

    def by_id(self, name: str) -> WebElement:
        return self.browser.find_element(By.ID, name)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def text(self, name: str) -> str:
        return self.by_id(name).text

    def names(self) -> list[str]:
        """Return the names of the rows, in one step, since the page may replace the rows at any time."""
        script = "return [...document.querySelectorAll('#rows a')].map(link => link.textContent)"
        names: list[str] = self.browser.execute_script(script)
        return names

    def row(self, name: str) -> WebElement:
        return next(link for link in self.all("#rows a") if link.text == name)

    def until(self, holds: Callable[[], T]) -> T:
        """Wait until *holds* returns a true value, and return it."""
        deadline = time.monotonic() + SOON
        while not (found := holds()):
            assert time.monotonic() < deadline, (self.text("alert"), self.text("summary"), self.names())
            time.sleep(0.02)
        return found

    def upload(self, *files: Path) -> None:
        self.by_id("files").send_keys("\n".join(map(str, files)))

    def transfers(self) -> list[str]:
        """Return the status text of each upload and download."""
        script = (
            "return [...document.querySelectorAll('#transfers-list .status')].map(said => said.textContent)"
        )
        said: list[str] = self.browser.execute_script(script)
        return said

    def click(self, button: str, row: int = -1) -> None:
        """Click the *button* of a file on its way."""
        found = self.all("#transfers-list li")[row].find_element(By.TAG_NAME, "button")
        assert found.text == button
        found.click()

    def drop(self, name: str, content: str) -> None:
        """Drop a file, as a desktop does: a script can't make a trusted one, but all that the page sees of it."""
        self.browser.execute_script(
            "const transfer = new DataTransfer();"
            "transfer.items.add(new File([arguments[1]], arguments[0]));"
            "for (const kind of ['dragenter', 'dragover', 'drop'])"
            " document.body.dispatchEvent("
            "new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}))",
            name,
            content,
        )

    def press(self, *keys: str) -> WebElement:
        """Press keys on the element with the focus, and return the element that has the focus then."""
        for key in keys:
            self.browser.switch_to.active_element.send_keys(key)
        return self.browser.switch_to.active_element

    def complaints(self) -> list[str]:
        """Return the messages of the browser console, except those about unsuccessful answers."""
        said = [entry["message"] for entry in self.browser.get_log("browser")]
        return [text for text in said if "Failed to load resource" not in text]


def opened(
    storage: Storage, chromium: webdriver.Chrome, tmp_path: Path
) -> contextlib.AbstractContextManager[Page]:
    tokens = tmp_path / "tokens.cfg"
    tokens.write_text(TOKENS)
    tokens.chmod(0o600)
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    chromium.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)}
    )
    options = ServerOptions(token_path=str(tokens), fs_roots=(str(tmp_path),), max_jobs=8)
    server = ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), options)

    @contextlib.contextmanager
    def page() -> Iterator[Page]:
        with running_server(server):
            try:
                yield Page(server, chromium, downloads)
            finally:
                chromium.get("about:blank")  # nothing of it asks on

    return page()


@pytest.fixture
def page(swift_storage: Storage, chromium: webdriver.Chrome, tmp_path: Path) -> Iterator[Page]:
    """The page of a server with tokens and some objects, over the real Swift."""
    for key, content in OBJECTS.items():
        put(swift_storage, key, content)
    with opened(swift_storage, chromium, tmp_path) as page:
        yield page


def put(storage: Storage, key: str, content: bytes) -> None:
    storage.put(key, io.BytesIO(content), len(content))


def content_of(storage: Storage, key: str) -> bytes:
    storage.get(key, sink := io.BytesIO())
    return sink.getvalue()


def test_folders_are_entered_and_left(page: Page) -> None:
    page.open()
    assert page.names() == ["chris/", "top.txt"]
    page.row("chris/").click()
    page.until(lambda: "a.dcm" in page.names())
    assert page.names() == [HOSTILE, "a.dcm", "a/", "feed_12/", "\\u{202e}gpj.exe"]
    assert page.browser.title == "chris/ - pfstorage"
    assert "5 entries" in page.text("summary")
    row = page.row("a.dcm").find_element(By.XPATH, "ancestor::tr")
    assert row.find_element(By.CSS_SELECTOR, ".number").text == "2.9 KiB"
    assert row.find_element(By.TAG_NAME, "time").get_attribute("datetime")
    page.row("a/").click()
    page.until(lambda: page.names() == ["/"])
    page.row("/").click()
    page.until(lambda: page.names() == ["b"])
    page.browser.back()
    page.browser.back()
    page.until(lambda: "feed_12/" in page.names())
    page.row("feed_12/").click()
    page.until(lambda: page.names() == ["deep/", "x.dcm"])
    assert [crumb.text for crumb in page.all("#crumbs a")] == ["All objects", "chris", "feed_12"]
    page.all("#crumbs a")[0].click()
    page.until(lambda: page.names() == ["chris/", "top.txt"])
    assert page.complaints() == []


def test_the_first_object_is_uploaded_into_a_store_without_a_container(
    swift_storage: Storage, chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    with opened(swift_storage, chromium, tmp_path) as page:
        page.open()
        assert (page.text("summary"), page.text("alert")) == ("This folder is empty.", "")
        page.drop("first.txt", "first")
        page.until(lambda: page.names() == ["first.txt"])


def test_a_folder_that_is_empty_says_so(page: Page) -> None:
    page.open("nothing/")
    assert (page.names(), page.text("summary")) == ([], "This folder is empty.")


def test_a_long_listing_comes_by_pages(page: Page, swift_storage: Storage) -> None:
    for number in range(510):
        put(swift_storage, f"many/{number:04}", b"")
    page.open("many/")
    assert len(page.names()) == 500
    assert page.text("summary") == "500 entries, and more"
    page.by_id("more").click()
    page.until(lambda: len(page.names()) == 510)
    assert page.browser.switch_to.active_element.text == "0500"
    assert not page.by_id("more").is_displayed()
    page.drop("0510", "one more")
    page.until(lambda: len(page.names()) == 511)
    assert page.browser.switch_to.active_element.text == "0500"


def test_a_name_is_never_a_part_of_the_page(page: Page) -> None:
    page.open("chris/")
    assert page.row(HOSTILE)
    assert page.all("img") == []
    page.drop(HOSTILE, "once more")
    page.until(lambda: page.by_id("replace-dialog").get_attribute("open"))
    assert HOSTILE in page.text("replace-name")
    page.all("#replace-form button[value=keep]")[0].click()
    page.until(lambda: page.transfers() == ["not replaced"])
    time.sleep(0.2)
    assert page.all("img") == []
    assert page.browser.title == "chris/ - pfstorage"
    page.browser.get(f"http://127.0.0.1:{page.server.server_port}/#/{quote('<b>x</b>/', safe='')}")
    page.until(lambda: "<b>" in page.text("crumbs"))
    assert page.all("b") == []
    assert page.complaints() == []


def test_a_script_that_gets_into_the_page_does_not_run(page: Page) -> None:
    page.open()
    page.browser.execute_script(
        "const script = document.createElement('script');"
        "script.textContent = \"document.title = 'broken'\";"
        "document.body.append(script);"
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')"
    )
    time.sleep(0.2)
    assert page.browser.title == "pfstorage"
    assert any("Content Security Policy" in text for text in page.complaints())


def test_files_are_uploaded_with_their_progress(page: Page, swift_storage: Storage, tmp_path: Path) -> None:
    contents = {f"file {number} ü.bin": random.Random(number).randbytes(700_000) for number in range(5)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    page.open("chris/new/")
    page.upload(*(tmp_path / name for name in contents))
    page.until(lambda: page.transfers() == ["stored"] * 5)
    assert all(bar.get_attribute("value") == "1" for bar in page.all("#transfers-list progress"))
    page.until(lambda: page.by_id("transfers-status").get_property("textContent") == "5 files stored")
    page.until(lambda: page.names() == sorted(contents))
    for name, content in contents.items():
        assert content_of(swift_storage, f"chris/new/{name}") == content
    assert page.complaints() == []


WATCHED = """
window.received = { said: [], status: [] };
const watch = (id, found) => new MutationObserver(() => {
  const text = document.querySelector(id)?.textContent;
  if (text && text !== found.at(-1)) found.push(text);
}).observe(document.body, { subtree: true, childList: true, characterData: true });
watch("#transfers-list .status", received.said);
watch("#transfers-status", received.status);
"""


def test_an_upload_shows_its_progress_and_speed(chromium: webdriver.Chrome, tmp_path: Path) -> None:
    (tmp_path / "slow.bin").write_bytes(bytes(3_000_000))
    line = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 500_000}
    with open_storage("memory") as storage, opened(storage, chromium, tmp_path) as page:
        page.open()
        page.browser.execute_script(WATCHED)
        page.browser.execute_cdp_cmd("Network.enable", {})
        page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", line)
        try:
            page.upload(tmp_path / "slow.bin")
            page.until(lambda: page.transfers() == ["stored"])
        finally:
            page.browser.execute_cdp_cmd("Network.emulateNetworkConditions", line | {"uploadThroughput": -1})
            page.browser.execute_cdp_cmd("Network.disable", {})
        received = page.browser.execute_script("return received")
        found = [
            re.fullmatch(r"([\d.]+ [KM]iB) of 2.9 MiB, (\d+) %, ([\d.]+) KiB/s", said)
            for said in received["said"]
        ]
        steps = [step for step in found if step]
        assert 3 <= len(steps) <= 40, received
        percents = [int(step[2]) for step in steps]
        assert percents == sorted(percents)
        assert 250 < float(steps[-1][3]) < 1000, received
        assert "stored" in received["said"]
        assert len(received["status"]) <= 4, received  # it is read out, and takes its time
        assert received["status"][-1] == "1 file stored"


def test_a_rate_is_smooth_and_follows(page: Page) -> None:
    page.open(token="")
    even, step, began = page.browser.execute_async_script(
        "const done = arguments[0];"
        "import('/page/transfers.js').then(({ Rate }) => {"
        " const rate = new Rate(100), found = [rate.add(10, 100)];"
        " let sent = 0, now = 100;"
        " const run = (seconds, each) => { let is; for (let i = 0; i < 10 * seconds; i++)"
        " is = rate.add(sent += each / 10, now += 100); return is; };"
        " const even = run(2, 1000);"
        " const steps = [run(0.1, 5000), run(20, 5000)];"
        " done([even, steps, found[0]]);"
        "})"
    )
    assert began == 0  # nothing can be said of it yet
    assert even == pytest.approx(1000, rel=0.02)
    assert 1000 < step[0] < 1600
    assert step[1] == pytest.approx(5000, rel=0.02)


def test_dropped_files_are_uploaded_and_replace_others_only_on_request(
    page: Page, swift_storage: Storage
) -> None:
    page.open("chris/")
    page.drop("a.dcm", "new")
    page.until(lambda: page.by_id("replace-dialog").get_attribute("open"))
    page.press(Keys.ESCAPE)
    page.until(lambda: page.transfers() == ["not replaced"])
    assert content_of(swift_storage, "chris/a.dcm") == OBJECTS["chris/a.dcm"]
    page.drop("a.dcm", "newer")
    page.until(lambda: page.by_id("replace-dialog").get_attribute("open"))
    page.all("#replace-form button[value=replace]")[0].click()
    page.until(lambda: page.transfers()[-1:] == ["stored"])
    assert content_of(swift_storage, "chris/a.dcm") == b"newer"
    page.drop("a.dcm", "newest")
    page.until(lambda: page.by_id("replace-dialog").get_attribute("open"))
    # as Escape does in some browsers: it is no answer, whatever the last one was
    page.browser.execute_script("document.getElementById('replace-dialog').close()")
    page.until(lambda: page.transfers()[-1:] == ["not replaced"])
    assert content_of(swift_storage, "chris/a.dcm") == b"newer"
    page.drop("other.txt", "other")
    page.until(lambda: "other.txt" in page.names())
    assert content_of(swift_storage, "chris/other.txt") == b"other"


def test_one_answer_may_be_for_all_files_of_an_upload(
    page: Page, swift_storage: Storage, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.txt" for number in range(3)]
    for file in files:
        put(swift_storage, f"chris/{file.name}", b"old")
        file.write_bytes(b"new")
    page.open("chris/")
    page.upload(*files)
    page.until(lambda: page.by_id("replace-dialog").get_attribute("open"))
    page.by_id("replace-all").click()
    page.all("#replace-form button[value=replace]")[0].click()
    page.until(lambda: page.transfers() == ["stored"] * 3)
    assert {content_of(swift_storage, f"chris/{file.name}") for file in files} == {b"new"}


def test_a_name_with_special_characters_of_urls_is_sent_whole(page: Page, swift_storage: Storage) -> None:
    page.open("chris/")
    page.drop("100% #1?.txt", "all of it")
    page.until(lambda: page.transfers() == ["stored"])
    assert content_of(swift_storage, "chris/100% #1?.txt") == b"all of it"


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
        assert content_of(storage, "hidden") == b"theirs"


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


def test_events_are_whole_in_portions_of_any_size(page: Page) -> None:
    page.open()
    found = page.browser.execute_async_script(
        "const done = arguments[0], pieces = ['data: {\"n\"', ': 1}\\n', '\\ndata: {\"n\": 2}\\n\\ndata: {'];"
        "window.fetch = async () => new Response(new ReadableStream({start(stream) {"
        " for (const piece of pieces) stream.enqueue(new TextEncoder().encode(piece));"
        " stream.close(); }}));"
        "import('/page/api.js').then(async ({events}) => {"
        " const found = [];"
        " for await (const event of events('x')) found.push(event.n);"
        " done(found); }).catch((error) => done(String(error)))"
    )
    assert found == [1, 2]


def test_events_are_asked_for_again_when_their_stream_says_so(page: Page) -> None:
    page.open()
    found = page.browser.execute_async_script(
        "const done = arguments[0], streams = ['data: {\"n\": 1}\\n\\nretry: 1\\n\\n', 'data: {\"n\": 2}\\n\\n'];"
        "window.fetch = async () => new Response(streams.shift());"
        "import('/page/api.js').then(async ({events}) => {"
        " const found = [];"
        " for await (const event of events('x')) found.push(event.n);"
        " done(found); }).catch((error) => done(String(error)))"
    )
    assert found == [1, 2]


def test_a_folder_that_is_dropped_is_uploaded_with_all_that_is_in_it(
    page: Page, swift_storage: Storage, tmp_path: Path
) -> None:
    files = {f"series/{number:03}.dcm": b"%d" % number for number in range(120)}  # readEntries gives 100
    files["series/deep/er/<b>.txt"] = b"deep"
    write_tree(tmp_path / "dropped", files)
    page.open("study/")
    dropped = {"items": [], "files": [str(tmp_path / "dropped" / "series")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": 200, "y": 200, "data": dropped}
        page.browser.execute_cdp_cmd("Input.dispatchDragEvent", event)
    page.until(lambda: page.transfers() == ["stored"] * 121)
    assert {row.key for row in swift_storage.list("study/")} == {f"study/{name}" for name in files}
    assert content_of(swift_storage, "study/series/deep/er/<b>.txt") == b"deep"
    page.until(lambda: page.names() == ["series/"])
    assert page.complaints() == []


def test_a_folder_that_is_chosen_is_uploaded_with_all_that_is_in_it(
    page: Page, swift_storage: Storage, tmp_path: Path
) -> None:
    files = {"series/1.dcm": b"1", "series/deep/er/<b>.txt": b"deep", "series/deep/2 #%.dcm": b"2"}
    write_tree(tmp_path / "chosen", files)
    page.open("study/")
    page.by_id("tree").send_keys(str(tmp_path / "chosen" / "series"))
    page.until(lambda: page.transfers() == ["stored"] * 3)
    found = {row.key: content_of(swift_storage, row.key) for row in swift_storage.list("study/")}
    assert found == {f"study/{name}": content for name, content in files.items()}
    page.until(lambda: page.names() == ["series/"])
    assert page.complaints() == []


def test_files_and_folders_are_chosen_with_the_keyboard(page: Page) -> None:
    page.open()
    page.browser.execute_script(
        "window.opened = [];"
        "HTMLInputElement.prototype.click = function () { opened.push(this.webkitdirectory, this.multiple) }"
    )
    page.browser.execute_script("document.getElementById('refresh').focus()")
    for name, key in (("Upload files", Keys.ENTER), ("Upload a folder", Keys.SPACE)):
        button = page.press(Keys.TAB)
        assert (button.accessible_name, button.aria_role) == (name, "button")
        page.press(key)
    assert page.browser.execute_script("return opened") == [False, True, True, False]


def arrived(page: Page) -> list[Path]:
    """Return the files whose downloads have ended: Chromium makes an empty one first, to have its name."""
    files = [each for each in page.downloads.iterdir() if each.suffix != ".crdownload"]
    return [each for each in files if each.stat().st_size]


def downloaded(page: Page, name: str) -> bytes:
    page.until(lambda: page.downloads / name in arrived(page))
    return (page.downloads / name).read_bytes()


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


class Slow(MemoryStorage):
    """A store that takes objects when it is released."""

    def __init__(self) -> None:
        super().__init__(Settings(type="memory"))
        self.release = threading.Event()

    def put(self, *arguments: Any, **options: Any) -> ObjectInfo:
        assert self.release.wait(60)
        return super().put(*arguments, **options)


def test_uploads_are_cancelled_and_tried_again(chromium: webdriver.Chrome, tmp_path: Path) -> None:
    storage = Slow()
    with opened(storage, chromium, tmp_path) as page:
        page.open()
        for number in range(5):
            page.drop(f"{number}.txt", "content")
        page.until(lambda: page.transfers() == ["7 B of 7 B, 100 %"] * 3 + ["waiting"] * 2)
        page.click("Cancel", 4)
        page.click("Cancel", 0)
        page.until(lambda: page.transfers()[0] == page.transfers()[4] == "cancelled")
        storage.release.set()
        page.until(lambda: page.transfers()[1:] == ["stored"] * 3 + ["cancelled"])
        assert [row.key for row in storage.list("4")] == []
        page.click("Try again", 4)
        page.until(lambda: page.transfers()[4] == "stored")
        page.click("Clear", 4)
        assert [row.key for row in storage.list("4")] == ["4.txt"]
        page.by_id("transfers-clear").click()
        assert (page.transfers(), page.by_id("transfers").is_displayed()) == ([], False)


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


@pytest.mark.parametrize("folder", ["d/../", "./"])
def test_keys_that_the_server_refuses_are_shown(page: Page, folder: str) -> None:
    page.open(folder)
    page.drop("a.txt", "x")
    page.until(lambda: "has a component '.' or '..'" in page.transfers()[-1])


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


def test_a_wrong_token_is_reported_and_another_is_asked_for(page: Page) -> None:
    page.open(token="")
    page.until(lambda: page.by_id("token-dialog").get_attribute("open"))
    assert page.text("token-reason") == "The server asks for a token."
    assert page.by_id("token").get_attribute("type") == "password"
    page.paste("not-a-token-0123456789")
    page.until(lambda: page.text("token-reason") == "The server does not take this token.")
    assert page.names() == []
    page.paste(WRITER)
    page.until(lambda: page.names() == ["chris/", "top.txt"])
    assert page.browser.execute_script("return Object.values(sessionStorage)") == [WRITER]
    assert page.browser.execute_script("return localStorage.length + document.cookie.length") == 0
    page.by_id("token-button").click()
    page.by_id("token-forget").click()
    page.until(lambda: page.is_loaded() and page.text("token-reason") == "The server asks for a token.")
    assert page.browser.execute_script("return sessionStorage.length") == 0


def test_the_page_says_that_a_token_is_needed(page: Page) -> None:
    page.open(token="")
    for cancel in (Keys.ESCAPE, Keys.ENTER):
        page.until(lambda: page.by_id("token-dialog").get_attribute("open"))
        if cancel == Keys.ENTER:
            page.by_id("token-cancel").send_keys(cancel)
        else:
            page.press(cancel)
        page.until(lambda: page.text("summary") == "You need a token to see the objects.")
        assert page.by_id("summary").get_attribute("role") == "status"  # it is read out
        assert not page.by_id("objects").is_displayed()
        button = page.browser.switch_to.active_element
        assert (button.accessible_name, button.aria_role) == ("Enter a token", "button")
        assert violations(page) == []
        page.press(Keys.ENTER)
    assert page.browser.switch_to.active_element.get_attribute("id") == "token"
    page.paste(WRITER)
    page.until(lambda: page.names() == ["chris/", "top.txt"])
    page.until(lambda: page.browser.switch_to.active_element.get_attribute("id") == "listing")
    assert page.by_id("objects").is_displayed()
    assert not page.by_id("unlock").is_displayed()
    page.by_id("token-button").click()
    page.press(Keys.ESCAPE)  # there is a token: nothing becomes of it
    page.until(lambda: page.browser.switch_to.active_element.get_attribute("id") == "token-button")
    assert page.names() == ["chris/", "top.txt"]
    assert page.complaints() == []


def test_the_page_says_that_a_token_may_only_read(page: Page) -> None:
    page.open("chris/", READER)
    expected = "Your token may read this folder, but not upload to it."
    assert page.text("hint") == expected
    assert not page.by_id("upload").is_displayed()
    assert not page.by_id("upload-folder").is_displayed()
    page.drop("new.txt", "new")
    page.until(lambda: page.text("alert") == expected)
    assert page.transfers() == []
    assert "new.txt" not in page.names()
    page.by_id("token-button").click()
    page.paste(WRITER)
    page.until(lambda: page.by_id("upload").is_displayed())
    page.drop("new.txt", "new")
    page.until(lambda: "new.txt" in page.names())
    assert page.complaints() == []


def test_the_rest_of_an_upload_that_is_refused_is_not_sent(
    page: Page, swift_storage: Storage, tmp_path: Path
) -> None:
    files = [tmp_path / f"{number}.bin" for number in range(40)]
    for file in files:
        file.write_bytes(b"x" * 10)
    page.open("chris/", WRITER)
    tokens = tmp_path / "tokens.cfg"
    tokens.write_text(TOKENS.replace("writer = admin", "writer = read"))  # since the page was opened
    page.browser.execute_script(
        "window.sent = 0; const send = XMLHttpRequest.prototype.send;"
        "XMLHttpRequest.prototype.send = function (body) { sent += 1; send.call(this, body) }"
    )
    page.upload(*files)
    expected = "Your token does not allow you to store files here: the other 39 files of this upload are refused too."
    page.until(lambda: page.text("alert") == expected)
    page.until(lambda: len(said := page.transfers()) == 40 and not {"", "waiting"} & set(said))
    said = page.transfers()
    assert any("Your token does not allow that" in each for each in said[:3])
    assert set(said[3:]) == {"refused"}
    sent = page.browser.execute_script("return sent")
    assert 1 <= sent <= 3  # as many as go at once
    page.click("Try again", 20)  # the page asks about this file again, and about no other
    page.until(lambda: "Your token does not allow that" in page.transfers()[20])
    assert page.browser.execute_script("return sent") == sent + 1
    tokens.write_text(TOKENS)
    page.by_id("token-button").click()
    page.paste(WRITER)
    page.until(lambda: not page.text("alert"))
    for number in (20, 21):
        page.click("Try again", number)
    page.until(lambda: page.transfers()[20:22] == ["stored"] * 2)
    assert content_of(swift_storage, "chris/20.bin") == b"x" * 10
    assert page.complaints() == []


def test_the_page_begins_at_the_prefix_of_the_token(page: Page, swift_storage: Storage) -> None:
    page.open("", GUEST)
    page.until(lambda: page.names() == ["deep/", "x.dcm"])
    assert [crumb.text for crumb in page.all("#crumbs a")] == ["All objects", "chris", "feed_12"]
    page.drop("mine.txt", "mine")
    page.until(lambda: "mine.txt" in page.names())
    assert content_of(swift_storage, "chris/feed_12/mine.txt") == b"mine"
    page.row("deep/").click()
    page.until(lambda: page.names() == ["er"])
    page.browser.get(f"http://127.0.0.1:{page.server.server_port}/#/chris%2Ffeed_13%2F")
    page.until(lambda: "Your token does not allow that" in page.text("alert"))
    page.drop("not-mine.txt", "x")
    page.until(lambda: "Your token does not allow that" in page.transfers()[-1])


def test_no_row_of_the_last_token_is_left(page: Page) -> None:
    page.open("chris/")
    page.drop("new.txt", "new")
    page.until(lambda: page.transfers() == ["stored"])
    page.by_id("token-button").click()
    page.by_id("token-forget").click()
    page.until(lambda: page.is_loaded() and page.text("token-reason") == "The server asks for a token.")
    assert "new.txt" not in page.browser.page_source
    page.paste(WRITER)
    page.until(lambda: "new.txt" in page.names())
    page.by_id("token-button").click()
    page.paste("not-a-token-0123456789")
    page.until(lambda: page.text("token-reason") == "The server does not take this token.")
    assert page.names() == []


def test_a_token_that_is_revoked_shows_nothing_any_more(held: tuple[Held, Page], tmp_path: Path) -> None:
    _, page = held
    begin(page, "first")
    page.open("x/")
    page.until(lambda: said_of(page, "first"))
    assert page.names() == ["0", "1", "2"]
    (tmp_path / "tokens.cfg").write_text("[AUTH TOKENS]\nother = other-0123456789abcdef\n")
    page.by_id("refresh").click()
    page.until(lambda: page.text("token-reason") == "The server does not take this token.")
    page.until(lambda: (page.names(), page.all("#jobs-list li")) == ([], []))


def test_the_keyboard_is_enough_for_the_page(page: Page) -> None:
    page.open()
    page.browser.refresh()
    page.until(lambda: page.names() == ["chris/", "top.txt"])
    assert page.press(Keys.TAB).text == "Skip to the listing"
    assert page.press(Keys.ENTER).get_attribute("id") == "listing"
    assert page.press(Keys.TAB).text == "chris/"
    page.press(Keys.ENTER)
    page.until(lambda: "a.dcm" in page.names())
    page.until(lambda: page.browser.switch_to.active_element.get_attribute("id") == "listing")
    while page.press(Keys.TAB).text != "a.dcm":
        assert page.browser.switch_to.active_element.tag_name == "a"
    outline = page.browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.press(Keys.ENTER)
    assert downloaded(page, "a.dcm") == OBJECTS["chris/a.dcm"]
    page.drop("zz.txt", "new")  # the page replaces the listing, and the focus stays on its element
    page.until(lambda: "zz.txt" in page.names())
    page.until(lambda: page.browser.switch_to.active_element.text == "a.dcm")
    page.browser.back()
    page.until(lambda: page.browser.switch_to.active_element.text == "chris/")


def violations(page: Page) -> list[tuple[str, list[str]]]:
    """Return the violations that axe finds in the current page."""
    page.browser.execute_script((Path(axe_core_python.__file__).parent / "axe.min.js").read_text())
    found = page.browser.execute_async_script("axe.run().then(arguments[0])")
    return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]]


def test_a_screen_reader_finds_its_way(page: Page) -> None:
    page.open("chris/")
    page.drop("new.txt", "new")
    page.until(lambda: page.transfers() == ["stored"])
    for theme in ("light", "dark"):
        wanted = {"prefers-color-scheme": theme, "prefers-reduced-motion": "reduce"}
        media = {"features": [{"name": name, "value": value} for name, value in wanted.items()]}
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        assert violations(page) == []
    page.by_id("token-button").click()
    assert violations(page) == []
    assert page.browser.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"


def test_the_page_fits_a_narrow_window(page: Page) -> None:
    before = page.browser.get_window_size()
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": False},
    )
    try:
        page.open("chris/")
        width = page.browser.execute_script("return document.documentElement.scrollWidth")
        assert width <= 320
        assert page.by_id("upload").is_displayed()
        assert page.by_id("upload-folder").is_displayed()
        page.drop("x" * 200, "new")
        page.until(lambda: page.transfers() == ["stored"])
        page.browser.execute_script(
            "document.querySelector('#transfers-list .status').textContent = arguments[0]",
            "1023.9 MiB of 1023.9 GiB, 100 %, 1023.9 MiB/s",
        )
        assert page.browser.execute_script("return document.documentElement.scrollWidth") <= 320
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.browser.set_window_size(before["width"], before["height"])


def ask_for(page: Page, action: str, **meta: Any) -> dict[str, Any]:
    status, body = ask(page.server, {"action": action, "meta": meta}, Authorization=f"Bearer {WRITER}")
    assert status in (200, 202)
    return body


def begin(page: Page, jid: str) -> str:
    job: str = ask_for(page, "objPull", path="x", mapLocationOver=jid, jid=jid, **{"async": True})["job"]
    return job


def refuse(*_: Any, **__: Any) -> Iterator[ObjectInfo]:
    raise RejectedError(HOSTILE)


def said_of(page: Page, jid: str) -> str:
    rows = [row for row in page.all("#jobs-list li") if jid in row.text]
    return rows[0].find_element(By.CSS_SELECTOR, ".status").text if rows else ""


@pytest.fixture
def held(chromium: webdriver.Chrome, tmp_path: Path) -> Iterator[tuple[Held, Page]]:
    """The page of a server whose objects come when they are released."""
    storage = Held()
    for number in range(3):
        put(storage, f"x/{number}", b"12345")
    with opened(storage, chromium, tmp_path) as page:
        yield storage, page
        storage.release.set()


def test_jobs_are_followed_and_cancelled(held: tuple[Held, Page]) -> None:
    storage, page = held
    begin(page, "first")
    begin(page, "second")
    page.open()
    page.until(lambda: said_of(page, "first").startswith("running"))
    page.until(lambda: said_of(page, "second"))
    row = next(row for row in page.all("#jobs-list li") if "second" in row.text)
    row.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    page.until(lambda: said_of(page, "second").startswith("cancelled"))
    assert page.browser.switch_to.active_element == row  # the page has removed its button
    storage.release.set()
    page.until(lambda: said_of(page, "first").startswith("done, 3 of 3 files, 15 B"))
    assert page.by_id("jobs-status").get_property("textContent") == "objPull first: done"
    assert not row.find_element(By.TAG_NAME, "button").is_displayed()
    assert page.complaints() == []


def test_a_job_that_is_not_done_shows_why(held: tuple[Held, Page], monkeypatch: pytest.MonkeyPatch) -> None:
    storage, page = held
    with monkeypatch.context() as broken:
        broken.setattr(storage, "list", refuse)
        job = begin(page, "lost")
        over = ask_for(page, "jobStatus", job=job, wait=30)
    assert over["state"] == "failed"
    begin(page, "given up")
    assert storage.asked.acquire(timeout=SOON)
    jobs = ask_for(page, "jobList")["jobs"]
    assert "reply" not in jobs[1]  # only the row names the reason
    page.open()
    page.until(lambda: said_of(page, "lost").startswith("failed"))
    assert said_of(page, "lost").endswith(f", {HOSTILE}")
    assert page.all("img") == []
    ask_for(page, "jobCancel", job=jobs[0]["job"])
    storage.release.set()
    page.until(lambda: said_of(page, "given up").startswith("cancelled"))
    received = ask_for(page, "jobList")["jobs"][0]["msg"]
    page.browser.refresh()
    page.until(lambda: received in said_of(page, "given up"))
    assert page.complaints() == []


def test_many_jobs_leave_connections_for_the_rest(held: tuple[Held, Page]) -> None:
    _, page = held
    for number in range(8):  # a browser opens six to one server
        begin(page, f"job-{number}")
    page.open("new/")
    page.until(lambda: len([row for row in page.all("#jobs-list .status") if "running" in row.text]) == 8)
    page.drop("a.txt", "a")
    page.until(lambda: page.names() == ["a.txt"])


def test_the_page_is_kept_by_browsers_and_asked_about(page: Page) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", page.server.server_port, timeout=30)
    with contextlib.closing(connection):
        for path in ("/", "/page/page.js", "/page/page.css", "/page/icon.svg"):
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            assert answer.headers["Cache-Control"] == "no-cache"
            policy = set(answer.headers["Content-Security-Policy"].split("; "))
            assert policy >= {f"{name} 'none'" for name in NOTHING_MAY}
            connection.request("GET", path, headers={"If-None-Match": answer.headers["ETag"]})
            again = connection.getresponse()
            assert (again.status, again.read()) == (304, b"")
            assert "Content-Length" not in again.headers  # it would be the length of the stored bytes
        for path in ("/page/", "/page/__init__.py", "/page/../server.py", "/page/index.htm"):
            connection.request("GET", path)
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["status"]) == (404, False)
        for path in ("/?action=hello", "/api/v1/cmd"):  # a message still needs a token
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 401
