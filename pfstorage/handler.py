"""The one dispatcher: parse a message, look its action up, run it; every error becomes a reply."""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfstorage._version import __version__
from pfstorage.access.principal import Principal
from pfstorage.access.scoped import scoped
from pfstorage.actions import ACTIONS, ActionContext, RequestContext, find_action, jobs, service
from pfstorage.actions.options import LongMeta, MoveMeta, work_of
from pfstorage.backends import Storage, open_settings
from pfstorage.backends.capabilities import SupportsAbort, SupportsDenyList
from pfstorage.errors import (
    ForbiddenError,
    JobConflictError,
    MethodNotAllowedError,
    PfstorageError,
    without_traceback,
)
from pfstorage.jobs.model import JobRequest
from pfstorage.jobs.origin import store_name
from pfstorage.local import AllowedRoots, LocalAccess
from pfstorage.logs.record import write_record
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.runtime.unexpected import unexpected_error
from pfstorage.settings.loading import load_settings
from pfstorage.settings.model import Document, Settings, size_of
from pfstorage.settings.sources import from_environment, from_flags, read_settings_file
from pfstorage.settings.state import StateTree
from pfstorage.transfer import Progress, RateLimiter, TransferContext
from pfstorage.wire.message import Message, read_meta
from pfstorage.wire.reply import Reply

if TYPE_CHECKING:
    from typing_extensions import Self

    from pfstorage.jobs.running import JobRunner

log = logging.getLogger(__name__)

TRUSTED = RequestContext()


