"""The dispatcher: parse a message, run its action, and turn every error into a reply."""

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
from pfstorage.actions.options import LongMeta, MoveMeta, make_transfer_context
from pfstorage.backends import Storage
from pfstorage.backends.capabilities import SupportsDenyList
from pfstorage.backends.current import CurrentStorage
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

# the context of a Python caller in the same process
TRUSTED = RequestContext()


class StoreHandler:
    """The dispatcher of messages to one storage. All three interfaces call it, and many threads may do so at once.

    A subclass can add actions, as in 2.x: a method ``<action>_process(self, *, request)`` gets the message as a dict
    and returns the reply as a dict.
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
        """Use *storage*, which the caller closes, or the storage that *settings* describe.

        ``hello`` reports *name* and *version*. ``internalctl`` shows *args*, the parsed flags.
        """
        self.state = StateTree(settings or (storage.settings if storage else Settings()), name, version, args)
        self._lock = threading.Lock()
        self._current = CurrentStorage(storage, lambda: self.settings)
        self._rate_limiter = RateLimiter()
        self._flags: Mapping[str, Any] | None = None

    @classmethod
    def from_args(cls, args: Mapping[str, Any], *, name: str, version: str) -> Self:
        """Make a handler from the ``vars`` of parsed flags, as 2.x did.

        Raise `SettingsError`.
        """
        handler = cls(settings=_read_settings(args)[0], name=name, version=version, args=args)
        handler._flags = args
        return handler

    def reload(self) -> None:
        """Read the settings again from the sources of `from_args`. Discard the changes that messages made.

        Raise `SettingsError` and keep the settings if they are invalid, or if an old secret would go to a new address.
        """
        if self._flags is not None:
            self.state.renew(*_read_settings(self._flags))

    @property
    def settings(self) -> Settings:
        """The present settings."""
        return self.state.settings

    @property
    def storage(self) -> Storage:
        """The storage of the present settings. It is reopened after they change."""
        return self._current.open()

    def storage_for(self, request: RequestContext) -> Storage:
        """Return the storage, limited to the permissions of *request*. Wait for its permit.

        Raise `BusyError`, `StoppedError`, or `JobConflictError` if the request is for another store.
        """
        if request.permit:
            request.permit.begin()
        storage = self.storage
        if request.store and (name := store_name(storage.settings)) != request.store:
            raise JobConflictError(
                f"the job was for {request.store}, and the server serves {name} now: send the message again"
            )
        if request.roots and isinstance(storage, SupportsDenyList):
            storage = storage.with_deny_list(request.roots.deny_list)
        return scoped(storage, request.principal.permissions)

    def abort(self, reason: str) -> None:
        """Abort pending requests to the store. Transfers and jobs end by their own cancellation.

        A storage of the caller is not aborted, because they may still use it.
        """
        self._current.abort(reason)

    def run(
        self, source: str | bytes | Mapping[str, Any], request: RequestContext = TRUSTED
    ) -> dict[str, Any]:
        """Run the message *source*, as JSON text or decoded. Return the reply as a dict."""
        return self.answer(source, request).body

    def answer(self, source: str | bytes | Mapping[str, Any], request: RequestContext = TRUSTED) -> Reply:
        """Run the message *source*, as JSON text or decoded. Turn every error into a reply, and raise none.

        Lists of up to ``request.stream_after`` rows are complete in the reply. `Reply.write` streams longer ones.
        """
        started = time.monotonic()
        old_settings = self.settings
        message, name = None, ""
        try:
            message = Message.parse(source)
            name = self._known_name(message)
            run = self._prepare(message, request)
            if not (old_settings.debug_to_dir or name == "internalctl"):
                message = None  # a long message takes memory, and the record alone needs it
            reply = run()
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
            # the message may have changed the settings
            secrets = old_settings.secrets() | self.settings.secrets() | request.secrets()
            write_record(self.settings.debug_to_dir, name, message, reply, seconds, secrets)
        return reply

    def _known_name(self, message: Message) -> str:
        """Return the action of *message*, "" if it is unknown: another text may name a patient or a secret."""
        if "ctl" in message.meta:
            return "quit"
        is_known = message.action in ACTIONS or self._extension(message.action)
        return message.action if is_known else ""

    def job_runner(self, request: RequestContext) -> JobRunner:
        """Return a function that runs a job. The context of its message is *request*, with the rights of its owner."""

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

    def _prepare(self, message: Message, request: RequestContext) -> Callable[[], Reply]:
        """Check *message* and return a function that runs it.

        Raise a `PfstorageError` if the message is malformed or forbidden.
        """
        if "ctl" in message.meta:
            return functools.partial(service.control, self.action_context(request), message)
        extension = None if request.principal.is_read_only else self._extension(message.action)
        if extension:
            _require_level("write", message.action, request.principal)
            if request.permit:
                request.permit.begin()
            return functools.partial(_run_extension, extension, message)
        action = find_action(message.action)
        _require_level("read" if action.read_only else "write", action.name, request.principal)
        if request.principal.is_read_only and not action.read_only:
            raise MethodNotAllowedError(
                f"{action.name} changes something: send it by POST", action=action.name
            )
        meta, warnings = read_meta(action.meta, message)
        if isinstance(meta, LongMeta):
            meta.check()
        context = self.action_context(request)
        if isinstance(meta, LongMeta) and meta.async_:
            return lambda: _with_warnings(jobs.submit(context, message, meta), context, warnings)

        def run() -> Reply:
            if isinstance(meta, LongMeta) and request.permit:
                request.permit.begin_transfer()
            return _with_warnings(action.run(context, meta), context, warnings)

        return run

    def transfer_context(self, request: RequestContext, meta: MoveMeta) -> TransferContext:
        """Make the context of a transfer that goes on if the sender of *request* disconnects."""
        return make_transfer_context(self.action_context(request), meta, cancellation=request.cancellation)

    def action_context(self, request: RequestContext) -> ActionContext:
        """Make the context of an action that answers *request*."""
        return ActionContext(self, request)

    def rate_limiter(self) -> RateLimiter:
        """Return the limiter that all transfers share. It has the bandwidth of the present settings."""
        rate = size_of(self.settings.bw_limit)
        with self._lock:
            if self._rate_limiter.rate != rate:
                self._rate_limiter = RateLimiter(rate)
            return self._rate_limiter

    def _extension(self, name: str) -> Callable[..., object] | None:
        method = getattr(self, f"{name}_process", None) if name.isidentifier() else None
        return method if callable(method) else None

    def close(self) -> None:
        """Close the storage, unless it is the caller's."""
        self._current.close()


