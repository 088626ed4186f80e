"""What a server has to do just now: connections, requests at work, and who waits for whom."""

from __future__ import annotations

import logging
import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pfstorage.errors import BusyError
from pfstorage.runtime.sockets import has_unread_bytes, shut_down
from pfstorage.server.admission import AdmissionQueue, Permit
from pfstorage.server.spool import Room
from pfstorage.transfer import WorkerBudget

log = logging.getLogger(__name__)

GUESTS = 32
"""Connections beyond those that have a place, until it is known what they ask for. The next one takes the oldest's."""
CROWDED_SECONDS = 10.0
"""How long after a request found no place whoever holds most, and takes their time, is in the way."""

Gauge = tuple[str, str, Callable[[], Mapping[str, float]]]
"""A text, the name of a label, and what returns the numbers by that label: one without one stands under ""."""


@dataclass
class Holder:
    """Who holds a connection: an *address*; while a request is at work, the *owner* of its token, and its *permit*."""

    address: str
    owner: str = ""
    permit: Permit | None = None


class ServerLoad:
    """Counts the connections and the requests of one server, and bounds them. Any thread may call a method."""

    def __init__(
        self,
        most_connections: int,
        most_requests: int,
        most_workers: int,
        most_streams: int | None = None,
        most_spooled: float = math.inf,
    ) -> None:
        self.workers = WorkerBudget(most_workers)
        self.room = Room(most_spooled)
        self.quick, self.long = AdmissionQueue(most_requests), AdmissionQueue(most_requests)
        self.decoding = AdmissionQueue(1, most_connections)
        # who finds no place there goes to disk first
        self.uploads = AdmissionQueue(most_requests, 0)
        # who follows a job does no work, and holds a connection: half of them are left to others
        half = max(1, most_connections // 2)
        each = min(half if most_streams is None else most_streams, max(1, half // 2))
        self.followers = AdmissionQueue(half, 0, "too many clients follow jobs", each)
        self._most = most_connections
        self._holders: dict[socket.socket, Holder] = {}  # whose request began first comes first
        self._open: set[socket.socket] = set()  # those that have a place
        self._guests: dict[socket.socket, None] = {}  # those that have none, the oldest first
        self._new: dict[socket.socket, None] = {}  # those that have sent nothing so far, in their order
        self._idle: dict[socket.socket, None] = {}  # those between two requests, the longest first
        self._answered = 0
        self._at_work: set[socket.socket] = set()
        self._is_full = False
        self._refused_at = float("-inf")
        self._crowd: set[tuple[str, str]] = set()  # who held most by then
        # each request takes the lock itself twice: by way of the condition, that takes longer
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._is_awaited = False  # a server that serves for ever has nobody wait until its end

    @property
    def at_work(self) -> int:
        """How many requests are being answered, from their first line on."""
        return len(self._at_work)

    @property
    def answered(self) -> int:
        return self._answered

    def is_in_the_way(self, connection: socket.socket) -> bool:
        """Tell whether a request found no place lately, when nobody held more than who holds *connection*."""
        if time.monotonic() - self._refused_at >= CROWDED_SECONDS:
            return False
        holder = self._holders.get(connection)
        return holder is not None and (holder.address, holder.owner) in self._crowd

    def new_turn(self, is_gone: Callable[[], bool]) -> Permit:
        """Return the place that a request is to take among those at work, unless its client *is_gone* by then."""
        return Permit(
            self.quick,
            self.long,
            is_gone,
            followers=self.followers,
            decoding=self.decoding,
            uploads=self.uploads,
        )

    def connect(self, connection: socket.socket, address: str = "") -> bool:
        """Count *connection* from *address* until `disconnect`; tell whether it has a place.

        If there are too many, it takes the place of another in which nothing is under way: of one that has
        had an answer, or else of one that has not sent anything, and of those the one that has waited longest.
        If there is none, it is a guest until `admit`.
        """
        with self._lock:
            has_place = len(self._open) < self._most or self._made_room()
            self._holders[connection] = Holder(address)
            if has_place:
                self._open.add(connection)
                self._new[connection] = None
                self._is_full = False
            else:
                if len(self._guests) >= GUESTS:
                    self._evict(next(iter(self._guests)))
                self._guests[connection] = None
        return has_place

    def is_guest(self, connection: socket.socket) -> bool:
        return connection in self._guests

    def admit(self, connection: socket.socket, permit: Permit, owner: str = "") -> None:
        """Give the request of *connection*, which is one of *owner*, a place if it has none. Raise `BusyError`.

        Where all are taken, it may have that of whoever holds most: an address, or else the owner of a token.
        """
        holder = self._holders.get(connection)
        if holder is None:  # its place was given to another
            raise no_place()
        permit.owner, permit.address = owner, holder.address
        holder.owner, holder.permit = owner, permit
        if connection in self._guests:
            with self._lock:
                if not (len(self._open) < self._most or self._made_room() or self._took_room(holder)):
                    self._note_refusal()
                    raise no_place()
                del self._guests[connection]
                self._open.add(connection)

    def refuse(self) -> None:
        """Note that a guest said nothing, and gets no place."""
        with self._lock:
            self._note_refusal()

    def _note_refusal(self) -> None:
        self._refused_at = time.monotonic()
        held = Counter((each.address, each.owner) for each in map(self._holders.__getitem__, self._open))
        most = max(held.values(), default=0)
        self._crowd = {who for who, count in held.items() if count == most}
        if not self._is_full:
            log.warning("no more connections are taken: there are %d, see --maxConnections", self._most)
        self._is_full = True

    def _made_room(self) -> bool:
        for waiting in (self._idle, self._new):
            for connection in waiting:
                if not has_unread_bytes(connection):  # else its request is there already
                    self._evict(connection)
                    return True
        return False

    def _took_room(self, newcomer: Holder) -> bool:
        """End a connection of whoever holds most, if that is more than *newcomer* then has.

        It is none that is at work with the store. Who follows a job goes first, then whose request began first.
        """
        for kind in ("address", "owner"):
            counts = Counter(getattr(self._holders[each], kind) for each in self._open)
            other, most = counts.most_common(1)[0]
            if most <= counts[getattr(newcomer, kind)] + 1:
                continue
            resting = [
                (not (permit and permit.is_following), number, connection)
                for number, (connection, holder) in enumerate(self._holders.items())
                if connection in self._open and getattr(holder, kind) == other
                if not ((permit := holder.permit) and permit.is_at_work)
            ]
            if resting:
                self._evict(min(resting)[-1])
                return True
        return False

    def _evict(self, connection: socket.socket) -> None:
        self._forget(connection)
        shut_down(connection)

    def replace(self, connection: socket.socket, by: socket.socket) -> bool:
        """Count *by* in the place of *connection*, which it goes on with; tell whether that is still counted."""
        with self._lock:
            holder = self._holders.get(connection)
            if holder is None:
                return False
            kinds = [kind for kind in (self._new, self._guests) if connection in kind]
            has_place = connection in self._open
            self._forget(connection)
            self._holders[by] = holder
            if has_place:
                self._open.add(by)
            for kind in kinds:
                kind[by] = None
            return True

    def wait(self, connection: socket.socket) -> None:
        """Note that nothing is under way in *connection*: until a request comes, its place may be given to another."""
        with self._lock:
            if connection in self._open:
                self._idle[connection] = None

    def wake(self, connection: socket.socket) -> bool:
        """Note that the first byte of a request has come; tell whether *connection* is still counted."""
        with self._lock:
            self._new.pop(connection, None)
            self._idle.pop(connection, None)
            holder = self._holders.pop(connection, None)
            if holder:
                self._holders[connection] = holder
            return holder is not None

    def disconnect(self, connection: socket.socket) -> None:
        with self._lock:
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        self._open.discard(connection)
        for known in (self._holders, self._guests, self._new, self._idle):
            known.pop(connection, None)

    def begin(self, connection: socket.socket) -> None:
        """Count a request of *connection* that is being answered, until `end`."""
        with self._lock:
            self._at_work.add(connection)

    def end(self, connection: socket.socket) -> None:
        """Note that the request is answered, and that *connection* waits for another."""
        with self._lock:
            self._at_work.discard(connection)
            if connection in self._open:
                self._idle[connection] = None
            if holder := self._holders.get(connection):
                holder.owner, holder.permit = "", None
            self._answered += 1
            if self._is_awaited:
                self._changed.notify_all()

    def wait_for_change(self, seconds: float) -> None:
        """Wait until a request is answered, or *seconds* are over."""
        with self._changed:
            self._is_awaited = True
            self._changed.wait(seconds)

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until all requests are answered, *seconds* at most; tell whether they are."""
        with self._changed:
            self._is_awaited = True
            return self._changed.wait_for(lambda: not self._at_work, seconds)

    def end_turns(self) -> None:
        """Let no request begin to work any more; who waits for that is told so."""
        for admission in (self.quick, self.long, self.followers, self.decoding, self.uploads):
            admission.end()

    def shut_down(self) -> None:
        """End the connections of the requests that are not answered yet: no client is waited for any more."""
        with self._lock:
            connections = list(self._at_work)
        for connection in connections:
            shut_down(connection)

    def gauges(self) -> dict[str, Gauge]:
        """Return what `Metrics` shows of it."""
        return {
            "connections": ("Connections that are open.", "", lambda: {"": len(self._holders)}),
            "followers": ("Requests that follow jobs.", "", lambda: {"": self.followers.counts()["busy"]}),
            "requests": ("Requests, without those that move files.", "state", self.quick.counts),
            "transfers": ("Requests that move files.", "state", self.long.counts),
            "uploads": (
                "Uploads that go on to the store as they come.",
                "",
                lambda: {"": self.uploads.counts()["busy"]},
            ),
            "spooled_bytes": ("Bytes of uploads that lie on the disk.", "", lambda: {"": self.room.taken}),
            "workers": ("Workers that move files.", "state", self.workers.counts),
        }


def no_place() -> BusyError:
    return BusyError("the server has too many connections: try again in some seconds")
