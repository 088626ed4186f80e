"""What a job is, and how a reply shows it."""

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
OVER = (DONE, FAILED, CANCELLED)
STATES = (QUEUED, RUNNING, *OVER)
MOST_LISTED = 1000
"""Jobs that a list has at most."""
MOST_REASON = 1000
"""Characters of a reason in a list and in the progress. The reply has all of them."""
NOBODY = "\0"
"""The owner of a job whose row no longer names one. No token has this name."""


@dataclass(frozen=True)
class Order:
    """What is to be done: a *message*, from who has the token *owner* with these *permissions*.

    *jid* is what the owner calls the job, if they call it anything. *origin* is where its paths and keys
    mean what they do.
    """

    message: Mapping[str, Any]
    owner: str = ""
    permissions: Permissions = field(default_factory=Permissions)
    jid: str = ""
    origin: Origin = field(default_factory=Origin)


@dataclass(frozen=True)
class Job:
    """How far an order is. Times are in seconds since 1970.

    *owner*, *permissions* and *jid* are those of the order, and *action* that of its message, which is not kept in
    memory. *created* is None only in a damaged row. *reply* is None until the job is over, and if it was cancelled
    before it had begun, and in a list of jobs. *reason* says why a job has failed or was cancelled.
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
    def is_over(self) -> bool:
        return self.state in OVER

    def as_body(self) -> dict[str, Any]:
        """Return what a reply and an event tell of it."""
        return dict(self._body)

    def as_row(self) -> KnownRow:
        """Return what a list tells of it."""
        return KnownRow(self._body, self._text)

    @functools.cached_property
    def _text(self) -> str:
        return dumps(self._body)

    @functools.cached_property
    def _body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "job": self.id,
            **({"jid": self.jid} if self.jid else {}),
            **({"owner": self.owner} if self.owner not in ("", NOBODY) else {}),
            "action": self.action,
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
