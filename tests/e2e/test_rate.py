"""The rate limit, measured with a real clock."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pfstorage.errors import StoppedError
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer.rate import RateLimiter


def rate_of(rate_limiter: RateLimiter, threads: int, piece: int) -> float:
    """Return how many bytes a second many threads get passed for about a second."""
    passed, lock, cancellation = 0, threading.Lock(), CancellationToken()
    started = time.monotonic()

    def take() -> None:
        nonlocal passed
        while True:
            try:
                rate_limiter.take(piece, cancellation)
            except StoppedError:
                return
            with lock:
                passed += piece

    with ThreadPoolExecutor(threads) as pool:
        for _ in range(threads):
            pool.submit(take)
        threading.Timer(1.0, cancellation.cancel).start()
    return passed / (time.monotonic() - started)


@pytest.mark.parametrize(("threads", "piece"), [(1, 10_000), (30, 10_000), (30, 1000)])
def test_all_threads_together_keep_the_rate(threads: int, piece: int) -> None:
    rate = 1_000_000
    found = []
    while not found or (found[-1] < 0.8 * rate and len(found) < 5):  # the machine may have stood still
        found.append(rate_of(RateLimiter(rate), threads, piece))
        assert found[-1] <= 1.05 * rate
    assert found[-1] >= 0.8 * rate
