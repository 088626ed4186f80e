"""How many requests are worked on at once."""

from __future__ import annotations

import threading

import pytest

from pfstorage.errors import BusyError
from pfstorage.serving import gate
from pfstorage.serving.gate import WAITING_PER_WORKING, Gate
from tests.local import in_threads


def test_so_many_are_at_work_at_once_and_all_get_their_turn() -> None:
    entrance, lock, present, most = Gate(3), threading.Lock(), 0, 0

    def pass_through() -> None:
        nonlocal present, most
        with entrance.passed():
            with lock:
                present += 1
                most = max(most, present)
            threading.Event().wait(0.02)
            with lock:
                present -= 1

    assert in_threads([pass_through] * 9) == []
    assert most == 3


def test_too_many_that_wait_are_sent_away_at_once() -> None:
    entrance, release = Gate(1), threading.Event()
    errors = []

    def hold() -> None:
        with entrance.passed():
            release.wait(10)

    threads = [threading.Thread(target=hold) for _ in range(1 + WAITING_PER_WORKING)]
    for thread in threads:
        thread.start()
    while len(entrance._waiting) < WAITING_PER_WORKING:
        threading.Event().wait(0.01)
    with pytest.raises(BusyError, match="too much to do"), entrance.passed():
        errors.append("it was let in")
    release.set()
    for thread in threads:
        thread.join()
    assert errors == []
    with entrance.passed():
        pass


def test_who_waits_too_long_is_sent_away_and_stands_in_nobodys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "WAIT_SECONDS", 0.05)
    entrance = Gate(1)
    with entrance.passed(), pytest.raises(BusyError), entrance.passed():
        pass
    with entrance.passed():
        pass


def test_what_fails_inside_gives_its_place_back() -> None:
    entrance = Gate(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="inside"), entrance.passed():
            raise ValueError("inside")