class StoreHandler:
    """Answers messages from one storage. All three doors call it; it is safe to call from many threads.

    A subclass may answer further actions: a method ``<action>_process(self, *, request)``
    gets the message as a dict and returns the reply as one. That is how 2.x was extended.
    """

    def __init__(
        self,
        storage: Storage | None = None,
        *,
        settings: Settings | None = None,
        name: str = "pfstorage",
        version: str = __version__,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        """Answer from *storage*, which stays the caller's to close, or from what *settings* open.

        *name* and *version* are what ``hello`` tells, *args* the parsed flags that ``internalctl`` shows.
        """
        self._settings = settings or (storage.settings if storage else Settings())
        self._shown = (name, version, args)
        self._state: StateTree | None = None
        self._lock = threading.Lock()
        self._storage = storage
        self._is_ours = storage is None
        self._throttle = RateLimiter()
        self._flags: Mapping[str, Any] | None = None

    @classmethod
    def from_args(cls, args: Mapping[str, Any], *, name: str, version: str) -> Self:
        """Make a handler from the ``vars`` of parsed flags, as the classes of 2.x were made.

        Raise `SettingsError`.
        """
        made = cls(settings=_settings_of(args)[0], name=name, version=version, args=args)
        made._flags = args
        return made

    def reload(self) -> None:
        """Take the settings anew from where `from_args` found them; what messages have set since is gone.

        Raise `SettingsError`, also if an old secret would go to a new address; then all stays as it was.
        """
        if self._flags is not None:
            self.state.renew(*_settings_of(self._flags))

    @property
    def settings(self) -> Settings:
        """The present settings."""
        return self._state.settings if self._state else self._settings

    @property
    def state(self) -> StateTree:
        """The settings as a tree that `internalctl` reads and changes."""
        with self._lock:
            if self._state is None:  # few messages need it, and it takes long to make
                self._state = StateTree(self._settings, *self._shown)
            return self._state

    @property
    def storage(self) -> Storage:
        """The storage of the present settings. It is opened anew when they have changed."""
        with self._lock:
            if self._storage is None or _storage_part(self._storage.settings) != _storage_part(self.settings):
                self._close()
                self._storage, self._is_ours = open_settings(self.settings), True
            return self._storage

    def storage_for(self, request: RequestContext) -> Storage:
        """Return the storage as *caller* may see and use it, in their turn.

        Raise `BusyError`, `StoppedError`, or `JobConflictError` if it is not the one that the message was meant for.
        """
        if request.permit:
            request.permit.begin()
        storage = self.storage
        if request.store and (name := store_name(storage.settings)) != request.store:
            raise JobConflictError(
                f"the job was for {request.store}, and the server serves {name} now: send the message anew"
            )
        if request.roots and isinstance(storage, SupportsDenyList):
            storage = storage.with_deny_list(request.roots.deny_list)
        return scoped(storage, request.principal.permissions)

    def abort(self, reason: str) -> None:
        """End what waits for the store, but for transfers and jobs, which have a stop of their own.

        A storage that is the caller's is not given up: they may go on with it.
        """
        with self._lock:
            if self._storage and self._is_ours and isinstance(self._storage, SupportsAbort):
                self._storage.abort(reason)
                self._close()

    def run(
        self, source: str | bytes | Mapping[str, Any], request: RequestContext = TRUSTED
    ) -> dict[str, Any]:
        """Answer the message *source*, JSON text or what it decodes to, with the reply as a dict."""
        return self.answer(source, request).body

    def answer(self, source: str | bytes | Mapping[str, Any], request: RequestContext = TRUSTED) -> Reply:
        """Answer the message *source*. Never raises for what is in it: an error is a reply, too.

        The reply is settled unless the *caller* streams; then it is, too, as far as they hold its rows.
        """
        started = time.monotonic()
        before = self.settings
        message, name = None, ""
        try:
            message = Message.parse(source)
            name = self._known_name(message)
            perform = self._prepared(message, request)
            if not (before.debug_to_dir or name == "internalctl"):
                message = None  # what nobody has use for any more may be large
            reply = perform()
            if request.stream_after is None or self.settings.debug_to_dir:
                reply.settle()
            elif request.stream_after:
                reply.settle(request.stream_after)
        except PfstorageError as e:
            reply = Reply.from_error(without_traceback(e))
        except Exception as e:  # noqa: BLE001 - it is logged
            reply = Reply.from_error(unexpected_error(e, "an action"))
        seconds = time.monotonic() - started
        observe = request.observe or _log
        reply.when_known(lambda: observe(name, reply, time.monotonic() - started))
        if self.settings.debug_to_dir:
            # the message may have changed them
            secrets = before.secrets() | self.settings.secrets() | request.secrets()
            write_record(self.settings.debug_to_dir, name, message, reply, seconds, secrets)
        return reply

    def _known_name(self, message: Message) -> str:
        """Return the action of *message* if there is one of that name: another text may be a patient's, or a secret."""
        if "ctl" in message.meta:
            return "quit"
        is_known = message.action in ACTIONS or self._extension(message.action)
        return message.action if is_known else ""

    def job_runner(self, request: RequestContext) -> JobRunner:
        """Return what does the jobs that come by the door of *caller*: for whom, each order tells."""

        def run(
            job: JobRequest, cancellation: CancellationToken, progress: Callable[[Progress], None]
        ) -> Reply:
            principal = replace(
                request.principal, owner=job.owner, permissions=job.permissions, is_trusted=False
            )
            own = replace(
                request,
                principal=principal,
                roots=_roots_of(job, request.roots),
                store=job.origin.store,
                jobs=None,
                stream_after=0,
                cancellation=cancellation,
                progress=progress,
            )
            return self.answer(job.message, own)

        return run

    def _prepared(self, message: Message, request: RequestContext) -> Callable[[], Reply]:
        """Return what answers *message*, which it has looked at. Raise for what *caller* may not do, or nobody can."""
        if "ctl" in message.meta:
            return functools.partial(service.control, self.action_context(request), message)
        extension = None if request.principal.is_read_only else self._extension(message.action)
        if extension:
            _require_level("write", message.action, request.principal)
            if request.permit:
                request.permit.begin()
            return functools.partial(_reply_of, extension, message)
        action = find_action(message.action)
        _require_level("read" if action.read_only else "write", action.name, request.principal)
        if request.principal.is_read_only and not action.read_only:
            raise MethodNotAllowedError(
                f"{action.name} changes something: send it by POST", action=action.name
            )
        meta, warnings = read_meta(action.meta, message)
        context = self.action_context(request)
        if isinstance(meta, LongMeta) and meta.async_:
            return lambda: _with_warnings(jobs.begun(context, message, meta), context, warnings)

        def perform() -> Reply:
            if isinstance(meta, LongMeta) and request.permit:
                request.permit.begin_transfer()
            return _with_warnings(action.run(context, meta), context, warnings)

        return perform

    def work_for(self, request: RequestContext, meta: MoveMeta) -> TransferContext:
        """Return the means to move something as *meta* says, for *caller*, also when they have gone."""
        return work_of(self.action_context(request), meta, cancellation=request.cancellation)

    def action_context(self, request: RequestContext) -> ActionContext:
        """Make the context of an action that answers *request*."""
        return ActionContext(self, request)

    def rate_limiter(self) -> RateLimiter:
        """Return what all that moves bytes shares, so that it keeps within the bandwidth of the present settings."""
        rate = size_of(self.settings.bw_limit)
        with self._lock:
            if self._throttle.rate != rate:
                self._throttle = RateLimiter(rate)
            return self._throttle

    def _extension(self, name: str) -> Callable[..., object] | None:
        method = getattr(self, f"{name}_process", None) if name.isidentifier() else None
        return method if callable(method) else None

    def close(self) -> None:
        """Close the storage, if it was opened here."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._storage is not None and self._is_ours:
            self._storage.close()
        self._storage = None


def _settings_of(flags: Mapping[str, Any]) -> tuple[Settings, tuple[Document, ...]]:
    """Return the settings, and what they were made of."""
    path = flags.get("str_configFileLoad")
    files = [read_settings_file(Path(path))] if path else []
    documents = (*files, from_environment(os.environ), from_flags(flags, os.environ))
    settings, warnings = load_settings(*documents)
    for warning in warnings:
        log.warning("%s", warning)
    return settings, documents


def _storage_part(settings: Settings) -> tuple[Any, ...]:
    """Return what of *settings* an open storage depends on."""
    transport = (
        settings.retries,
        settings.timeout,
        settings.connect_timeout,
        settings.min_rate,
        settings.http_proxy,
        settings.insecure,
        settings.allow_plain_storage,
    )
    return settings.type, getattr(settings, settings.type), *(transport if settings.type == "swift" else ())


def _roots_of(job: JobRequest, roots: AllowedRoots | None) -> AllowedRoots | None:
    """Return *roots*, with which the paths of *job* mean what they meant when it was submitted."""
    before = job.origin.roots
    if roots:
        return roots.with_earlier_roots(before)
    is_elsewhere = before and before[0][1] != LocalAccess().cwd_if_any
    return AllowedRoots(("/",)).with_earlier_roots(before) if is_elsewhere else None


def _require_level(level: str, name: str, principal: Principal) -> None:
    if not principal.permissions.allows(level):
        raise ForbiddenError(f"{name} takes a token with the right to {level}", action=name)


def _reply_of(extension: Callable[..., object], message: Message) -> Reply:
    body = extension(request={"action": message.action, "meta": dict(message.meta)})
    if not isinstance(body, dict):
        raise PfstorageError(f"{message.action}_process must return a dict, not {type(body).__name__}")
    return Reply(body)


def _with_warnings(reply: Reply, context: ActionContext, warnings: list[str]) -> Reply:
    upload = context.request.upload
    unused = "the file that came with the message was not used: objPut takes it with meta 'toObject'"
    more = [unused] if upload and not upload.used else []
    reply.warn(lambda: [*warnings, *context.warnings, *more])
    return reply


def _log(action: str, reply: Reply, seconds: float) -> None:
    log.info("%s: %s in %.3f s", action or "?", _outcome(reply), seconds)


def _outcome(reply: Reply) -> str:
    if reply.body.get("status"):
        return "done"
    return f"{type(reply.error).__name__}" if reply.error else "status false"
