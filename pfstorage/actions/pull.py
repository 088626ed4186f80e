"""Write objects to local files: objPull."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

from pfstorage.actions.audit import audit_body
from pfstorage.actions.choice import PullMeta, choose, choose_unlisted, selected_storage, text_if_empty
from pfstorage.actions.context import ActionContext
from pfstorage.actions.options import body_if_empty, make_transfer_context, transfer_reply
from pfstorage.actions.registry import action
from pfstorage.actions.target import Target
from pfstorage.errors import FullDiskError
from pfstorage.local import LocalAccess
from pfstorage.transfer import Failure, Plan, Transfer, verify
from pfstorage.wire.reply import Reply

# objects whose sizes are added before the first byte moves: as many as a page of a listing has
CHECKED_FIRST = 10_000


@action("objPull", meta=PullMeta, text="Write the objects that a path and a selection choose to local files.")
def obj_pull(context: ActionContext, meta: PullMeta) -> Reply:
    """Write the selected objects to local files."""
    with context.local_access() as local_access:
        return _pull(context, meta, local_access)


def _pull(context: ActionContext, meta: PullMeta, local_access: LocalAccess) -> Reply:
    storage = selected_storage(context, meta)
    make_context = functools.partial(make_transfer_context, context, meta, storage)
    keeps_files = meta.overwrite == "never"
    check_space = None if meta.dry_run else functools.partial(_check_space, keeps_files=keeps_files)
    choice = choose(storage, meta, local_access, check_space)
    report = choice.pull(make_context)
    if unlisted := choose_unlisted(choice, report):
        choice, report = unlisted, unlisted.pull(make_context)
    paths = {"localpath": choice.target.path, "currentWorkingDir": choice.target.cwd}
    if not (report.count or report.failed or report.error):
        body = transfer_reply(report, meta, paths).body
        return Reply({**body, **body_if_empty(meta, text_if_empty(meta, choice))})
    audit = None
    if meta.audit and not (meta.dry_run or report.error):
        comparison = verify(choice.comparison_plan, make_context, choice.resolve_link, sure=meta.sure)
        audit = audit_body(comparison, context.left_out)
    return transfer_reply(report, meta, paths, audit)


def _check_space(plan: Plan, target: Target, *, keeps_files: bool) -> Iterator[Transfer | Failure]:
    """Yield the items of *plan* while the disk has space for them, in batches of `CHECKED_FIRST`.

    With *keeps_files*, existing files are not replaced. Raise `FullDiskError` before the first batch that has no space.
    """
    space, needed = target.free_bytes(), 0
    items = iter(plan)
    while batch := list(itertools.islice(items, CHECKED_FIRST)):
        transfers = [item for item in batch if isinstance(item, Transfer)]
        needed += sum(_transfer_size(item) for item in transfers)
        if space is not None and needed > space:  # count only the growth of existing files
            space, needed = target.free_bytes(), sum(_growth(item, keeps_files) for item in transfers)
        if space is not None and needed > space:
            text = f"{target.root!r} has room for {space} bytes, and the pull needs {needed}: free some space"
            raise FullDiskError(text, local=target.root)
        yield from batch


def _growth(item: Transfer, keeps_files: bool) -> int:
    """Return the number of bytes by which *item* makes its file larger."""
    size = _transfer_size(item)
    assert item.tree is not None
    try:
        present = item.tree.status(item.parts).st_size
    except (OSError, ValueError):
        return size
    return 0 if keeps_files else max(0, size - present)


def _transfer_size(item: Transfer) -> int:
    """Return the known size of *item*, or 0: the write fails if the disk has no space for it."""
    return (item.known.size or 0) if item.known else 0
