"""The number of simultaneous requests, and the order of waiting ones."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pfstorage.errors import BusyError, StoppedError
from pfstorage.server import admission
from pfstorage.server.admission import WAITING_PER_WORKING, AdmissionQueue, RequestPermit
from pfstorage.server.load import ServerLoad
from tests.support.local import in_threads


@contextlib.contextmanager
def permit(
    quick: AdmissionQueue, long: AdmissionQueue | None = None, is_gone: Callable[[], bool] = lambda: False
) -> Iterator[RequestPermit]:
    with RequestPermit(quick, long or AdmissionQueue(1), is_gone) as made:
        made.begin()
        yield made


def test_the_queue_limits_simultaneous_permits_and_grants_all() -> None:
    queue, lock, present, most = AdmissionQueue(3), threading.Lock(), 0, 0

    def use_permit() -> None:
        nonlocal present, most
        with permit(queue):
            with lock:
                present += 1
                most = max(most, present)
            threading.Event().wait(0.02)
            with lock:
                present -= 1

    assert in_threads([use_permit] * 9) == []
    assert most == 3
    assert queue.counts() == {"busy": 0, "waiting": 0}


def test_surplus_waiting_requests_are_refused_at_once() -> None:
    queue, release = AdmissionQueue(1), threading.Event()
    errors = []

    def hold() -> None:
        with permit(queue):
            release.wait(10)

    threads = [threading.Thread(target=hold) for _ in range(1 + WAITING_PER_WORKING)]
    for thread in threads:
        thread.start()
    while queue.counts() != {"busy": 1, "waiting": WAITING_PER_WORKING}:
        threading.Event().wait(0.01)
    with pytest.raises(BusyError, match="too much to do"), permit(queue):
        errors.append("it was let in")
    release.set()
    for thread in threads:
        thread.join()
    assert errors == []
    with permit(queue):
        pass


def test_a_request_that_waits_too_long_is_refused_and_blocks_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "WAIT_SECONDS", 0.05)
    queue = AdmissionQueue(1)
    with permit(queue), pytest.raises(BusyError), permit(queue):
        pass
    with permit(queue):
        pass


def test_a_request_that_fails_releases_its_permit() -> None:
    queue = AdmissionQueue(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="inside"), permit(queue):
            raise ValueError("inside")


def test_transfers_leave_permits_to_others_and_have_a_limit_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "WAIT_SECONDS", 0.05)
    quick, long = AdmissionQueue(1), AdmissionQueue(2)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(permit(quick, long)).begin_transfer()
        assert (quick.counts()["busy"], long.counts()["busy"]) == (0, 2)
        with permit(quick, long) as third, pytest.raises(BusyError):
            third.begin_transfer()
        with permit(quick, long):
            pass
    assert (quick.counts()["busy"], long.counts()["busy"]) == (0, 0)


def test_a_request_that_needs_no_store_takes_no_permit() -> None:
    queue = AdmissionQueue(1)
    with RequestPermit(queue, AdmissionQueue(1)), permit(queue) as inside:
        inside.begin()  # a second call takes no second permit
        assert queue.counts() == {"busy": 1, "waiting": 0}
    assert queue.counts()["busy"] == 0


def test_a_request_whose_client_has_disconnected_passes_its_permit_on() -> None:
    queue, continued = AdmissionQueue(1), []

    def wait() -> None:
        with pytest.raises(StoppedError, match="went away"), permit(queue, is_gone=lambda: True):
            continued.append("it went on")

    with permit(queue):
        thread = threading.Thread(target=wait)
        thread.start()
        while queue.counts()["waiting"] == 0:
            threading.Event().wait(0.001)
    thread.join()
    assert continued == []
    assert queue.counts() == {"busy": 0, "waiting": 0}


def test_waiting_requests_are_admitted_in_the_order_of_arrival() -> None:
    queue, order = AdmissionQueue(1), []

    def use_permit(number: int) -> None:
        with permit(queue):
            order.append(number)

    threads = [threading.Thread(target=use_permit, args=(number,)) for number in range(8)]
    with permit(queue):
        for number, thread in enumerate(threads):
            thread.start()
            while queue.counts()["waiting"] <= number:
                threading.Event().wait(0.001)
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_a_request_admitted_as_it_gives_up_has_the_permit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "WAIT_SECONDS", 0.001)
    queue, passed = AdmissionQueue(1), 0

    def use_permit() -> None:
        nonlocal passed
        for _ in range(200):
            with contextlib.suppress(BusyError), permit(queue):
                passed += 1
                threading.Event().wait(0.001)

    assert in_threads([use_permit] * 4) == []
    assert passed > 0
    assert queue.counts() == {"busy": 0, "waiting": 0}


def test_after_the_end_nothing_is_admitted_and_waiting_requests_are_refused() -> None:
    admission = AdmissionQueue(1)
    admission.enter()
    with ThreadPoolExecutor(3) as threads:
        waiting = [threads.submit(admission.enter) for _ in range(3)]
        while admission.counts()["waiting"] < 3:
            time.sleep(0.01)
        admission.close()
        admission.close()
        admission.leave()
        for each in waiting:
            with pytest.raises(StoppedError, match="the server ends"):
                each.result(10)
    with pytest.raises(StoppedError):
        admission.enter()
    assert admission.counts() == {"busy": 0, "waiting": 0}


def test_the_end_refuses_each_request_that_waits_for_a_permit() -> None:
    load = ServerLoad(10, 1, 1)
    load.close_queues()
    for begin in (load.new_permit(lambda: False).begin, load.new_permit(lambda: False).begin_transfer):
        with pytest.raises(StoppedError):
            begin()
