"""The page at /: uploads, their progress, and objects that they must not replace."""

from __future__ import annotations

import random
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from pfstorage import Settings, open_storage
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.memory import MemoryStorage
from tests.conftest import write_tree
from tests.support.objects import get, put
from tests.support.page import OBJECTS, TOKENS, WRITER, Page, opened


def test_the_first_object_is_uploaded_into_a_store_without_a_container(
    swift_storage: Storage, chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    with opened(swift_storage, chromium, tmp_path) as page:
        page.open()
        assert (page.text("summary"), page.text("alert")) == ("This folder is empty.", "")
        page.drop("first.txt", "first")
        page.until(lambda: page.names() == ["first.txt"])


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
        assert get(swift_storage, f"chris/new/{name}") == content
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
    assert get(swift_storage, "chris/a.dcm") == OBJECTS["chris/a.dcm"]
    page.drop("a.dcm", "newer")
    page.until(lambda: page.by_id("replace-dialog").get_attribute("open"))
    page.all("#replace-form button[value=replace]")[0].click()
    page.until(lambda: page.transfers()[-1:] == ["stored"])
    assert get(swift_storage, "chris/a.dcm") == b"newer"
    page.drop("a.dcm", "newest")
    page.until(lambda: page.by_id("replace-dialog").get_attribute("open"))
    # as Escape does in some browsers: it is no answer, whatever the last one was
    page.browser.execute_script("document.getElementById('replace-dialog').close()")
    page.until(lambda: page.transfers()[-1:] == ["not replaced"])
    assert get(swift_storage, "chris/a.dcm") == b"newer"
    page.drop("other.txt", "other")
    page.until(lambda: "other.txt" in page.names())
    assert get(swift_storage, "chris/other.txt") == b"other"


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
    assert {get(swift_storage, f"chris/{file.name}") for file in files} == {b"new"}


def test_a_name_with_special_characters_of_urls_is_sent_whole(page: Page, swift_storage: Storage) -> None:
    page.open("chris/")
    page.drop("100% #1?.txt", "all of it")
    page.until(lambda: page.transfers() == ["stored"])
    assert get(swift_storage, "chris/100% #1?.txt") == b"all of it"


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
    assert get(swift_storage, "study/series/deep/er/<b>.txt") == b"deep"
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
    found = {row.key: get(swift_storage, row.key) for row in swift_storage.list("study/")}
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


@pytest.mark.parametrize("folder", ["d/../", "./"])
def test_keys_that_the_server_refuses_are_shown(page: Page, folder: str) -> None:
    page.open(folder)
    page.drop("a.txt", "x")
    page.until(lambda: "has a component '.' or '..'" in page.transfers()[-1])


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
    assert get(swift_storage, "chris/20.bin") == b"x" * 10
    assert page.complaints() == []
