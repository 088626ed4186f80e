"""Work that goes on after its reply: how it is begun, and jobStatus, jobList, jobCancel."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pfstorage.actions.options import LongMeta
from pfstorage.actions.registry import Caller, Context, action
from pfstorage.errors import ForbiddenError, MessageError, UnknownJobError
from pfstorage.jobs.model import CANCELLED, MAX_LISTED, Job, JobRequest
from pfstorage.jobs.origin import Origin, store_name
from pfstorage.local import LocalAccess
from pfstorage.wire.fields import ANY_LENGTH, camel_case
from pfstorage.wire.message import Message
from pfstorage.wire.reply import Reply

if TYPE_CHECKING:
    from pfstorage.jobs.scheduler import JobScheduler

LONGEST_WAIT = 60
ROWS = 100


@dataclass(frozen=True)
class JobMeta:
    job: str = field(default="", metadata={"schema": ANY_LENGTH})
    jid: str = field(default="", metadata={"schema": ANY_LENGTH})


@dataclass(frozen=True)
class StatusMeta(JobMeta):
    wait: int | None = field(default=None, metadata={"schema": {"minimum": 0, "maximum": LONGEST_WAIT}})


@dataclass(frozen=True)
class JobsMeta:
    limit: int | None = field(default=None, metadata={"schema": {"minimum": 1, "maximum": MAX_LISTED}})


def begun(context: Context, message: Message, meta: LongMeta) -> Reply:
    """Take on *message* as a job, and reply which one it is. Raise `MessageError` for what can't be one."""
    jobs = _jobs_of(context.caller)
    if context.caller.upload:
        raise MessageError("a file that comes with the message is stored at once: leave out 'async'")
    meta.check()
    request = JobRequest(
        {"action": message.action, "meta": _known(message, meta)},
        context.caller.owner,
        context.caller.permissions,
        meta.jid,
        _origin(context),
    )
    if not jobs.is_persistent:
        context.warn("the job ends with the server, which has no --stateDir to keep it in")
    return Reply({"status": True, "job": jobs.submit(request)}, is_accepted=True)


def _origin(context: Context) -> Origin:
    roots, cwd = context.caller.roots, LocalAccess().cwd_if_any
    named = roots.named_paths if roots else ((cwd, cwd),) if cwd else ()
    return Origin(store_name(context.state.settings), named)


def _known(message: Message, meta: LongMeta) -> dict[str, Any]:
    """Return the meta of *message* without what made it a job, and without what is unknown: that may be a secret."""
    fields = [field for field in dataclasses.fields(meta) if field.name not in ("async_", "jid")]
    names = {name for each in fields for name in (camel_case(each.name), *each.metadata.get("aliases", ()))}
    return {name: value for name, value in message.meta.items() if name in names and value is not None}


@action(
    "jobStatus",
    meta=StatusMeta,
    read_only=True,
    text="Tell how far a job is, now or when it is over, and then its reply.",
)
def job_status(context: Context, meta: StatusMeta) -> Reply:
    wait = meta.wait or 0
    jobs, job = _jobs_of(context.caller), _named(context.caller, meta)
    if wait:
        if context.caller.permit and not job.is_finished:
            context.caller.permit.begin_following()
        job = jobs.status(job.id, wait)
        require_sight(context.caller.renewed(), job)  # as it is now, which may be long after
    return Reply({"status": True, **job.as_body()})


@action(
    "jobList", meta=JobsMeta, read_only=True, text="List the jobs that the caller may see, the latest first."
)
def job_list(context: Context, meta: JobsMeta) -> Reply:
    limit = ROWS if meta.limit is None else meta.limit
    caller = context.caller
    jobs = _jobs_of(caller).list(
        limit, None if _sees_all(caller) else caller.owner, caller.permissions.prefix
    )
    return Reply({"status": True, "jobs": [job.as_row() for job in context.cancellation.checked(jobs)]})


@action("jobCancel", meta=JobMeta, text="Have a job end soon.")
def job_cancel(context: Context, meta: JobMeta) -> Reply:
    jobs = _jobs_of(context.caller)
    job = jobs.cancel(_named(context.caller, meta).id)
    body = {"status": True, **job.as_body()}
    if job.is_finished and job.state != CANCELLED:
        body |= {"status": False, "msg": f"there is nothing to cancel: the job is {job.state}"}
    return Reply(body)


def require_sight(caller: Caller, job: Job) -> None:
    """Raise `UnknownJobError` if *job* is somebody else's, `ForbiddenError` if it names keys that are not for them.

    They had more rights when they began it.
    """
    if _sees_all(caller):
        return
    if job.owner != caller.owner:
        raise UnknownJobError(f"there is no job {job.id!r}", job=job.id)
    if not caller.permissions.reach(job.permissions):
        raise ForbiddenError("the job was begun with rights to more keys than the token has now", job=job.id)


def _named(caller: Caller, meta: JobMeta) -> Job:
    if not (meta.job or meta.jid):
        raise MessageError(
            "name the job: meta 'job' takes the id that was replied, 'jid' the one that was given"
        )
    jobs = _jobs_of(caller)
    job = jobs.status(meta.job or jobs.find(meta.jid, caller.owner, any_owner=_sees_all(caller)))
    require_sight(caller, job)
    return job


def _sees_all(caller: Caller) -> bool:
    return caller.permissions.is_unrestricted


def _jobs_of(caller: Caller) -> JobScheduler:
    if caller.jobs is None:
        raise MessageError(
            "only a server takes 'async' and has jobs: send the message to one, as by --remote"
        )
    return caller.jobs
