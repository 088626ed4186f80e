"""The context of a message and of the action that answers it."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pfstorage.access.principal import Principal
from pfstorage.backends import Storage
from pfstorage.backends.capabilities import SupportsRetryPolicy, list_partially
from pfstorage.backends.contract import Source
from pfstorage.backends.retry import RetryPolicy
from pfstorage.local import AllowedRoots, LocalAccess
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.settings.model import Settings
from pfstorage.settings.state import StateTree
from pfstorage.transfer import Progress, RateLimiter, WorkerBudget
from pfstorage.transfer.context import no_progress
from pfstorage.wire.reply import Reply

if TYPE_CHECKING:
    from pfstorage.jobs.scheduler import JobScheduler  # its import takes long, and only a server needs it

MAX_WARNINGS = 1000


@dataclass
class Upload:
    """A file that the sender attached to the message: *body* has *size* bytes."""

    body: Source
    size: int
    filename: str = ""
    # whether an action stored it
    used: bool = False
    # as the sender declared it, "" if they did not
    content_type: str = ""


class Permit(Protocol):
    """The permit of one message. Permits limit how many messages work with the store at once."""

    @property
    def is_gone(self) -> Callable[[], bool]:
        """A function that returns true after the client has disconnected."""
        ...

    def begin(self) -> None:
        """Take a permit to work. Raise `BusyError`, or `StoppedError` if nobody waits for the reply.

        A second call does nothing.
        """
        ...

    def begin_transfer(self) -> None:
        """Take a permit to move files. There are fewer of these. Raise as `begin` does."""
        ...

    def begin_following(self) -> None:
        """Take a permit to wait for a job. Raise `BusyError` at once if all are taken."""
        ...


@dataclass(eq=False)  # not frozen: the server makes one for each request, and a frozen one takes far longer
class RequestContext:
    """The sender of a message, and the environment that runs it. Do not modify an instance."""

    principal: Principal = field(default_factory=Principal)
    # ends the work early
    cancellation: CancellationToken = field(default_factory=CancellationToken)
    # called several times a second while files move
    progress: Callable[[Progress], None] = no_progress
    # called with the action, its reply and the seconds, instead of a log line
    observe: Callable[[str, Reply, float], None] | None = None
    # rows above which a list of the reply is a stream that `Reply.write` reads; None: no list is a stream
    stream_after: int | None = None
    # rows of a listing at most; 0: no limit
    max_rows: int = 0
    upload: Upload | None = None
    # local paths of the message lie below these; None: anywhere
    roots: AllowedRoots | None = None
    # the `store_name` that the message is for; "": any
    store: str = ""
    # None: only a server limits messages
    permit: Permit | None = None
    # worker threads that all transfers of the process share
    workers: WorkerBudget = field(default_factory=WorkerBudget)
    # None: only a server has jobs
    jobs: JobScheduler | None = None
    # ends the server; None outside one
    shut_down: Callable[[], None] | None = None
    # returns secrets to mask in records, besides those of the settings
    secrets: Callable[[], Set[str]] = frozenset


class Handler(Protocol):
    """The members of `StoreHandler` that actions use."""

    @property
    def settings(self) -> Settings:
        """The present settings."""
        ...

    @property
    def state(self) -> StateTree:
        """The settings as a tree that `internalctl` reads and changes."""
        ...

    def storage_for(self, request: RequestContext) -> Storage:
        """Return the storage, limited to the permissions of *request*. Wait for its permit."""
        ...

    def rate_limiter(self) -> RateLimiter:
        """Return the limiter that all transfers share."""
        ...


@dataclass
class ActionContext:
    """The handler, the request and the storage of one action. The reply includes its *warnings*."""

    handler: Handler
    request: RequestContext
    warnings: list[str] = field(default_factory=list)
    # prefixes that listings could not show
    left_out: set[str] = field(default_factory=set)
    _more_warnings: int = 0
    _storage: Storage | None = None
    _cancellation: CancellationToken | None = None

    @property
    def settings(self) -> Settings:
        """The present settings."""
        return self.handler.settings

    @property
    def principal(self) -> Principal:
        """The sender of the message."""
        return self.request.principal

    def local_access(self) -> LocalAccess:
        """Return the access of the message to local files. It is a context manager."""
        settings = self.settings
        store = settings.filesystem.store_base if settings.type == "filesystem" else ""
        return LocalAccess(self.request.roots, store)

    def warn(self, text: str) -> None:
        """Add *text* to the warnings. Count it only, if there are `MAX_WARNINGS` already."""
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(text)
            return
        self._more_warnings += 1
        self.warnings[MAX_WARNINGS:] = [f"and {self._more_warnings} more of the kind"]

    def listing(self, ignores: Callable[[str], bool] = lambda _: False) -> Storage:
        """Return the storage, whose listings skip prefixes that they cannot read.

        Each skipped prefix causes a warning and is added to *left_out*, unless *ignores* is true of it. An action
        that certifies completeness must look there.
        """

        def note(prefix: str, reason: str) -> None:
            if prefix not in self.left_out and not ignores(prefix):
                self.left_out.add(prefix)
                self.warn(f"{prefix!r} in the store was left out: {reason}")

        return list_partially(self.storage, note)

    @property
    def cancellation(self) -> CancellationToken:
        """The token that ends work for the reply only: by request, or because nobody waits for the reply any more."""
        if self._cancellation is None:
            permit = self.request.permit
            self._cancellation = CancellationToken(
                parent=self.request.cancellation, is_abandoned=permit.is_gone if permit else None
            )
        return self._cancellation

    @property
    def storage(self) -> Storage:
        """The storage, which is opened at the first access and stays the same until the action ends."""
        # no cached_property: before Python 3.12, one that waits for its permit would block all others
        if self._storage is None:
            storage = self.handler.storage_for(self.request)
            if isinstance(storage, SupportsRetryPolicy):
                retry_policy = RetryPolicy(
                    storage.settings.retries, cancellation=self.cancellation, is_watched=True
                )
                storage = storage.with_retry_policy(retry_policy)
            self._storage = storage
        return self._storage
