"""Transfers that SIGINT interrupts."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pfstorage.errors import (
    UnavailableError,
)
from pfstorage.transfer import (
    pull,
)
from tests.conftest import read_tree
from tests.support.local import parts_in
from tests.support.transfers import Watched, context_on, filled, left_threads


@contextlib.contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Send the process SIGINT so much later, which is a `KeyboardInterrupt` in the thread of the test."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(seconds, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_ends_within_five_seconds_though_the_store_hangs() -> None:
    storage = Watched()
    plan = filled(storage, 100)
    transfer_context = context_on(storage)
    released = threading.Event()

    def hang() -> None:
        with transfer_context.retry_policy.abortable(released.set):
            released.wait(60)
        raise UnavailableError("broken off")

    storage.waits = {item.key: hang for item in plan[20:]}
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), interrupted_after(0.3):
        pull(plan, transfer_context)
    assert time.monotonic() - started < 0.3 + 5.0
    assert parts_in("out") == []
    assert len(read_tree(Path("out"))) == 20
    assert not left_threads()


# an interrupt that comes while Python takes an object apart is lost, as in any __del__: the pull goes on then
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function Directory.__del__")
@pytest.mark.parametrize("durable", ["none", "batch"])
def test_an_interrupt_at_any_moment_leaves_nothing_behind(durable: str, tmp_path: Path) -> None:
    storage = Watched()
    plan = filled(storage, 3000, 400)
    for number in range(25):
        with contextlib.suppress(KeyboardInterrupt), interrupted_after(random.uniform(0.01, 0.3)):
            pull(plan, context_on(storage, 4, durable=durable, overwrite="always"))
        assert parts_in("out") == [], number
    assert not left_threads()
    assert {len(content) for content in read_tree(tmp_path / "out").values()} == {400}
