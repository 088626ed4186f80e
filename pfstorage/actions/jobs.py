"""Jobs, which run after their reply: how a message becomes one, and jobStatus, jobList, jobCancel."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pfstorage.access.principal import Principal
from pfstorage.actions.context import ActionContext
from pfstorage.actions.options import LongMeta
from pfstorage.actions.registry import action
from pfstorage.errors import ForbiddenError, MessageError, UnknownJobError
from pfstorage.jobs.model import CANCELLED, MAX_LISTED, Job, JobRequest
from pfstorage.jobs.origin import Origin, store_name
from pfstorage.local import LocalAccess
from pfstorage.wire.fields import ANY_LENGTH, camel_case
from pfstorage.wire.message import Message
from pfstorage.wire.reply import Reply

if TYPE_CHECKING:
    from pfstorage.jobs.scheduler import JobScheduler

MAX_WAIT_SECONDS = 60
DEFAULT_JOBS = 100


@dataclass(frozen=True)
class JobMeta:
    """The meta of jobCancel: the id of a job, or the owner's name for it."""

    job: str = field(default="", metadata={"schema": ANY_LENGTH})
    jid: str = field(default="", metadata={"schema": ANY_LENGTH})


@dataclass(frozen=True)
class StatusMeta(JobMeta):
    """The meta of jobStatus. *wait* is in seconds."""

    wait: int | None = field(default=None, metadata={"schema": {"minimum": 0, "maximum": MAX_WAIT_SECONDS}})


@dataclass(frozen=True)
class JobsMeta:
    """The meta of jobList."""

    limit: int | None = field(default=None, metadata={"schema": {"minimum": 1, "maximum": MAX_LISTED}})


def submit(context: ActionContext, message: Message, meta: LongMeta) -> Reply:
    """Submit *message* as a job, and reply with its id. Raise `MessageError` if it can't be a job."""
    jobs = _jobs_of(context)
    if context.request.upload:
        raise MessageError("the file of a message is stored at once: leave out 'async'")
    if not (meta.jid and _is_known(jobs, meta.jid, context.principal.owner)):
        meta.check_access(context)
    request = JobRequest(
        {"action": message.action, "meta": _meta_of_job(message, meta)},
        context.principal.owner,
        context.principal.permissions,
        meta.jid,
        _origin(context),
    )
    if not jobs.is_persistent:
        context.warn("the job is lost when the server ends: start the server with --stateDir to keep jobs")
    return Reply({"status": True, "job": jobs.submit(request)}, is_accepted=True)


def _is_known(jobs: JobScheduler, jid: str, owner: str) -> bool:
    try:
        jobs.find(jid, owner)
    except UnknownJobError:
        return False
    return True


def _origin(context: ActionContext) -> Origin:
    roots, cwd = context.request.roots, LocalAccess().cwd_if_any
    named = roots.named_paths if roots else ((cwd, cwd),) if cwd else ()
    return Origin(store_name(context.settings), named)


def _meta_of_job(message: Message, meta: LongMeta) -> dict[str, Any]:
    """Return the meta of *message* without ``async``, ``jid`` and unknown names, which may be secrets."""
    fields = [field for field in dataclasses.fields(meta) if field.name not in ("async_", "jid")]
    names = {name for each in fields for name in (camel_case(each.name), *each.metadata.get("aliases", ()))}
    return {name: value for name, value in message.meta.items() if name in names and value is not None}


@action(
    "jobStatus",
    meta=StatusMeta,
    read_only=True,
    text="Report the progress of a job, now or when it ends, and then its reply.",
)
def job_status(context: ActionContext, meta: StatusMeta) -> Reply:
    """Report the state of a job: at once, or when it ends within ``wait`` seconds."""
    wait = meta.wait or 0
    jobs, job = _jobs_of(context), _named_job(context, meta)
    if wait:
        if context.request.permit and not job.is_finished:
            context.request.permit.begin_following()
        job = jobs.status(job.id, wait)
        require_visible(context.principal.renewed(), job)  # the token may have changed meanwhile
    return Reply({"status": True, **job.as_body()})


@action(
    "jobList", meta=JobsMeta, read_only=True, text="List the jobs that the caller may see, the latest first."
)
def job_list(context: ActionContext, meta: JobsMeta) -> Reply:
    """List the jobs that the caller may see, the latest first."""
    limit = DEFAULT_JOBS if meta.limit is None else meta.limit
    principal = context.principal
    owner = None if principal.permissions.is_unrestricted else principal.owner
    jobs = _jobs_of(context).list(limit, owner, principal.permissions.prefix)
    return Reply({"status": True, "jobs": [job.as_row() for job in context.cancellation.checked(jobs)]})


@action("jobCancel", meta=JobMeta, text="Cancel a job. It ends soon after.")
def job_cancel(context: ActionContext, meta: JobMeta) -> Reply:
    """Cancel a job. A running job ends soon after the reply."""
    job = _jobs_of(context).cancel(_named_job(context, meta).id)
    body = {"status": True, **job.as_body()}
    if job.is_finished and job.state != CANCELLED:
        body |= {"status": False, "msg": f"there is nothing to cancel: the job is {job.state}"}
    return Reply(body)


def require_visible(principal: Principal, job: Job) -> None:
    """Raise `UnknownJobError` if *job* is another owner's, `ForbiddenError` if it names keys out of reach.

    The owner may have had more rights when the job was submitted.
    """
    if principal.permissions.is_unrestricted:
        return
    if job.owner != principal.owner:
        raise UnknownJobError(f"there is no job {job.id!r}", job=job.id)
    if not principal.permissions.covers(job.permissions):
        text = "the job may name keys that the token has no right to: use the token that began it"
        raise ForbiddenError(text, job=job.id)


def _named_job(context: ActionContext, meta: JobMeta) -> Job:
    if not (meta.job or meta.jid):
        raise MessageError(
            "name the job: meta 'job' takes the id of the reply, 'jid' the id that the sender chose"
        )
    jobs, principal = _jobs_of(context), context.principal
    job_id = meta.job or jobs.find(meta.jid, principal.owner, any_owner=principal.permissions.is_unrestricted)
    job = jobs.status(job_id)
    require_visible(principal, job)
    return job


def _jobs_of(context: ActionContext) -> JobScheduler:
    if context.request.jobs is None:
        raise MessageError(
            "only a server takes 'async' and has jobs: send the message to one, for example by --remote"
        )
    return context.request.jobs
