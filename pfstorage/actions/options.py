"""Metas, options and replies that all actions on many files share."""

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
from pfstorage.wire.packed import PackedStrings
from pfstorage.wire.reply import Reply

OVERWRITE = ("changed", "always", "never")
REPLIES = ("full", "summary")
MAX_JID_LENGTH = 200
MAX_SHARD_LENGTH = 19
# characters of the locations of all items in a fileList: each item repeats the location
MAX_LOCATION_TEXT = 32 * 1024 * 1024
# paths of files that did not fail, in each list of a summary
MAX_SUMMARY_PATHS = 20
GLOBS: Schema = {
    "maxItems": MAX_GLOBS,
    "items": {"type": "string", "minLength": 1, "maxLength": MAX_GLOB_LENGTH},
    "description": f"globs, of {MAX_GLOBS_LENGTH} characters in all",
}


@dataclass(frozen=True)
class LongMeta:
    """The meta of each action that can run as a job."""

    async_: bool = False
    jid: str = field(default="", metadata={"schema": {"maxLength": MAX_JID_LENGTH}})

    def check(self) -> None:
        """Raise `MessageError` if values are invalid or contradict each other. The dispatcher calls this."""
        if not self.jid.isprintable():
            raise MessageError("meta 'jid' takes printable characters")

    def check_access(self, context: ActionContext) -> None:
        """Raise the errors for which the action refuses the whole message without a look at the store or the disk.

        A message that becomes a job is checked by this before its reply.
        """


@dataclass(frozen=True)
class MoveMeta(LongMeta):
    """The meta of each action that moves or compares files."""

    include: tuple[str, ...] = field(default=(), metadata={"schema": GLOBS})
    exclude: tuple[str, ...] = field(default=(), metadata={"schema": GLOBS})
    shard: str = field(default="", metadata={"schema": {"maxLength": MAX_SHARD_LENGTH}})
    overwrite: str = field(default="changed", metadata={"schema": {"enum": OVERWRITE}})
    dry_run: bool = False
    audit: bool = False
    sure: bool = False
    reply: str = field(default="full", metadata={"schema": {"enum": REPLIES}})

    def check(self) -> None:
        """Raise `MessageError` if values are invalid, such as globs that are too long."""
        super().check()
        for name in ("include", "exclude"):
            if sum(map(len, getattr(self, name))) > MAX_GLOBS_LENGTH:
                raise MessageError(f"meta {name!r} takes globs of {MAX_GLOBS_LENGTH} characters in all")
        _ = self.selection

    @functools.cached_property
    def selection(self) -> Selection:
        """The filter of keys. Raise `MessageError` if it is invalid."""
        return Selection("", self.include, self.exclude, self.shard)


def check_location_text(count: int, *locations: str | bool) -> None:
    """Raise `MessageError` if the keys of *count* items below *locations* have far more text than the message."""
    length = sum(len(text) for text in locations if isinstance(text, str))
    if count * length > MAX_LOCATION_TEXT:
        raise MessageError(
            f"meta 'fileList' has {count} items, and the locations before each of them {length} characters: that is"
            f" over {MAX_LOCATION_TEXT} in all; send several messages"
        )


_LIMIT_NOTE = " open files allows no more, see ulimit -n"


def make_transfer_context(
    context: ActionContext,
    meta: MoveMeta,
    storage: Storage | None = None,
    *,
    cancellation: CancellationToken | None = None,
) -> TransferContext:
    """Make the context of a transfer with *meta* and the present settings.

    *storage* and *cancellation* replace those of *context*. Warn if the limit of open files allows fewer workers than
    the settings.
    """
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
    transfer_context = TransferContext(storage or context.storage, options)
    # an audit makes a second context
    has_warned = any(each.endswith(_LIMIT_NOTE) for each in context.warnings)
    if (maximum := transfer_context.concurrency.maximum) < settings.worker_count and not has_warned:
        context.warn(
            f"{maximum} files are moved at once, not {settings.worker_count}: the limit of{_LIMIT_NOTE}"
        )
    return transfer_context


def body_if_empty(meta: MoveMeta, text: str) -> dict[str, Any]:
    """Return the outcome if no file was selected. It is no failure for one of several shards."""
    return {"status": True} if meta.shard else {"status": False, "msg": text}


def path_list(name: str, paths: PackedStrings, meta: MoveMeta) -> dict[str, Any]:
    """Return the member *name* of a reply: *paths* that are no failures.

    A summary has the first `MAX_SUMMARY_PATHS`. If there are more, ``<name>Count`` is their number.
    """
    if meta.reply == "full" or len(paths) <= MAX_SUMMARY_PATHS:
        return {name: paths}
    return {name: paths[:MAX_SUMMARY_PATHS], f"{name}Count": len(paths)}


def transfer_reply(
    report: TransferReport, meta: MoveMeta, places: Mapping[str, str], audit: Mapping[str, Any] | None = None
) -> Reply:
    """Make the reply to a transfer. Raise its error if it failed before any file, unless it was cancelled."""
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
    error = report.error or _main_error(report)
    if error:
        count = report.count + report.failed_count
        failed = f"{report.failed_count} of {count} files failed: " if report.failed_count else ""
        body["msg"] = f"{failed}{error}"
        body["error"] = dict(error.facts)
    # the HTTP status reports a success if some files were moved, and an error if the transfer ended early: then the
    # client should send the message again
    is_partial = bool(report.count and not report.error)
    return Reply(body, None if is_partial else error, partial_error=error if is_partial else None)


def _main_error(report: TransferReport) -> PfstorageError | None:
    """Choose the error to report: a store outage, which a client may retry, or else the first failure."""
    errors = [item.error for item in report.failed]
    return next(
        (error for error in errors if isinstance(error, UnavailableError)), errors[0] if errors else None
    )


def _names(report: TransferReport) -> dict[str, Any]:
    return {"localFileList": report.paths, "objectFileList": report.keys}
