"""Unused segments of broken uploads and replaced objects: objSweep."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pfstorage.actions.context import ActionContext
from pfstorage.actions.options import LongMeta
from pfstorage.actions.registry import action
from pfstorage.backends.capabilities import Leftover, Leftovers, RunAll, SupportsMultipart
from pfstorage.errors import PfstorageError, RejectedError, StoppedError, StorageError
from pfstorage.keys.mapping import normal_location, relative_to, without_dot
from pfstorage.transfer import Options, TransferContext, sum_of
from pfstorage.wire.reply import Reply

T = TypeVar("T")

WEEK = 7 * 24 * 3600
MAX_AGE = 10**9
# unreadable objects that a reply names
MAX_UNREAD = 20


@dataclass(frozen=True)
class SweepMeta(LongMeta):
    """The meta of objSweep. *older_than* is in seconds."""

    path: str = ""
    older_than: int | None = field(default=WEEK, metadata={"schema": {"minimum": 0, "maximum": MAX_AGE}})
    dry_run: bool = True


@action(
    "objSweep",
    meta=SweepMeta,
    text="List the segments that no large object uses. Remove them if ``dryRun`` is false.",
)
def obj_sweep(context: ActionContext, meta: SweepMeta) -> Reply:
    """Find the segments that no large object uses, and remove them unless this is a dry run."""
    older_than = WEEK if meta.older_than is None else meta.older_than
    settings = context.settings
    options = Options(
        settings.worker_count,
        settings.retries,
        worker_budget=context.request.workers,
        cancellation=context.cancellation,
    )
    transfer_context, started = TransferContext(context.storage, options), time.monotonic()
    storage = transfer_context.storage
    if not isinstance(storage, SupportsMultipart):
        kind = settings.type
        return Reply({"status": True, "leftovers": [], "msg": f"a store of the type {kind} has no segments"})
    with transfer_context.running():
        reply = transfer_context.wait_for(
            transfer_context.submit(lambda: _sweep(transfer_context, storage, meta, older_than))
        )
    reply.body["seconds"] = round(time.monotonic() - started, 3)
    return reply


def _sweep(
    transfer_context: TransferContext, storage: SupportsMultipart, meta: SweepMeta, older_than: int
) -> Reply:
    # other clients may make keys with empty components
    spellings = {normal_location(meta.path), without_dot(meta.path)}
    run_all = _cancellable(transfer_context)

    def selects(key: str) -> bool:
        transfer_context.cancellation.checkpoint()
        return any(relative_to(key, each) is not None for each in spellings)

    found = storage.leftovers(selects, older_than, run_all)
    body = _leftovers_body(found, meta.dry_run)
    if found.unread:
        return _refused(body, found)
    if not meta.dry_run:
        body |= _remove(storage, found.segments, run_all)
    return Reply(body)


def _cancellable(transfer_context: TransferContext) -> Callable[[Sequence[Callable[[], T]]], list[T]]:
    """Return a function that runs tasks in the worker pool. It starts none after a cancellation."""

    def checked(task: Callable[[], T]) -> T:
        if transfer_context.cancellation.is_cancelled:
            raise transfer_context.cancellation.error()
        return task()

    def run_all(tasks: Sequence[Callable[[], T]]) -> list[T]:
        return transfer_context.pool.share([lambda task=task: checked(task) for task in tasks])  # type: ignore[misc]

    return run_all


def _leftovers_body(found: Leftovers, dry_run: bool) -> dict[str, Any]:
    rows = [
        {"name": each.name, "bytes": each.size, "last_modified": each.last_modified}
        for each in found.segments
    ]
    return {
        "status": True,
        "leftovers": rows,
        "bytes": sum_of(*(each.size for each in found.segments)),
        "manifests": found.manifests,
        **({"dryRun": True} if dry_run else {}),
    }


def _refused(body: dict[str, Any], found: Leftovers) -> Reply:
    """Reply that nothing is removed, because an unreadable object may use the segments that seem unused."""
    error = RejectedError(
        f"nothing is removed, because {len(found.unread)} objects or listings that may use segments could not be read, "
        f"such as {found.unread[0]}; make them readable, and send the message again"
    )
    body |= {"status": False, "unread": [*found.unread[:MAX_UNREAD]]}
    return Reply({**body, "msg": str(error), "error": dict(error.facts)}, error)


def _remove(storage: SupportsMultipart, segments: Sequence[Leftover], run_all: RunAll) -> dict[str, Any]:
    """Remove *segments*. Return the members of the reply that report it."""

    def remove(leftover: Leftover) -> bool | PfstorageError:
        try:
            return storage.remove_leftover(leftover)
        except StoppedError:
            raise
        except StorageError as e:
            return e

    results = run_all([lambda each=each: remove(each) for each in segments])  # type: ignore[misc]
    failed = [
        {"object": each.name, "msg": str(error)}
        for each, error in zip(segments, results, strict=True)
        if isinstance(error, PfstorageError)
    ]
    body: dict[str, Any] = {"removed": sum(each is True for each in results), "failed": failed}
    if failed:
        body |= {"status": False, "msg": f"{len(failed)} segments could not be removed: {failed[0]['msg']}"}
    return body
