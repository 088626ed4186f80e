"""Coalescing of equal requests: one request to the store serves several concurrent callers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pfstorage.errors import StoppedError

T = TypeVar("T")

# The number of equal requests that may run at the same time. Further callers share the next request.
MAX_CONCURRENT = 2
# Seconds after which a shared request starts even if the earlier requests are still running: they may never end.
MAX_SHARED_WAIT = 1.0


@dataclass(eq=False)
class _SharedRequest(Generic[T]):
    """A request that has not started. The first caller sends it, when *may_start* is set; all callers get *result*."""

    may_start: threading.Event = field(default_factory=threading.Event)
    result: Future[T] = field(default_factory=Future)


@dataclass(eq=False)
class _Requests(Generic[T]):
    """All requests with one name: the number of *running* ones, and the *next* one with its callers."""

    running: int = 0
    next: _SharedRequest[T] | None = None


class RequestCoalescer(Generic[T]):
    """A sender that sends equal requests once for several callers. They must not modify the result. Thread-safe.

    A caller never gets the result of a request that was sent before the call, so it sees its own earlier changes.
    A caller does not join a running request. It joins the next one, which starts when one of `MAX_CONCURRENT` running
    requests has ended.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[Hashable, _Requests[T]] = {}

    def get(self, name: Hashable, send: Callable[[], T]) -> T:
        """Return the result of *send*, or of the *send* of another caller with the same *name*; raise its errors."""
        group: _SharedRequest[T] | None = None
        with self._lock:
            requests = self._requests.setdefault(name, _Requests())
            is_first = requests.next is None
            if is_first and requests.running < MAX_CONCURRENT:
                requests.running += 1
            else:
                group = requests.next = requests.next or _SharedRequest()
        if group is None:
            try:
                return send()
            finally:
                self._leave(name, requests)
        if is_first:
            self._send_for(group, name, requests, send)
        try:
            return group.result.result()
        except StoppedError:
            if is_first:
                raise
            return send()  # only the caller that sent the shared request was cancelled

    def _send_for(
        self, group: _SharedRequest[T], name: Hashable, requests: _Requests[T], send: Callable[[], T]
    ) -> None:
        """Send the request of *group*. In any case, set a result or an error, because the other callers wait for it."""
        try:
            try:
                group.may_start.wait(MAX_SHARED_WAIT)
            finally:
                with self._lock:
                    requests.next = None  # later callers may not use this result
                    requests.running += 1
            group.result.set_result(send())
        except BaseException as e:  # noqa: BLE001 - each caller of the group raises it
            group.result.set_exception(e)
        finally:
            self._leave(name, requests)

    def _leave(self, name: Hashable, requests: _Requests[T]) -> None:
        with self._lock:
            requests.running -= 1
            if requests.next:
                requests.next.may_start.set()
            elif not requests.running:
                del self._requests[name]
