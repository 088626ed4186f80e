"""The HTTP server: `ThreadedHTTPServer` answers requests with one `StoreHandler`."""

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
from pfstorage.server.access import Access, PrivateFiles
from pfstorage.server.endpoints.events import JOBS, job_events
from pfstorage.server.endpoints.health import Readiness, healthz
from pfstorage.server.endpoints.objects import OBJECT_HEADERS, OBJECTS, list_objects, one_object
from pfstorage.server.endpoints.openapi import OPENAPI, openapi
from pfstorage.server.exchange import Services
from pfstorage.server.listener import Listener
from pfstorage.server.load import MAX_PROVISIONAL, ServerLoad
from pfstorage.server.options import ServerOptions
from pfstorage.server.page import PAGE, page
from pfstorage.server.request_handler import RequestHandler
from pfstorage.server.router import ROUTES, Route, Router
from pfstorage.wire.json_text import ROWS_AT_ONCE

if TYPE_CHECKING:
    from pfstorage.server.endpoints.metrics import Metrics

log = logging.getLogger(__name__)

# A stopped transfer replies within this time.
LAST_SECONDS = 6.0
GIVE_UP_AFTER = HANG_UP_AFTER = LAST_SECONDS / 2
# A request whose connection was closed ends within this time.
HANGING_UP_SECONDS = 1.0


def seconds_to_end(grace: float) -> float:
    """Return the seconds in which a stopped server has ended its jobs, its requests and its log."""
    return LAST_SECONDS + grace + GIVE_UP_AFTER + HANG_UP_AFTER + HANGING_UP_SECONDS + LAST_SECONDS


