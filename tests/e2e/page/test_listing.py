"""The page at /: folders, names, and the delivery of the page itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from urllib.parse import quote

from selenium.webdriver.common.by import By

from pfstorage.backends import Storage
from tests.support.objects import put
from tests.support.page import HOSTILE, Page

NOTHING_MAY = ("default-src", "base-uri", "form-action", "frame-ancestors")


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
