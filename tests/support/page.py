"""The page at / in a browser: a page object, the objects of its store, and its jobs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import axe_core_python
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from pfstorage import StoreHandler, ThreadedHTTPServer
from pfstorage.backends import Storage
from pfstorage.server.options import ServerOptions
from tests.conftest import ask, running_server

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
    """Serve *storage* with the tokens, and yield the page in a ``with`` block."""
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


def arrived(page: Page) -> list[Path]:
    """Return the files whose downloads have ended: Chromium makes an empty one first, to have its name."""
    files = [each for each in page.downloads.iterdir() if each.suffix != ".crdownload"]
    return [each for each in files if each.stat().st_size]


def downloaded(page: Page, name: str) -> bytes:
    """Wait for the download *name*, and return its content."""
    page.until(lambda: page.downloads / name in arrived(page))
    return (page.downloads / name).read_bytes()


def violations(page: Page) -> list[tuple[str, list[str]]]:
    """Return the violations that axe finds in the current page."""
    page.browser.execute_script((Path(axe_core_python.__file__).parent / "axe.min.js").read_text())
    found = page.browser.execute_async_script("axe.run().then(arguments[0])")
    return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]]


def send_message(page: Page, action: str, **meta: Any) -> dict[str, Any]:
    """Send a message to the server of *page*, and return its reply."""
    status, body = ask(page.server, {"action": action, "meta": meta}, Authorization=f"Bearer {WRITER}")
    assert status in (200, 202)
    return body


def start_job(page: Page, jid: str) -> str:
    """Start a pull as a job, and return its id."""
    job: str = send_message(page, "objPull", path="x", mapLocationOver=jid, jid=jid, **{"async": True})["job"]
    return job


def job_status(page: Page, jid: str) -> str:
    """Return the status text of the job *jid* in the page, "" if the page does not show it."""
    rows = [row for row in page.all("#jobs-list li") if jid in row.text]
    return rows[0].find_element(By.CSS_SELECTOR, ".status").text if rows else ""
