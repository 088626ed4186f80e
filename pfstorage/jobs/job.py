"""What a job is, and how a reply shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pfstorage.backends.common import iso_time
from pfstorage.jobs.origin import Origin
from pfstorage.rights import Rights
from pfstorage.transfer import Progress

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
OVER = (DONE, FAILED, CANCELLED)
STATES = (QUEUED, RUNNING, *OVER)


@dataclass(frozen=True)
class Order:
    """What is to be done: a *message*, from who has the token *owner* with these *rights*.

    *jid* is what the owner calls the job, if they call it anything. *origin* is where its paths and keys
    mean what they do.
    """

    message: Mapping[str, Any]
    owner: str = ""
    rights: Rights = field(default_factory=Rights)
    jid: str = ""
    origin: Origin = field(default_factory=Origin)


@dataclass(frozen=True)
class Job:
    """An order, and how far it is. Times are in seconds since 1970.

    *reply* is there once the job is over, unless it was cancelled before it had begun,
    or was read without; *reason* is what it says of a job that is not done.
    """

    id: str
    order: Order
    state: str
    created: float
    started: float | None = None
    finished: float | None = None
    progress: Mapping[str, Any] = field(default_factory=dict)
    reply: Mapping[str, Any] | None = None
    reason: str = ""

    @property
    def is_over(self) -> bool:
        return self.state in OVER

    def as_body(self) -> dict[str, Any]:
        """Return what a reply and an event tell of it."""
        body: dict[str, Any] = {
            "job": self.id,
            **({"jid": self.order.jid} if self.order.jid else {}),
            **({"owner": self.order.owner} if self.order.owner else {}),
            "action": self.order.message["action"],
            "state": self.state,
        }
        times = {"created": self.created, "started": self.started, "finished": self.finished}
        body.update({name: iso_time(time) for name, time in times.items() if time is not None})
        body["progress"] = dict(self.progress) or row_of(Progress(0, 0, 0, 0, 0.0))
        if self.reason:
            body["msg"] = self.reason
        if self.reply is not None:
            body["reply"] = self.reply
        return body


def row_of(progress: Progress) -> dict[str, Any]:
    """Return *progress* as replies show it.

    >>> row_of(Progress(done=3, failed=1, skipped=2, size=3000, seconds=1.5))["bytesPerSecond"]
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
