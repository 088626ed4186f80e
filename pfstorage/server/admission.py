"""How many requests are worked on at once, and how many may wait for that."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType

from pfstorage.errors import BusyError, StoppedError

WAIT_SECONDS = 30.0
"""A client waits longer than that for the answer to its request; and one that was sent away would come again."""
WAITING_PER_WORKING = 8
"""By default, as many as there are connections: each of them has its thread already."""


class _Ticket:
    """The place of one who waits. *is_called* when the turn came; who is woken up without that is sent away."""

    __slots__ = ("is_called", "lock")

    def __init__(self) -> None:
        self.is_called = False
        self.lock = threading.Lock()  # who leaves wakes up the next one, and nobody else
        self.lock.acquire()


class AdmissionQueue:
    """Lets *most* at once in, and *each* at most of one owner; *waiting* times as many wait for some seconds.

    Those of one owner come in in the order of their arrival, and owners in turns: who sends many requests waits for
    their own ones. Where too many wait, who has most of them is sent away first. All who are sent away get *why*.
    """

    def __init__(
        self,
        most: int,
        waiting: int = WAITING_PER_WORKING,
        why: str = "the server has too much to do",
        each: int | None = None,
    ) -> None:
        self._most = most
        self._each = most if each is None else each
        self._why = why
        self._most_waiting = waiting * most
        self._inside: Counter[str] = Counter()
        self._busy = 0
        self._queues: dict[str, deque[_Ticket]] = {}  # by owner: the first is next, and then goes to the end
        self._waiting = 0
        self._is_ended = False
        self._lock = threading.Lock()

    def counts(self) -> dict[str, int]:
        """Return how many are at work, and how many wait for that."""
        return {"busy": self._busy, "waiting": self._waiting}

    def is_wanted_of(self, owner: str) -> bool:
        """Tell whether somebody waits for a place, and nobody has more of them than *owner*."""
        with self._lock:
            return self._waiting > 0 and self._inside[owner] >= max(self._inside.values(), default=0)

    def enter(self, owner: str = "") -> bool:
        """Be one of those inside, until `leave` of the same *owner*; tell whether that took a while.

        Raise `BusyError`, or `StoppedError` after the `end`.
        """
        with self._lock:
            if self._is_ended:
                raise _ended()
            if self._each < self._most and owner and self._inside[owner] >= self._each:
                raise self._sent_away()
            if self._busy < self._most:
                self._busy += 1
                self._inside[owner] += 1
                return False
            if self._waiting >= self._most_waiting and not self._made_room(owner):
                raise self._sent_away()
            ticket = _Ticket()
            self._queues.setdefault(owner, deque()).append(ticket)
            self._waiting += 1
        if not (ticket.lock.acquire(timeout=WAIT_SECONDS) and ticket.is_called):
            self._give_up(owner, ticket)
        return True

    def _made_room(self, owner: str) -> bool:
        """Send away the last one of whoever has most that wait, if those are more than *owner* then has."""
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

    def end(self) -> None:
        """Let nobody in any more, and send away who waits."""
        with self._lock:
            self._is_ended = True
            for owner, queue in list(self._queues.items()):
                for ticket in list(queue):
                    self._remove(owner, ticket).lock.release()

    def leave(self, owner: str = "") -> None:
        """Hand the place to who has waited longest of the owner whose turn it is."""
        with self._lock:
            self._busy -= 1
            self._inside[owner] -= 1
            if not self._inside[owner]:
                del self._inside[owner]
            if self._queues and not self._is_ended:
                self._call_next()

    def _call_next(self) -> None:
        owner, queue = next(iter(self._queues.items()))
        ticket = self._remove(owner, queue[0])
        if queue:
            self._queues[owner] = self._queues.pop(owner)
        self._busy += 1
        self._inside[owner] += 1
        ticket.is_called = True
        ticket.lock.release()

    def _sent_away(self) -> BusyError:
        return BusyError(f"{self._why}: try again in some seconds")

    def _give_up(self, owner: str, ticket: _Ticket) -> None:
        """Wait no more. Raise `BusyError` or `StoppedError`, unless its turn came just now."""
        with self._lock:
            if ticket in self._queues.get(owner, ()):
                self._remove(owner, ticket)
            if not ticket.is_called:
                raise _ended() if self._is_ended else self._sent_away()


LARGE = 64 * 1024
"""Characters of a message beyond which no two are decoded at once: what it decodes to may take thirty times as much."""


class Permit:
    """One request's place among those at work: inside one of the gates, of which *long* is for those that move files.

    While its message is decoded, if that is a large one, it is inside the gate *decoding*.

    A place is taken when it is needed, and given back when all of the answer has left. So an ``ls`` never waits
    for those that pull a hundred thousand files, and what needs no store waits for nobody.
    *is_gone* tells whether the client has gone meanwhile. `ServerLoad.admit` sets the *owner* of the token and the
    *address*.
    """

    def __init__(
        self,
        quick: AdmissionQueue,
        long: AdmissionQueue,
        is_gone: Callable[[], bool] = lambda: False,
        *,
        followers: AdmissionQueue | None = None,
        decoding: AdmissionQueue | None = None,
        uploads: AdmissionQueue | None = None,
    ) -> None:
        self._quick = quick
        self._long = long
        self._followers = followers
        self._decoding = decoding
        self._uploads = uploads
        self.is_gone = is_gone
        self.owner = self.address = ""
        self._inside: AdmissionQueue | None = None
        self._name = ""  # under which it is inside

    @property
    def is_wanted(self) -> bool:
        """Tell whether this request has a place that another waits for, and that its owner has too many of."""
        return self._inside is not None and self._inside.is_wanted_of(self._name)

    @property
    def is_at_work(self) -> bool:
        """Tell whether it is inside, and neither follows a job nor waits for what a client uploads."""
        return self._inside in (self._quick, self._long)

    @property
    def is_following(self) -> bool:
        return self._inside is not None and self._inside is self._followers

    def __enter__(self) -> Permit:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def begin_decoding(self, size: int) -> None:
        """Be the only one who has a large message, if that of *size* is one: until `end_decoding`, or another place.

        By then, its action has taken of it what is needed. Raise as `begin` does.
        """
        if self._decoding and size > LARGE and self._inside is None:
            self._enter(self._decoding)

    def end_decoding(self) -> None:
        if self._inside is self._decoding:
            self.end()

    def begin(self) -> None:
        """Be inside. Raise `BusyError`, or `StoppedError` if nobody waits for the answer any more."""
        if self._inside is None or self._inside is self._decoding:
            self.end()
            self._enter(self._quick)

    def begin_transfer(self) -> None:
        """Be inside the gate of those that move files. Raise as `begin` does."""
        if self._inside is not self._long:
            self.end()
            self._enter(self._long)

    def begin_following(self) -> None:
        """Be one of those who wait for what becomes of a job. Raise `BusyError`, and let nobody wait for that."""
        if self._followers and self._inside is not self._followers:
            self.end()
            self._enter(self._followers)

    def begin_upload(self) -> bool:
        """Be one of those whose body goes on to the store as it comes, if there is a place; tell whether there is.

        If there is none, have no place at all: the body may be long in coming.
        """
        self.end()
        with contextlib.suppress(BusyError):
            if self._uploads:
                self._enter(self._uploads)
        return self._inside is not None

    def end(self) -> None:
        """Give the place back, if there is one."""
        if self._inside:
            self._inside.leave(self._name)
            self._inside = None

    def _enter(self, admission: AdmissionQueue) -> None:
        # an address may be that of a proxy, whose clients all may follow jobs
        self._name = self.owner or ("" if admission is self._followers else self.address)
        has_waited = admission.enter(self._name)
        self._inside = admission
        if has_waited and self.is_gone():
            raise StoppedError("the client went away before its turn came")


def _ended() -> StoppedError:
    return StoppedError("the server ends: send the same again when it is there again")
