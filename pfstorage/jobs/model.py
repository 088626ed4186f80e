"""The data classes of jobs, their limits, and their form in a reply."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pfstorage.access.permissions import Permissions
from pfstorage.backends.times import iso_time
from pfstorage.jobs.origin import Origin
from pfstorage.transfer import Progress
from pfstorage.wire.json_text import dumps
from pfstorage.wire.packed import Packed
from pfstorage.wire.rows import KnownRow

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
FINAL_STATES = (DONE, FAILED, CANCELLED)
STATES = (QUEUED, RUNNING, *FINAL_STATES)
# The largest number of jobs in one list.
MAX_LISTED = 1000
# Characters of a reason in a list and in the progress. The reply has the whole reason.
MAX_REASON = 1000
# The owner of a job whose row no longer names its owner. No token has this name.
UNKNOWN_OWNER = "\0"


@dataclass(frozen=True)
class JobLimits:
    """The bounds of the number and the bytes of jobs.

    *max_running* jobs run at once; each owner has at most *max_running_per_owner* of them, or as many as there are
    if that is 0. See `JobQueue.next` for the places beyond *max_running*.

    The compressed messages of one owner's queued jobs have at most *max_bytes_per_owner* bytes. The same bound holds
    for the messages and replies of one owner's finished jobs. *max_bytes* is the bound for all owners together:
    *full_owners* times that of one owner. The server removes a finished job *ttl* seconds after its end.
    """

    max_running: int = 4
    max_running_per_owner: int = 0
    max_bytes_per_owner: int = 64 * 1024**2
    ttl: float = 7 * 86400.0
    max_queued: int = 10_000
    max_queued_per_owner: int = 1000
    max_finished: int = 10_000
    full_owners: int = 16

    @property
    def max_bytes(self) -> int:
        return self.full_owners * self.max_bytes_per_owner


@dataclass(frozen=True)
class JobRequest:
    """A *message* to run as a job, from the owner of a token and with the *permissions* of that token.

    *owner* is the name of the token. *jid* is the owner's name for the job, "" if the owner gives none. *origin*
    records the store and the directories to which the keys and paths of the message belong.
    """

    message: Mapping[str, Any]
    owner: str = ""
    permissions: Permissions = field(default_factory=Permissions)
    jid: str = ""
    origin: Origin = field(default_factory=Origin)


@dataclass(frozen=True)
class Job:
    """The state of a job, without its message. Times are in seconds since 1970.

    *owner*, *permissions* and *jid* come from the request, *action* from its message. *created* is None only in a
    damaged row. *reply* is None until the job has finished, after a cancellation in the queue, and in a list of jobs.
    *reason* is the error text of a job that has failed or was cancelled.
    """

    id: str
    action: str
    state: str
    created: float | None = None
    started: float | None = None
    finished: float | None = None
    owner: str = ""
    permissions: Permissions = field(default_factory=Permissions)
    jid: str = ""
    progress: Mapping[str, Any] = field(default_factory=dict)
    reply: Packed | None = None
    reason: str = ""

    @property
    def is_finished(self) -> bool:
        return self.state in FINAL_STATES

    def as_body(self) -> dict[str, Any]:
        """Return the members of a reply or an event about this job."""
        return dict(self._body)

    def as_row(self) -> KnownRow:
        """Return the row of this job in a list."""
        return self._row

    @functools.cached_property
    def _row(self) -> KnownRow:
        return KnownRow(self._body, dumps(self._body))

    @functools.cached_property
    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "job": self.id,
            **({"jid": self.jid} if self.jid else {}),
            **({"owner": self.owner} if self.owner not in ("", UNKNOWN_OWNER) else {}),
            "action": self.action,
            "state": self.state,
        }
        times = {"created": self.created, "started": self.started, "finished": self.finished}
        body.update({name: iso_time(time) for name, time in times.items() if time is not None})
        body["progress"] = dict(self.progress) or progress_row(Progress(0, 0, 0, 0, 0.0))
        if self.reason:
            body["msg"] = self.reason
        if self.reply is not None:
            body["reply"] = self.reply
        return body


def progress_row(progress: Progress) -> dict[str, Any]:
    """Return *progress* in the form of a reply.

    >>> progress_row(Progress(done=3, failed=1, skipped=2, size=3000, seconds=1.5))["bytesPerSecond"]
    2000
    """
    return {
        "files": progress.done,
        "bytes": progress.size,
        "failed": progress.failed,
        "skipped": progress.skipped,
        "total": progress.total,
        "seconds": round(progress.seconds, 3),
        "bytesPerSecond": round(progress.size / progress.seconds) if progress.seconds > 0 else 0,
    }
