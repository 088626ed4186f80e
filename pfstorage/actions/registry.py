"""Which actions there are, and what each is given."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pfstorage.access.permissions import Permissions
from pfstorage.backends import Storage
from pfstorage.backends.capabilities import SupportsRetryPolicy, list_partially
from pfstorage.backends.contract import Source
from pfstorage.backends.retry import RetryPolicy
from pfstorage.errors import UnknownActionError
from pfstorage.local import AllowedRoots
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.settings.state import StateTree
from pfstorage.transfer import Progress, RateLimiter, WorkerBudget
from pfstorage.transfer.context import no_progress
from pfstorage.wire.reply import Reply

if TYPE_CHECKING:
    from pfstorage.jobs.scheduler import JobScheduler  # it takes long to import, and only a server has any

M = TypeVar("M")

MOST_WARNINGS = 1000


@dataclass
class Upload:
    """A file that came with the message: *body* holds *size* bytes. *used* tells if an action took it.

    *content_type* is what its sender says of it.
    """

    body: Source
    size: int
    filename: str = ""
    used: bool = False
    content_type: str = ""


class Permit(Protocol):
    """One of so many places at work with the store."""

    @property
    def is_gone(self) -> Callable[[], bool]:
        """What tells whether nobody waits for the reply any more."""
        ...

    def begin(self) -> None:
        """Take one, if there is none yet. Raise `BusyError`, or `StoppedError` if nobody waits for the reply."""
        ...

    def begin_transfer(self) -> None:
        """Take one among those that move files, of whom there are not too many either. Raise as `begin` does."""
        ...

    def begin_following(self) -> None:
        """Take one among those that wait for what becomes of a job. Raise `BusyError` at once if there is none."""
        ...


# nobody changes one; but each request makes one, and to make a frozen one takes far longer
@dataclass(eq=False)
class Caller:
    """Who sends a message, and what the door that they came by lets them do.

    *trusted* callers may change the settings and end the server. One who *is_remote* comes over HTTP, and may
    change only what leads to no other store. What they may do with
    objects is in *permissions*; *owner* is the name of their token; *is_anonymous* tells that
    anybody in the network may come in as they did. *shut_down* ends
    the server that the message came to, where there is one. One who *streams* may be
    given a reply with a `RowStream` or `PackedStrings` in it, and writes it with `Reply.write`. Lists of up to so
    many rows as
    they *hold* are whole there all the same: what breaks one off until then makes the reply one of an error.
    A listing has *max_rows* at most, if that is not 0. What takes long heeds *cancellation*, and calls *progress*
    some times
    a second; it may become one of the *jobs* instead, where the door has any. *observe* is told the action, the
    reply and the seconds, where they are not to be logged. Local paths in the
    message lie below *roots*, where there are any, and its keys in *store*, as `store_name`
    says it, if that is not "". *permit* is their place among those
    at work with the store, and *workers* are shared by all of them. *secrets* are
    those of the door, which are masked in what is written of the message. *renew* returns
    the caller anew, with what the door lets them do by then, or raises `UnauthorizedError`.
    """

    trusted: bool = True
    is_remote: bool = False
    permissions: Permissions = field(default_factory=Permissions)
    owner: str = ""
    is_anonymous: bool = False
    read_only: bool = False
    upload: Upload | None = None
    shut_down: Callable[[], None] | None = None
    streams: bool = False
    holds: int = 0
    max_rows: int = 0
    cancellation: CancellationToken = field(default_factory=CancellationToken)
    progress: Callable[[Progress], None] = no_progress
    observe: Callable[[str, Reply, float], None] | None = None
    jobs: JobScheduler | None = None
    roots: AllowedRoots | None = None
    store: str = ""
    permit: Permit | None = None
    workers: WorkerBudget = field(default_factory=WorkerBudget)
    secrets: Callable[[], Set[str]] = frozenset
    renew: Callable[[], Caller] | None = None

    def renewed(self) -> Caller:
        return self.renew() if self.renew else self


@dataclass
class Context:
    """What an action works with. Its *warnings* are added to the reply."""

    open_storage: Callable[[], Storage]
    state: StateTree
    caller: Caller
    rate_limiter: Callable[[], RateLimiter] = RateLimiter
    warnings: list[str] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
    _more_warnings: int = 0
    _storage: Storage | None = None
    _stop: CancellationToken | None = None

    def warn(self, text: str) -> None:
        """Add *text* to the warnings, of which `MOST_WARNINGS` are told and further ones counted."""
        if len(self.warnings) < MOST_WARNINGS:
            self.warnings.append(text)
            return
        self._more_warnings += 1
        self.warnings[MOST_WARNINGS:] = [f"and {self._more_warnings} more of the kind"]

    def listing(self, ignores: Callable[[str], bool] = lambda _: False) -> Storage:
        """Return the storage, whose listings leave out what they can't show, with a warning.

        *left_out* are the prefixes of that: whoever certifies anything is to look there. Those that are not
        asked for, as *ignores* tells, don't count.
        """

        def note(prefix: str, reason: str) -> None:
            if prefix not in self.left_out and not ignores(prefix):
                self.left_out.add(prefix)
                self.warn(f"{prefix!r} in the store was left out: {reason}")

        return list_partially(self.storage, note)

    @property
    def cancellation(self) -> CancellationToken:
        """The end of what is done for the reply alone: that of the caller, or that they have gone."""
        if self._stop is None:
            permit = self.caller.permit
            self._stop = CancellationToken(
                parent=self.caller.cancellation, is_abandoned=permit.is_gone if permit else None
            )
        return self._stop

    @property
    def storage(self) -> Storage:
        """The storage, opened when an action first asks for it, and the same until the action ends."""
        # no cached_property: before Python 3.12, one that waits for its turn would hold up all others
        if self._storage is None:
            storage = self.open_storage()
            if isinstance(storage, SupportsRetryPolicy):
                retry_policy = RetryPolicy(
                    storage.settings.retries, cancellation=self.cancellation, is_watched=True
                )
                storage = storage.with_retry_policy(retry_policy)
            self._storage = storage
        return self._storage


@dataclass(frozen=True)
class Action:
    """An entry of the registry: the function *run* answers the action *name*, given a *meta*.

    *text* says what it does, for the document of the server.
    """

    name: str
    meta: type[Any]
    run: Callable[[Context, Any], Reply]
    read_only: bool
    text: str = ""


ACTIONS: dict[str, Action] = {}


def action(
    name: str, *, meta: type[M], read_only: bool = False, text: str = ""
) -> Callable[[Callable[[Context, M], Reply]], Callable[[Context, M], Reply]]:
    """Register a function as the answer to the action *name*, its meta read as a *meta*.

    It raises a `PfstorageError` for what fails, and never builds the reply to an
    error itself. *read_only* ones change nothing, and are offered to a GET. *text* says what it
    does: a docstring would be gone with ``python -OO``.
    """

    def register(run: Callable[[Context, M], Reply]) -> Callable[[Context, M], Reply]:
        ACTIONS[name] = Action(name, meta, run, read_only, text)
        return run

    return register


def find_action(name: str) -> Action:
    """Return the action *name*. Raise `UnknownActionError`, which lists those that there are."""
    try:
        return ACTIONS[name]
    except KeyError:
        known = ", ".join(sorted(ACTIONS))
        raise UnknownActionError(
            f"there is no action {name[:80]!r}; there are {known}", action=name[:80]
        ) from None
