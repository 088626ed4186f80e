"""Limit the requests that are at work at once, and the requests that wait for that."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType

from pfstorage.errors import BusyError, StoppedError
from pfstorage.runtime.fair_share import FAIR_SHARE

# Clients wait longer than this for their response, and a refused client would only send its request again.
WAIT_SECONDS = 30.0
# By default, this allows as many waiting requests as there are connections. Each of them has its thread already.
WAITING_PER_WORKING = 8
# Only one message with more characters than this is decoded at a time. Decoding may take thirty times its size.
LARGE_MESSAGE = 64 * 1024


class _Ticket:
    """One waiting request. A request that wakes up without *is_admitted* is refused."""

    __slots__ = ("is_admitted", "lock")

    def __init__(self) -> None:
        self.is_admitted = False
        self.lock = threading.Lock()  # a lock for each ticket wakes up one thread, and no other
        self.lock.acquire()


class AdmissionQueue:
    """A queue that admits up to *limit* requests at once, and up to *owner_limit* of one owner. Others wait a while.

    Up to *waiting* times *limit* requests wait. The requests of one owner are admitted in the order of their arrival,
    and owners take turns, so that an owner of many requests delays only themselves. If too many wait, the owner with
    the most waiting requests loses the last of them. Each refused request gets a `BusyError` with the text *refusal*.
    Thread-safe.
    """

    def __init__(
        self,
        limit: int,
        waiting: int = WAITING_PER_WORKING,
        refusal: str = "the server has too much to do",
        owner_limit: int | None = None,
    ) -> None:
        self._limit = limit
        self._owner_limit = limit if owner_limit is None else owner_limit
        self._refusal = refusal
        self._max_waiting = waiting * limit
        self._admitted: Counter[str] = Counter()
        self._busy = 0
        # by owner, in the order of their turns: an owner moves to the end after each turn
        self._queues: dict[str, deque[_Ticket]] = {}
        self._waiting = 0
        self._is_closed = False
        self._lock = threading.Lock()

    def counts(self) -> dict[str, int]:
        """Return the numbers of requests that are at work, and that wait."""
        return {"busy": self._busy, "waiting": self._waiting}

    def is_wanted_of(self, owner: str) -> bool:
        """Return whether a request waits, and no owner has more admitted requests than *owner*."""
        with self._lock:
            return self._waiting > 0 and self._admitted[owner] >= max(self._admitted.values(), default=0)

    def enter(self, owner: str = "") -> bool:
        """Wait until a request of *owner* is admitted; return whether it had to wait. `leave` ends its work.

        Raise `BusyError`, or `StoppedError` after `close`.
        """
        with self._lock:
            if self._is_closed:
                raise _server_ends()
            if self._owner_limit < self._limit and owner and self._admitted[owner] >= self._owner_limit:
                raise self._refused()
            if self._busy < self._limit:
                self._busy += 1
                self._admitted[owner] += 1
                return False
            if self._waiting >= self._max_waiting and not self._displace(owner):
                raise self._refused()
            ticket = _Ticket()
            self._queues.setdefault(owner, deque()).append(ticket)
            self._waiting += 1
        if not (ticket.lock.acquire(timeout=WAIT_SECONDS) and ticket.is_admitted):
            self._give_up(owner, ticket)
        return True

    def _displace(self, owner: str) -> bool:
        """Refuse the last waiting request of the owner with the most, if they have more than *owner* would have."""
        if not self._queues:
            return False
        other, queue = max(self._queues.items(), key=lambda each: len(each[1]))
        if len(queue) <= len(self._queues.get(owner, ())) + 1:
            return False
        self._remove(other, queue[-1]).lock.release()
        return True

    def _remove(self, owner: str, ticket: _Ticket) -> _Ticket:
        queue = self._queues[owner]
        queue.remove(ticket)
        if not queue:
            del self._queues[owner]
        self._waiting -= 1
        return ticket

    def close(self) -> None:
        """Admit no more requests, and refuse all that wait."""
        with self._lock:
            self._is_closed = True
            for owner, queue in list(self._queues.items()):
                for ticket in list(queue):
                    self._remove(owner, ticket).lock.release()

    def leave(self, owner: str = "") -> None:
        """End the work of one request of *owner*, and admit the next one."""
        with self._lock:
            self._busy -= 1
            self._admitted[owner] -= 1
            if not self._admitted[owner]:
                del self._admitted[owner]
            if self._queues and not self._is_closed:
                self._admit_next()

    def _admit_next(self) -> None:
        owner, queue = next(iter(self._queues.items()))
        ticket = self._remove(owner, queue[0])
        if queue:
            self._queues[owner] = self._queues.pop(owner)
        self._busy += 1
        self._admitted[owner] += 1
        ticket.is_admitted = True
        ticket.lock.release()

    def _refused(self) -> BusyError:
        return BusyError(f"{self._refusal}: try again in some seconds")

    def _give_up(self, owner: str, ticket: _Ticket) -> None:
        """Stop waiting. Raise `BusyError` or `StoppedError`, unless the request was admitted just now."""
        with self._lock:
            if ticket in self._queues.get(owner, ()):
                self._remove(owner, ticket)
            if not ticket.is_admitted:
                raise _server_ends() if self._is_closed else self._refused()


class RequestPermit:
    """The permit of one HTTP request: its place in one of several queues, or in none.

    *transfers* is the queue of requests that move files, *requests* that of all others, so that a short listing never
    waits for a pull of many files. *decoding* admits large messages one by one. The request takes a place when it
    needs one, and keeps it until the last byte of its response was sent. *is_gone* returns whether the client has
    left. `ServerLoad.admit` sets the *owner* of the token and the *address*.

    One thread uses a permit; others may read its properties.
    """

    def __init__(
        self,
        requests: AdmissionQueue,
        transfers: AdmissionQueue,
        is_gone: Callable[[], bool] = lambda: False,
        *,
        followers: AdmissionQueue | None = None,
        decoding: AdmissionQueue | None = None,
        uploads: AdmissionQueue | None = None,
    ) -> None:
        self._requests = requests
        self._transfers = transfers
        self._followers = followers
        self._decoding = decoding
        self._uploads = uploads
        self.is_gone = is_gone
        self.owner = self.address = ""
        self._queue: AdmissionQueue | None = None
        self._name = ""  # the owner that the queue knows

    @property
    def is_wanted(self) -> bool:
        """Whether another request waits for this place, and no owner has more places than this one."""
        return self._queue is not None and self._queue.is_wanted_of(self._name)

    @property
    def is_at_work(self) -> bool:
        """Whether the request uses the store. Following a job or receiving an upload does not count."""
        return self._queue in (self._requests, self._transfers)

    @property
    def is_following(self) -> bool:
        """Whether the request follows a job."""
        return self._queue is not None and self._queue is self._followers

    def __enter__(self) -> RequestPermit:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def begin_decoding(self, size: int) -> None:
        """Wait until no other large message is decoded, if a message of *size* characters is a large one.

        The place lasts until `end_decoding`, or until the request takes another place: then its action has read its
        meta. Raise as `begin` does.
        """
        if self._decoding and size > LARGE_MESSAGE and self._queue is None:
            FAIR_SHARE.pause()  # decoding holds the interpreter's lock; a pause in the place would delay others
            self._enter(self._decoding)

    def end_decoding(self) -> None:
        """Give back the place of `begin_decoding`, if the request still has it."""
        if self._queue is self._decoding:
            self.end()

    def begin(self) -> None:
        """Take a place, unless the request has one. Raise `BusyError`, or `StoppedError` if the client has left."""
        if self._queue is None or self._queue is self._decoding:
            self.end()
            self._enter(self._requests)

    def begin_transfer(self) -> None:
        """Exchange the place for one among the requests that move files. Raise as `begin` does."""
        if self._queue is not self._transfers:
            self.end()
            self._enter(self._transfers)

    def begin_following(self) -> None:
        """Exchange the place for one among the requests that follow jobs. Raise `BusyError` without waiting."""
        if self._followers and self._queue is not self._followers:
            self.end()
            self._enter(self._followers)

    def begin_upload(self) -> bool:
        """Take a place among the uploads that are streamed to the store. Return whether there is one.

        Without one, the request has no place at all, because the body may take long to arrive.
        """
        self.end()
        with contextlib.suppress(BusyError):
            if self._uploads:
                self._enter(self._uploads)
        return self._queue is not None

    def end(self) -> None:
        """Give the place back, if the request has one."""
        if self._queue:
            self._queue.leave(self._name)
            self._queue = None

    def _enter(self, queue: AdmissionQueue) -> None:
        # Many clients of one proxy share its address, and each of them may follow a job.
        self._name = self.owner or ("" if queue is self._followers else self.address)
        has_waited = queue.enter(self._name)
        self._queue = queue
        if has_waited and self.is_gone():
            raise StoppedError("the client went away before its request was admitted")


def _server_ends() -> StoppedError:
    return StoppedError("the server ends: send the same message again when it runs again")
