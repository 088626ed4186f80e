"""The page at /: tokens, and the limits of their rights."""

from __future__ import annotations

from pathlib import Path

from selenium.webdriver.common.keys import Keys

from pfstorage.backends import Storage
from tests.support.held import Held
from tests.support.objects import get
from tests.support.page import GUEST, READER, WRITER, Page, job_status, start_job, violations


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


def test_the_page_begins_at_the_prefix_of_the_token(page: Page, swift_storage: Storage) -> None:
    page.open("", GUEST)
    page.until(lambda: page.names() == ["deep/", "x.dcm"])
    assert [crumb.text for crumb in page.all("#crumbs a")] == ["All objects", "chris", "feed_12"]
    page.drop("mine.txt", "mine")
    page.until(lambda: "mine.txt" in page.names())
    assert get(swift_storage, "chris/feed_12/mine.txt") == b"mine"
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
    start_job(page, "first")
    page.open("x/")
    page.until(lambda: job_status(page, "first"))
    assert page.names() == ["0", "1", "2"]
    (tmp_path / "tokens.cfg").write_text("[AUTH TOKENS]\nother = other-0123456789abcdef\n")
    page.by_id("refresh").click()
    page.until(lambda: page.text("token-reason") == "The server does not take this token.")
    page.until(lambda: (page.names(), page.all("#jobs-list li")) == ([], []))
