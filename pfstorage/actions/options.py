"""What the moving actions have in common: which keys, how, and what the reply tells."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pfstorage.actions.context import ActionContext
from pfstorage.backends import Storage
from pfstorage.errors import MessageError, PfstorageError, StoppedError, UnavailableError
from pfstorage.keys.selection import MAX_GLOB_LENGTH, MAX_GLOBS, MAX_GLOBS_LENGTH, Selection
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.settings.model import size_of
from pfstorage.transfer import Options, TransferContext, TransferReport
from pfstorage.wire.fields import Schema
from pfstorage.wire.reply import Reply

OVERWRITE = ("changed", "always", "never")
REPLIES = ("full", "summary")
LONGEST_JID = 200
LONGEST_SHARD = 19
MOST_PLACES = 32 * 1024 * 1024
"""Characters of what stands before the items of a list, in all: it is in the place of each of them."""
GLOBS: Schema = {
    "maxItems": MAX_GLOBS,
    "items": {"type": "string", "minLength": 1, "maxLength": MAX_GLOB_LENGTH},
    "description": f"globs, of {MAX_GLOBS_LENGTH} characters in all",
}


@dataclass(frozen=True)
class LongMeta:
    """The meta of every action that may take long, and so may become a job."""

    async_: bool = False
    jid: str = field(default="", metadata={"schema": {"maxLength": LONGEST_JID}})

    def check(self) -> None:
        """Raise `MessageError` for what can't be, whatever there is to do."""
        if not self.jid.isprintable():
            raise MessageError("meta 'jid' takes printable characters")


@dataclass(frozen=True)
class MoveMeta(LongMeta):
    """The meta of every action that moves or compares files."""

    include: tuple[str, ...] = field(default=(), metadata={"schema": GLOBS})
    exclude: tuple[str, ...] = field(default=(), metadata={"schema": GLOBS})
    shard: str = field(default="", metadata={"schema": {"maxLength": LONGEST_SHARD}})
    overwrite: str = field(default="changed", metadata={"schema": {"enum": OVERWRITE}})
    dry_run: bool = False
    audit: bool = False
    sure: bool = False
    reply: str = field(default="full", metadata={"schema": {"enum": REPLIES}})

    def check(self) -> None:
        super().check()
        for name in ("include", "exclude"):
            if sum(map(len, getattr(self, name))) > MAX_GLOBS_LENGTH:
                raise MessageError(f"meta {name!r} takes globs of {MAX_GLOBS_LENGTH} characters in all")
        _ = self.selection

    @functools.cached_property
    def selection(self) -> Selection:
        """Which keys are taken. It raises `MessageError`."""
        return Selection("", self.include, self.exclude, self.shard)


def check_places(count: int, *before: str | bool) -> None:
    """Raise `MessageError` if the texts *before* each of *count* items make far more text than the message has."""
    length = sum(len(text) for text in before if isinstance(text, str))
    if count * length > MOST_PLACES:
        raise MessageError(
            f"meta 'fileList' has {count} items, and the locations before each of them {length} characters: that is"
            f" over {MOST_PLACES} in all; send several messages"
        )


_SEE_LIMIT = " open files allows, see ulimit -n"


def work_of(
    context: ActionContext,
    meta: MoveMeta,
    storage: Storage | None = None,
    *,
    cancellation: CancellationToken | None = None,
) -> TransferContext:
    """Return the means for an action with *meta*, on *storage* and until *cancellation* if they are others than in
    *context*.

    Raise `MessageError`.
    """
    meta.check()
    settings = context.settings
    options = Options(
        workers=settings.worker_count,
        retries=settings.retries,
        overwrite=meta.overwrite,
        dry_run=meta.dry_run,
        segment_size=size_of(settings.segment_size),
        range_size=size_of(settings.range_size),
        durable=settings.durable,
        keep_names=meta.reply == "full",
        rate_limiter=context.handler.rate_limiter(),
        worker_budget=context.request.workers,
        cancellation=cancellation or context.cancellation,
        progress=context.request.progress,
        warn=context.warn,
    )
    work = TransferContext(storage or context.storage, options)
    if (maximum := work.concurrency.maximum) < settings.worker_count:
        text = f"{maximum} files are moved at once, not {settings.worker_count}: that is what the limit of"
        text += _SEE_LIMIT
        if not any(each.endswith(_SEE_LIMIT) for each in context.warnings):  # an audit asks again
            context.warn(text)
    return work


def when_nothing(meta: MoveMeta, text: str) -> dict[str, Any]:
    """Return what the reply says where nothing is selected: that is no fault of one shard among many."""
    return {"status": True} if meta.shard else {"status": False, "msg": text}


def reply_of(
    report: TransferReport, meta: MoveMeta, places: Mapping[str, str], audit: Mapping[str, Any] | None = None
) -> Reply:
    """Make the reply to a transfer. An error that came before anything was moved is raised, unless it was stopped."""
    if report.error and not (report.count or report.failed or isinstance(report.error, StoppedError)):
        raise report.error
    body: dict[str, Any] = {
        "status": not (report.failed or report.error) and (audit is None or audit["status"]),
        **({"files": report.count} if meta.reply == "summary" else _names(report)),
        **places,
        "failed": [item.as_row() for item in report.failed],
        "bytes": report.size,
        "skipped": report.skipped,
        "seconds": round(report.seconds, 3),
    }
    if meta.dry_run:
        body["dryRun"] = True
    if report.failed_count > len(report.failed):
        body["failedCount"] = report.failed_count
    if audit is not None:
        body["audit"] = audit
        if not audit["status"]:
            body["msg"] = "the audit found files that differ"
    error = report.error or _worst(report)
    if error:
        count = report.count + report.failed_count
        failed = f"{report.failed_count} of {count} files failed: " if report.failed_count else ""
        body["msg"] = f"{failed}{error}"
        body["error"] = dict(error.facts)
    # the body of a partial transfer is an answer, not an error, to a client that reads only the HTTP status; but a
    # transfer that has ended early is an error: to send the message again helps
    is_partial = bool(report.count and not report.error)
    return Reply(body, None if is_partial else error, partial_error=error if is_partial else None)


def _worst(report: TransferReport) -> PfstorageError | None:
    """Return the error that tells most: that the store was away, which may pass, or else the first."""
    errors = [item.error for item in report.failed]
    return next(
        (error for error in errors if isinstance(error, UnavailableError)), errors[0] if errors else None
    )


def _names(report: TransferReport) -> dict[str, Any]:
    return {"localFileList": report.paths, "objectFileList": report.keys}