def _read_settings(flags: Mapping[str, Any]) -> tuple[Settings, tuple[Document, ...]]:
    """Return the settings and the documents that they are made of."""
    path = flags.get("str_configFileLoad")
    files = [read_settings_file(Path(path))] if path else []
    documents = (*files, from_environment(os.environ), from_flags(flags, os.environ))
    settings, warnings = load_settings(*documents)
    for warning in warnings:
        log.warning("%s", warning)
    return settings, documents


def _roots_of(job: JobRequest, roots: AllowedRoots | None) -> AllowedRoots | None:
    """Return *roots* such that the paths of *job* name the same files as when it was submitted."""
    earlier = job.origin.roots
    if roots:
        return roots.with_earlier_roots(earlier)
    is_elsewhere = earlier and earlier[0][1] != LocalAccess().cwd_if_any
    return AllowedRoots(("/",)).with_earlier_roots(earlier) if is_elsewhere else None


def _require_level(level: str, name: str, principal: Principal) -> None:
    if not principal.permissions.allows(level):
        raise ForbiddenError(f"{name} takes a token with the right to {level}", action=name)


def _run_extension(extension: Callable[..., object], message: Message) -> Reply:
    body = extension(request={"action": message.action, "meta": dict(message.meta)})
    if not isinstance(body, dict):
        raise PfstorageError(f"{message.action}_process must return a dict, not {type(body).__name__}")
    return Reply(body)


def _with_warnings(reply: Reply, context: ActionContext, warnings: list[str]) -> Reply:
    upload = context.request.upload
    if not (upload or warnings or context.warnings) and reply.is_plain:
        return reply
    unused = "the file that came with the message was not used: objPut takes it with meta 'toObject'"
    more = [unused] if upload and not upload.used else []
    reply.warn(lambda: [*warnings, *context.warnings, *more])
    return reply


def _log(action: str, reply: Reply, seconds: float) -> None:
    failure = type(reply.error).__name__ if reply.error else "status false"
    log.info("%s: %s in %.3f s", action or "?", "done" if reply.body.get("status") else failure, seconds)
