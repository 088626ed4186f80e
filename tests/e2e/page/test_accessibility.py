"""The page at /: the keyboard, screen readers, and narrow windows."""

from __future__ import annotations

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.support.page import OBJECTS, Page, downloaded, violations


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
