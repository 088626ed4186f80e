"""Compare local files with the objects that objPull would write to them: objVerify."""

from __future__ import annotations

import functools

from pfstorage.actions.audit import audit_body
from pfstorage.actions.choice import (
    ObjectChoice,
    PullMeta,
    choose,
    choose_unlisted,
    selected_storage,
    text_if_empty,
)
from pfstorage.actions.context import ActionContext
from pfstorage.actions.options import body_if_empty, make_transfer_context, path_list
from pfstorage.actions.registry import action
from pfstorage.local import LocalAccess
from pfstorage.transfer import Plan, TransferContext, verify
from pfstorage.transfer.verify import Comparison
from pfstorage.wire.packed import PackedStrings
from pfstorage.wire.reply import Reply


@action(
    "objVerify",
    meta=PullMeta,
    text="Compare local files with the objects that objPull would write to them. Move nothing.",
)
def obj_verify(context: ActionContext, meta: PullMeta) -> Reply:
    """Compare local files with the objects that objPull would write to them."""
    with context.local_access() as local_access:
        return _verify(context, meta, local_access)


def _verify(context: ActionContext, meta: PullMeta, local_access: LocalAccess) -> Reply:
    storage = selected_storage(context, meta)
    make_context = functools.partial(make_transfer_context, context, meta, storage)
    make_context()  # a malformed message is an error before the store is asked
    extra = PackedStrings()

    def compare(choice: ObjectChoice) -> Comparison:
        def plan(transfer_context: TransferContext) -> Plan:
            nonlocal extra
            extra = PackedStrings()
            return choice.comparison_plan(transfer_context, extra.append)

        return verify(plan, make_context, choice.resolve_link, sure=meta.sure)

    choice = choose(storage, meta, local_access)
    comparison = compare(choice)
    if unlisted := choose_unlisted(choice, comparison):
        choice, comparison = unlisted, compare(unlisted)
    body = audit_body(comparison, context.left_out)
    if not (comparison.count or comparison.failed or comparison.error or context.left_out):
        body |= body_if_empty(meta, text_if_empty(meta, choice))
    if comparison.error and not comparison.count:
        raise comparison.error
    paths = {"localpath": choice.target.path, "currentWorkingDir": choice.target.cwd}
    body |= {**path_list("extra", extra, meta), **paths}
    return Reply(body, comparison.error, partial_error=comparison.first_error)