class ThreadedHTTPServer(Listener):
    """A server of one `StoreHandler` on one address, with a thread for each connection."""

    def __init__(
        self,
        address: tuple[str, int],
        handler: StoreHandler | type[StoreHandler] = StoreHandler,
        options: ServerOptions | None = None,
    ) -> None:
        """Listen on *address*. As in 2.x, *handler* may be a class; `setup` creates its instance.

        Raise `SettingsError` if *options* are not valid, and `OSError` if the address is not available.
        """
        self.args: dict[str, Any] = {}
        self.answers_once = False
        self._handler = handler
        self._handler_lock = threading.Lock()
        self._stopping = threading.Event()
        self.cancellation = CancellationToken()
        self._jobs: JobScheduler | None = None
        self.configure(options or ServerOptions(), address[0])
        super().__init__(address, RequestHandler)

    def setup(
        self, *, args: Mapping[str, Any], name: str = "pfstorage", desc: str = "", ver: str = __version__
    ) -> None:
        """Configure the handler as 2.x did, from the ``vars`` of its parsed flags."""
        self.args = dict(args)
        self.configure(ServerOptions.from_args(args), str(self.server_address[0]))
        if isinstance(self._handler, type):
            self._handler = self._handler.from_args(self.args, name=name, version=ver)

    def configure(self, options: ServerOptions, host: str) -> None:
        """Apply *options* to a server on the address *host*. Raise `SettingsError`."""
        self.options = options
        self.tls = options.tls_context()
        roots = AllowedRoots(options.fs_roots or (shell_directory(working_directory()),))
        self._private_files = PrivateFiles(roots, options)
        self.load = ServerLoad(
            options.max_connections,
            options.max_requests,
            options.worker_limit(MAX_PROVISIONAL),
            options.max_streams,
            options.max_spool or 2 * options.max_upload,
        )
        self.metrics = self._new_metrics()
        routes = (
            Route("/", page, is_public=True, is_bare=True),
            Route(PAGE, page, is_public=True, is_prefix=True),
            Route("/healthz", healthz, is_public=True, is_reserved=True),
            Route("/readyz", Readiness(), is_public=True, is_reserved=True),
            Route("/metrics", self.metrics),
            Route(JOBS, job_events, ("GET",), is_prefix=True),
            Route(OBJECTS, list_objects),
            Route(f"{OBJECTS}/", one_object, ("GET", "HEAD", "PUT"), is_prefix=True, headers=OBJECT_HEADERS),
            *ROUTES,
            Route(OPENAPI, openapi, is_public=True),
        )
        self.router = Router(Access(options, host), routes)

    def _new_metrics(self) -> Metrics:
        from pfstorage.server.endpoints.metrics import Metrics  # prometheus_client takes long to import

        return Metrics(
            {
                **self.load.gauges(),
                "store_connections": ("Connections to the store.", "state", self._store_connections),
                "jobs": ("Jobs.", "state", lambda: self._jobs.counts() if self._jobs else {}),
            }
        )

    def _store_connections(self) -> dict[str, int]:
        storage = self.handler.storage
        if not isinstance(storage, SupportsConnections):
            return {}
        busy, idle = storage.connections
        return {"busy": busy, "idle": idle}

    def check_exposure(self) -> None:
        """Deny the private files of the server to messages. Raise `SettingsError` if that is not possible.

        Raise it also if clients of other machines need no token, unless the options allow that.
        """
        if self.router.access.is_open and not self.options.allow_anonymous:
            raise SettingsError(
                f"to listen on {self.server_address[0]!s}, which other machines can reach, the server needs"
                " --enableTokenAuth --tokenPath FILE, or --allowAnonymous to give every client access"
            )
        if problem := self._private_files.deny(self.handler.settings):
            raise SettingsError(problem)

    @property
    def services(self) -> Services:
        """The dispatcher and the limits that all requests share."""
        options = self.options
        return Services(
            self.handler,
            self.load.spool_space,
            options.max_upload,
            options.stream_seconds,
            self.metrics.moved,
        )

    def new_context(self, principal: Principal, **known: Any) -> RequestContext:
        """Return the context of a message from *principal*. *known* are the fields that differ between requests."""
        self.follow_settings()
        return RequestContext(
            principal,
            cancellation=self.cancellation,
            stream_after=ROWS_AT_ONCE,
            max_rows=self.options.max_rows,
            roots=self._private_files.roots,
            workers=self.load.workers,
            jobs=self._jobs,
            shut_down=self.stop,
            secrets=self.secrets,
            **known,
        )

    def follow_settings(self) -> None:
        """Deny the private files that the current settings name to messages."""
        settings = self.handler.state.settings
        if settings is not self._private_files.settings:
            self._private_files.update(settings)

    def secrets(self) -> Set[str]:
        """Return the tokens, which logs and records must mask."""
        tokens = self.router.access.tokens
        return tokens.secrets() if tokens else frozenset()

    @property
    def handler(self) -> StoreHandler:
        """The dispatcher that answers all messages."""
        handler = self._handler
        if not isinstance(handler, type):
            return handler
        with self._handler_lock:  # the first caller creates the instance
            if isinstance(self._handler, type):
                self._handler = self._handler()
            return self._handler

    @property
    def is_last_reply(self) -> bool:
        """Whether each connection is closed after its current response, because the server stops."""
        return self.answers_once or self._stopping.is_set()

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def wait_for_stop(self) -> None:
        """Wait until `stop` is called."""
        self._stopping.wait()

    def reload(self, read_settings: Callable[[], None] | None = None) -> None:
        """Read the settings, the tokens and the certificate again. Keep the old ones, and log an error, if that fails.

        The address and the settings that only flags set stay. *read_settings* replaces the `reload` of the handler.
        """
        steps = [("settings", "stay", read_settings or self.handler.reload)]
        if self.tls:
            steps.append(("certificate", "stays", self._reload_certificate))
        for name, verb, read_again in steps:
            try:
                read_again()
                log.info("reloaded the %s", name)
            except SettingsError as e:
                log.error("the old %s %s in use: %s", name, verb, e)
        self.follow_settings()
        if self.router.access.tokens:
            self.router.access.tokens.reload()

    def _reload_certificate(self) -> None:
        self.tls = self.options.tls_context()

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Serve until `stop`. Raise `SettingsError` if clients would have too much access, see `check_exposure`."""
        self.check_exposure()
        self.open_jobs()
        self._private_files.deny(self.handler.settings)  # `open_jobs` may have created the directory
        super().serve_forever(poll_interval)

    def open_jobs(self) -> None:
        """Continue the jobs of an earlier process, and accept new ones.

        Raise `SettingsError`, or `LocalFileError` for a failure that may pass until the next start.
        """
        if self._jobs:
            return
        context = self.new_context(Principal(is_trusted=False, is_remote=True), observe=self.metrics.observe)
        run = self.handler.job_runner(context)
        options = self.options
        jobs = JobScheduler(
            run,
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
        """Stop listening, and leave the running jobs to the next process."""
        super().server_close()
        if self._jobs:
            self._jobs.close(LAST_SECONDS)

    def answer_once(self) -> bool:
        """Answer one request, or return after `stop`. Connections without a request do not count.

        Return whether the request was answered within the grace time.
        """
        self.check_exposure()
        self.answers_once = True
        self.timeout = 0.1  # the delay until this loop sees an answered request
        while not (self.load.answered or self._stopping.is_set()):
            if self.load.at_work:
                self.load.wait_for_change(self.timeout)
            else:
                self.handle_request()
        return self.end_requests(self.options.grace_seconds)

    def end_requests(self, seconds: float) -> bool:
        """Stop listening, and wait until all requests have ended. Return whether they have.

        After *seconds*, stop the transfers, which then report their partial work, and refuse the waiting requests.
        Later, stop waiting for the store. At last, close the connections of clients that do not send or read.
        """
        self.server_close()
        steps = (
            (seconds, self._stop_work),
            (GIVE_UP_AFTER, lambda: self.handler.abort("the server ends")),
            (HANG_UP_AFTER, self._hang_up),
        )
        for wait_seconds, step in steps:
            if self.load.wait_until_idle(wait_seconds):
                return True
            step()
        return self.load.wait_until_idle(HANGING_UP_SECONDS)

    def _stop_work(self) -> None:
        self.cancellation.cancel("the server ends")
        self.load.close_queues()

    def _hang_up(self) -> None:
        log.warning("%d requests are aborted, because their clients do not send or read", self.load.at_work)
        self.load.close_connections()

    def stop(self) -> None:
        """Make `serve_forever` or `answer_once` return soon. Any thread may call this, also that of a request."""
        self._stopping.set()
        threading.Thread(target=self._shut_down, daemon=True).start()

    def _shut_down(self) -> None:
        log.info("no more requests are accepted; %d are at work", self.load.at_work)
        self.shutdown()
