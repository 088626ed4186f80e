"""The HTTP door: `ThreadedHTTPServer` over one `StoreHandler`: what it consists of, and how it begins and ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING, Any

from pfstorage._version import __version__
from pfstorage.access.principal import Principal
from pfstorage.actions import RequestContext
from pfstorage.backends.capabilities import SupportsConnections
from pfstorage.errors import SettingsError
from pfstorage.handler import StoreHandler
from pfstorage.jobs.scheduler import JobScheduler
from pfstorage.local import AllowedRoots, shell_directory, working_directory
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.server.access import Access
from pfstorage.server.endpoints.events import JOBS, job_events
from pfstorage.server.endpoints.health import Readiness, healthz
from pfstorage.server.endpoints.objects import OBJECT_HEADERS, OBJECTS, list_objects, one_object
from pfstorage.server.endpoints.openapi import Description
from pfstorage.server.listener import Listener
from pfstorage.server.load import GUESTS, ServerLoad
from pfstorage.server.options import ServerOptions
from pfstorage.server.own_files import OwnFiles
from pfstorage.server.page import PAGE, page
from pfstorage.server.router import ROUTES, Route, Site
from pfstorage.server.tls import tls_of
from pfstorage.transfer.concurrency import max_workers
from pfstorage.wire.json_text import ROWS_AT_ONCE

if TYPE_CHECKING:
    from pfstorage.server.endpoints.metrics import Metrics

log = logging.getLogger(__name__)

LAST_SECONDS = 6.0
"""What a transfer that was stopped takes at most to reply, and a little more."""
GIVE_UP_AFTER = HANG_UP_AFTER = LAST_SECONDS / 2
HANGING_UP_SECONDS = 1.0
"""What a request takes to end whose client is there no more."""


def seconds_to_end(grace: float) -> float:
    """Return what a server takes at most until it has ended: its jobs, its requests, and its log."""
    return LAST_SECONDS + grace + GIVE_UP_AFTER + HANG_UP_AFTER + HANGING_UP_SECONDS + LAST_SECONDS


def _workers_of(options: ServerOptions) -> int:
    """Return how many files all transfers together may move at once.

    There are connections beside, and requests at work, as many quick ones as long ones and uploads, each with one to
    the store and a file.
    """
    most = max_workers(options.max_connections + GUESTS + 6 * options.max_requests)
    if most < options.max_workers:
        log.warning(
            "%d files are moved at once, not %d (--maxWorkers): that is what the limit of open files allows"
            " beside %d connections (--maxConnections), see ulimit -n",
            *(most, options.max_workers, options.max_connections),
        )
    return min(most, options.max_workers)


class ThreadedHTTPServer(Listener):
    """Serves one `StoreHandler` on one address, each connection in a thread of its own."""

    def __init__(
        self,
        address: tuple[str, int],
        handler: StoreHandler | type[StoreHandler] = StoreHandler,
        options: ServerOptions | None = None,
    ) -> None:
        """Listen on *address*. As in 2.x, *handler* may be a class, which `setup` makes one of.

        Raise `SettingsError` if *options* can't be, and `OSError` if the address can't be had.
        """
        self.args: dict[str, Any] = {}
        self.answers_once = False
        self._handler = handler
        self._handler_lock = threading.Lock()
        self._stopping = threading.Event()
        self.end_of_work = CancellationToken()
        self._jobs: JobScheduler | None = None
        self.configure(options or ServerOptions(), address[0])
        super().__init__(address)

    def setup(
        self, *, args: Mapping[str, Any], name: str = "pfstorage", desc: str = "", ver: str = __version__
    ) -> None:
        """Configure the handler as 2.x did, from the ``vars`` of its parsed flags."""
        self.args = dict(args)
        self.configure(ServerOptions.from_args(args), str(self.server_address[0]))
        if isinstance(self._handler, type):
            self._handler = self._handler.from_args(self.args, name=name, version=ver)

    def configure(self, options: ServerOptions, host: str) -> None:
        """Take *options* for a server on the address *host*. Raise `SettingsError`."""
        self.options = options
        self.tls = tls_of(options) if options.tls_cert else None
        self._own_files = OwnFiles(
            AllowedRoots(options.fs_roots or (shell_directory(working_directory()),)), options
        )
        self.load = ServerLoad(
            options.max_connections,
            options.max_requests,
            _workers_of(options),
            options.max_streams,
            options.max_spool or 2 * options.max_upload,
        )
        self.metrics = self._new_metrics()
        own = (
            Route("/", page, is_public=True, is_bare=True),
            Route(PAGE, page, is_public=True, is_prefix=True),
            Route("/healthz", healthz, is_public=True, is_reserved=True),
            Route("/readyz", Readiness(), is_public=True, is_reserved=True),
            Route("/metrics", self.metrics),
            Route(JOBS, job_events, ("GET",), is_prefix=True),
            Route(OBJECTS, list_objects),
            Route(f"{OBJECTS}/", one_object, ("GET", "HEAD", "PUT"), is_prefix=True, headers=OBJECT_HEADERS),
        )
        self.site = Site(Access(options, host), Description((*own, *ROUTES)).routes)

    def _new_metrics(self) -> Metrics:
        from pfstorage.server.endpoints.metrics import Metrics  # with a library that takes long to import

        return Metrics(
            {
                **self.load.gauges(),
                "store_connections": ("Connections to the store.", "state", self._store_connections),
                "jobs": ("JobScheduler.", "state", lambda: self._jobs.counts() if self._jobs else {}),
            }
        )

    def _store_connections(self) -> dict[str, int]:
        storage = self.handler.storage
        if not isinstance(storage, SupportsConnections):
            return {}
        busy, idle = storage.connections
        return {"busy": busy, "idle": idle}

    def require_guard(self) -> None:
        """Raise `SettingsError` if anybody in the network could come in, and nobody has said that they may.

        Close the server's own files to messages; raise it where that can't be.
        """
        if self.site.access.is_open and not self.options.allow_anonymous:
            raise SettingsError(
                f"to listen on {self.server_address[0]!s}, where others can reach it, the server needs"
                " --enableTokenAuth --tokenPath FILE, or --allowAnonymous to let anybody in"
            )
        if reason := self._own_files.close(self.handler.settings):
            raise SettingsError(reason)

    def new_context(self, principal: Principal, **known: Any) -> RequestContext:
        """Make the context of a message that *principal* sends. *known* are fields that differ between requests."""
        self.follow_settings()
        return RequestContext(
            principal,
            cancellation=self.end_of_work,
            stream_after=ROWS_AT_ONCE,
            max_rows=self.options.max_rows,
            roots=self._own_files.roots,
            workers=self.load.workers,
            jobs=self._jobs,
            shut_down=self.stop,
            secrets=self.secrets,
            **known,
        )

    def follow_settings(self) -> None:
        """Close to messages what the settings of the time name."""
        self._own_files.follow(self.handler.settings)

    def secrets(self) -> Set[str]:
        """Return the tokens, for whoever writes something to mask them."""
        tokens = self.site.access.tokens
        return tokens.secrets() if tokens else frozenset()

    @property
    def handler(self) -> StoreHandler:
        """The dispatcher that answers all requests."""
        handler = self._handler
        if not isinstance(handler, type):
            return handler
        with self._handler_lock:  # one of those who ask first makes it
            if isinstance(self._handler, type):
                self._handler = self._handler()
            return self._handler

    @property
    def is_last_reply(self) -> bool:
        """Whether connections end with the present reply, since no more requests are taken."""
        return self.answers_once or self._stopping.is_set()

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def wait_for_stop(self) -> None:
        """Return when `stop` is called."""
        self._stopping.wait()

    def reload(self, read_settings: Callable[[], None] | None = None) -> None:
        """Read the settings, the tokens and the certificate again. What can't be taken stays as it was, and is told.

        The address and what only flags tell stay as they are. *read_settings* reads more than the handler does.
        """
        steps = [("settings", read_settings or self.handler.reload)]
        if self.tls:
            steps.append(("certificate", self._reload_certificate))
        for what, read_again in steps:
            try:
                read_again()
                log.info("read again: the %s", what)
            except SettingsError as e:
                log.error("kept as it was, the %s: %s", what, e)
        self.follow_settings()
        if self.site.access.tokens:
            self.site.access.tokens.reload()

    def _reload_certificate(self) -> None:
        self.tls = tls_of(self.options)

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Serve until `stop`. Raise `SettingsError` if that would let in who should not be."""
        self.require_guard()
        self.open_jobs()
        self._own_files.close(self.handler.settings)  # the directory of the jobs may be new
        super().serve_forever(poll_interval)

    def open_jobs(self) -> None:
        """Go on with the jobs that an earlier process left, and take new ones.

        Raise `SettingsError`, or `LocalFileError` for what may be better at the next start.
        """
        if self._jobs:
            return
        context = self.new_context(Principal(is_trusted=False, is_remote=True), observe=self.metrics.observe)
        perform = self.handler.job_runner(context)
        options = self.options
        jobs = JobScheduler(
            perform,
            options.state_dir,
            repairs=options.repair_state,
            ttl=options.job_ttl,
            max_running=options.max_jobs,
            max_running_per_owner=options.max_jobs_per_token,
            max_bytes_per_owner=options.max_job_bytes,
        )
        try:
            jobs.start()
        except BaseException:
            jobs.close(0)
            raise
        self._jobs = jobs

    def server_close(self) -> None:
        """Listen no more, and leave the jobs that run for the next process."""
        super().server_close()
        if self._jobs:
            self._jobs.close(LAST_SECONDS)

    def answer_once(self) -> bool:
        """Answer one request, then return; connections that ask nothing don't count. `stop` ends it, too.

        Tell whether the request was answered, or broken off after the grace time.
        """
        self.require_guard()
        self.answers_once = True
        self.timeout = 0.1  # how soon it is noticed that a request was answered
        while not (self.load.answered or self._stopping.is_set()):
            if self.load.at_work:
                self.load.wait_for_change(self.timeout)
            else:
                self.handle_request()
        return self.end_requests(self.options.grace_seconds)

    def end_requests(self, seconds: float) -> bool:
        """Listen no more, and wait until all requests have ended; tell whether they have.

        Transfers that take longer than *seconds* are stopped, and tell what they have done. So is what waits for
        its turn, or for the store. Clients that do not send, or do not read, are hung up on.
        """
        self.server_close()
        steps = (
            (seconds, self._stop_work),
            (GIVE_UP_AFTER, lambda: self.handler.abort("the server ends")),
            (HANG_UP_AFTER, self._hang_up),
        )
        for retry_policy, step in steps:
            if self.load.wait_until_idle(retry_policy):
                return True
            step()
        return self.load.wait_until_idle(HANGING_UP_SECONDS)

    def _stop_work(self) -> None:
        self.end_of_work.cancel("the server ends")
        self.load.end_turns()

    def _hang_up(self) -> None:
        log.warning("requests whose clients are waited for no longer: %d", self.load.at_work)
        self.load.shut_down()

    def stop(self) -> None:
        """Make `serve_forever` or `answer_once` return soon. Any thread may call it, a request's too."""
        self._stopping.set()
        threading.Thread(target=self._shut_down, daemon=True).start()

    def _shut_down(self) -> None:
        log.info("no more requests are taken; %d are at work", self.load.at_work)
        self.shutdown()
