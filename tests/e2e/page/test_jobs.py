"""The page at /: jobs and their events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from pfstorage.backends import ObjectInfo
from pfstorage.errors import RejectedError
from tests.support.held import Held
from tests.support.page import HOSTILE, SOON, Page, job_status, send_message, start_job


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


def refuse(*_: Any, **__: Any) -> Iterator[ObjectInfo]:
    raise RejectedError(HOSTILE)


def test_jobs_are_followed_and_cancelled(held: tuple[Held, Page]) -> None:
    storage, page = held
    start_job(page, "first")
    start_job(page, "second")
    page.open()
    page.until(lambda: job_status(page, "first").startswith("running"))
    page.until(lambda: job_status(page, "second"))
    row = next(row for row in page.all("#jobs-list li") if "second" in row.text)
    row.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    page.until(lambda: job_status(page, "second").startswith("cancelled"))
    assert page.browser.switch_to.active_element == row  # the page has removed its button
    storage.release.set()
    page.until(lambda: job_status(page, "first").startswith("done, 3 of 3 files, 15 B"))
    assert page.by_id("jobs-status").get_property("textContent") == "objPull first: done"
    assert not row.find_element(By.TAG_NAME, "button").is_displayed()
    assert page.complaints() == []


def test_a_job_that_is_not_done_shows_why(held: tuple[Held, Page], monkeypatch: pytest.MonkeyPatch) -> None:
    storage, page = held
    with monkeypatch.context() as broken:
        broken.setattr(storage, "list", refuse)
        job = start_job(page, "lost")
        over = send_message(page, "jobStatus", job=job, wait=30)
    assert over["state"] == "failed"
    start_job(page, "given up")
    assert storage.asked.acquire(timeout=SOON)
    jobs = send_message(page, "jobList")["jobs"]
    assert "reply" not in jobs[1]  # only the row names the reason
    page.open()
    page.until(lambda: job_status(page, "lost").startswith("failed"))
    assert job_status(page, "lost").endswith(f", {HOSTILE}")
    assert page.all("img") == []
    send_message(page, "jobCancel", job=jobs[0]["job"])
    storage.release.set()
    page.until(lambda: job_status(page, "given up").startswith("cancelled"))
    received = send_message(page, "jobList")["jobs"][0]["msg"]
    page.browser.refresh()
    page.until(lambda: received in job_status(page, "given up"))
    assert page.complaints() == []


def test_many_jobs_leave_connections_for_the_rest(held: tuple[Held, Page]) -> None:
    _, page = held
    for number in range(8):  # a browser opens six to one server
        start_job(page, f"job-{number}")
    page.open("new/")
    page.until(lambda: len([row for row in page.all("#jobs-list .status") if "running" in row.text]) == 8)
    page.drop("a.txt", "a")
    page.until(lambda: page.names() == ["a.txt"])
