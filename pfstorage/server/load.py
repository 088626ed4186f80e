"""Count and limit the connections and requests of one server."""

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
from pfstorage.server.admission import AdmissionQueue, RequestPermit
from pfstorage.server.spool import CONTENTION_SECONDS, SpoolSpace
from pfstorage.transfer import WorkerBudget

log = logging.getLogger(__name__)

# Connections above the limit, whose requests are not known yet. One more displaces the oldest of them.
MAX_PROVISIONAL = 32

# the help text of a metric, the name of its label, and a function that returns the value of each label value
Gauge = tuple[str, str, Callable[[], Mapping[str, float]]]


@dataclass
class Holder:
    """The client of a connection: its *address* and, during a request, the token *owner* and the *permit*."""

    address: str
    owner: str = ""
    permit: RequestPermit | None = None


class ServerLoad:
    """The counts of the connections and requests of one server, and their limits. Thread-safe.

    A connection is new, idle, or in the middle of a request. It is provisional if it was accepted above the limit:
    such a connection has no place until `admit`.
    """

    def __init__(
        self,
        max_connections: int,
        max_requests: int,
        max_workers: int,
        max_streams: int | None = None,
        max_spool: float = math.inf,
    ) -> None:
        self.workers = WorkerBudget(max_workers)
        self.spool_space = SpoolSpace(max_spool)
        self.requests, self.transfers = AdmissionQueue(max_requests), AdmissionQueue(max_requests)
        self.decoding = AdmissionQueue(1, max_connections)
        # without waiting places: an upload that is not admitted is spooled on disk
        self.uploads = AdmissionQueue(max_requests, 0)
        # Requests that follow jobs do no work, but hold connections. Half of the connections remain for others.
        half = max(1, max_connections // 2)
        owner_limit = min(half if max_streams is None else max_streams, max(1, half // 2))
        self.followers = AdmissionQueue(half, 0, "too many clients follow jobs", owner_limit)
        self._max_connections = max_connections
        self._holders: dict[socket.socket, Holder] = {}  # in the order in which their requests began
        self._open: set[socket.socket] = set()  # the connections that have a place
        self._provisional: dict[socket.socket, None] = {}  # the oldest first
        self._new: dict[socket.socket, None] = {}  # without a byte received, the oldest first
        self._idle: dict[socket.socket, None] = {}  # between two requests, the longest idle first
        self._answered = 0
        self._at_work: set[socket.socket] = set()
        self._is_full = False
        self._refused_at = float("-inf")
        self._largest: set[tuple[str, str]] = set()  # address and owner of those that held most by then
        # Each request takes the lock twice. Taking it directly is faster than through the condition.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._is_awaited = False  # avoids notifications while no thread waits for them

    @property
    def at_work(self) -> int:
        """The number of requests that are being answered. A request counts from its first line on."""
        return len(self._at_work)

    @property
    def answered(self) -> int:
        """The number of requests that were answered."""
        return self._answered

    def is_in_the_way(self, connection: socket.socket) -> bool:
        """Return whether a connection was refused lately while no client held more than that of *connection*."""
        if time.monotonic() - self._refused_at >= CONTENTION_SECONDS:
            return False
        holder = self._holders.get(connection)
        return holder is not None and (holder.address, holder.owner) in self._largest

    def new_permit(self, is_gone: Callable[[], bool]) -> RequestPermit:
        """Return a permit for a request. *is_gone* returns whether its client has left."""
        return RequestPermit(
            self.requests,
            self.transfers,
            is_gone,
            followers=self.followers,
            decoding=self.decoding,
            uploads=self.uploads,
        )

    def connect(self, connection: socket.socket, address: str = "") -> bool:
        """Count *connection* from *address* until `disconnect`. Return whether it has a place.

        If all places are taken, it displaces the connection that was idle longest, or else the oldest one that has
        sent nothing. If there is neither, it is provisional until `admit`.
        """
        with self._lock:
            has_place = len(self._open) < self._max_connections or self._displace_quiet()
            self._holders[connection] = Holder(address)
            if has_place:
                self._open.add(connection)
                self._new[connection] = None
                self._is_full = False
            else:
                if len(self._provisional) >= MAX_PROVISIONAL:
                    self._evict(next(iter(self._provisional)))
                self._provisional[connection] = None
        return has_place

    def is_provisional(self, connection: socket.socket) -> bool:
        """Return whether *connection* has no place yet."""
        return connection in self._provisional

    def admit(self, connection: socket.socket, permit: RequestPermit, owner: str = "") -> None:
        """Give *connection* a place for a request of *owner*, if it has none. Raise `BusyError`.

        If all places are taken, it displaces a connection of the client that holds most: an address, or else the owner
        of a token.
        """
        holder = self._holders.get(connection)
        if holder is None:  # another connection has displaced it
            raise no_place()
        permit.owner, permit.address = owner, holder.address
        holder.owner, holder.permit = owner, permit
        if connection in self._provisional:
            with self._lock:
                if connection not in self._provisional:  # another connection has displaced it just now
                    raise no_place()
                has_place = len(self._open) < self._max_connections
                if not (has_place or self._displace_quiet() or self._displace_largest(holder)):
                    self._note_refusal()
                    raise no_place()
                del self._provisional[connection]
                self._open.add(connection)

    def refuse(self) -> None:
        """Note that a provisional connection sent no request in time, and gets no place."""
        with self._lock:
            self._note_refusal()

    def _note_refusal(self) -> None:
        self._refused_at = time.monotonic()
        held = Counter((each.address, each.owner) for each in map(self._holders.__getitem__, self._open))
        largest = max(held.values(), default=0)
        self._largest = {client for client, count in held.items() if count == largest}
        if not self._is_full:
            log.warning(
                "new connections are refused: all %d are in use, see --maxConnections", self._max_connections
            )
        self._is_full = True

    def _displace_quiet(self) -> bool:
        for quiet in (self._idle, self._new):
            for connection in quiet:
                if not has_unread_bytes(connection):  # otherwise its request has arrived already
                    self._evict(connection)
                    return True
        return False

    def _displace_largest(self, newcomer: Holder) -> bool:
        """Close a connection of the client that holds most, if that is more than *newcomer* would have.

        A connection at work with the store stays. Those that follow a job go first, then the longest running ones.
        """
        for kind in ("address", "owner"):
            counts = Counter(getattr(self._holders[each], kind) for each in self._open)
            other, largest = counts.most_common(1)[0]
            if largest <= counts[getattr(newcomer, kind)] + 1:
                continue
            displaceable = [
                (not (permit and permit.is_following), number, connection)
                for number, (connection, holder) in enumerate(self._holders.items())
                if connection in self._open and getattr(holder, kind) == other
                if not ((permit := holder.permit) and permit.is_at_work)
            ]
            if displaceable:
                self._evict(min(displaceable)[-1])
                return True
        return False

    def _evict(self, connection: socket.socket) -> None:
        self._forget(connection)
        shut_down(connection)

    def replace(self, connection: socket.socket, by: socket.socket) -> bool:
        """Count *by*, the TLS socket over *connection*, in its place. Return whether *connection* was counted."""
        with self._lock:
            holder = self._holders.get(connection)
            if holder is None:
                return False
            kinds = [kind for kind in (self._new, self._provisional) if connection in kind]
            has_place = connection in self._open
            self._forget(connection)
            self._holders[by] = holder
            if has_place:
                self._open.add(by)
            for kind in kinds:
                kind[by] = None
            return True

    def wait(self, connection: socket.socket) -> None:
        """Note that *connection* is idle: another one may take its place until a request arrives."""
        with self._lock:
            if connection in self._open:
                self._idle[connection] = None

    def wake(self, connection: socket.socket) -> bool:
        """Note that the first byte of a request has arrived. Return whether *connection* is still counted."""
        with self._lock:
            self._new.pop(connection, None)
            self._idle.pop(connection, None)
            holder = self._holders.pop(connection, None)
            if holder:
                self._holders[connection] = holder
            return holder is not None

    def disconnect(self, connection: socket.socket) -> None:
        """Count *connection* no more."""
        with self._lock:
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        self._open.discard(connection)
        for known in (self._holders, self._provisional, self._new, self._idle):
            known.pop(connection, None)

    def begin(self, connection: socket.socket) -> None:
        """Count a request of *connection* as being at work until `end`."""
        with self._lock:
            self._at_work.add(connection)

    def end(self, connection: socket.socket) -> None:
        """Note that the request is answered, and that *connection* is idle."""
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
        """Wait until a request is answered, at most *seconds*."""
        with self._changed:
            self._is_awaited = True
            self._changed.wait(seconds)

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until all requests are answered, at most *seconds*. Return whether they are."""
        with self._changed:
            self._is_awaited = True
            return self._changed.wait_for(lambda: not self._at_work, seconds)

    def close_queues(self) -> None:
        """Admit no more requests to work, and refuse all that wait."""
        for queue in (self.requests, self.transfers, self.followers, self.decoding, self.uploads):
            queue.close()

    def close_connections(self) -> None:
        """Close the connections of all requests that are not answered yet."""
        with self._lock:
            connections = list(self._at_work)
        for connection in connections:
            shut_down(connection)

    def gauges(self) -> dict[str, Gauge]:
        """Return the gauges that `Metrics` shows, by their names."""
        return {
            "connections": ("Connections that are open.", "", lambda: {"": len(self._holders)}),
            "followers": ("Requests that follow jobs.", "", lambda: {"": self.followers.counts()["busy"]}),
            "requests": ("Requests, without those that move files.", "state", self.requests.counts),
            "transfers": ("Requests that move files.", "state", self.transfers.counts),
            "uploads": (
                "Uploads that are streamed to the store.",
                "",
                lambda: {"": self.uploads.counts()["busy"]},
            ),
            "spooled_bytes": ("Bytes of uploads on the disk.", "", lambda: {"": self.spool_space.used}),
            "workers": ("Workers that move files.", "state", self.workers.counts),
        }


def no_place() -> BusyError:
    """Return the error of a connection that finds no place."""
    return BusyError("the server has too many connections: try again in some seconds")
