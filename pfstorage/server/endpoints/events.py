"""``/api/v1/jobs/ID/events``: what becomes of a job, as it happens."""

from __future__ import annotations

import re
import time
from urllib.parse import unquote

from pfstorage.actions.jobs import require_visible
from pfstorage.errors import UnknownPathError
from pfstorage.server.exchange import PIECE, Answer, Request, answer_of
from pfstorage.server.http1.body import Writer
from pfstorage.wire.reply import Reply

_INDENT = re.compile(r"\n *")  # within a text, JSON has no newline
_ENDS_INDENTED = re.compile(r"\n *\Z")
JOBS = "/api/v1/jobs/"
_END = "/events"
RETRY_MS = 1000
"""After how many milliseconds a client asks again whose stream has lasted long enough."""


def job_events(request: Request) -> Answer:
    """Stream the events of a job as server-sent events (WHATWG HTML, 9.2), each with the JSON of ``jobStatus``.

    The stream breaks off where the client's token would not get it any more. After some time it ends with a
    ``retry``, so that whoever still listens asks again, and has a place again if there is one.
    """
    if not request.path.endswith(_END):
        raise UnknownPathError(
            f"there is nothing at this path: the events of a job are at {JOBS}ID{_END}, and jobStatus tells of one"
        )
    job_id = unquote(request.path[len(JOBS) : -len(_END)])
    reply = request.handler.answer({"action": "jobStatus", "meta": {"job": job_id}}, request.context)
    jobs = request.context.jobs
    if reply.error or jobs is None:
        return answer_of(reply)
    request.permit.begin_following()
    job, events = jobs.status(job_id), jobs.events(job_id)

    def write(out: Writer) -> None:
        deadline = time.monotonic() + request.stream_seconds
        for event in events:
            require_visible(
                request.principal.renewed(), job
            )  # a token may be revoked meanwhile, or be for less
            line = _OneLine(out)
            Reply(event).write(line)
            line.end()
            out.flush()
            if time.monotonic() >= deadline:
                out.write(b"retry: %d\n\n" % RETRY_MS)
                return

    # a proxy such as nginx would keep the events until it has some kilobytes of them
    return Answer(200, write, "text/event-stream", headers={"X-Accel-Buffering": "no"})


class _OneLine:
    """Writes JSON to *out* as it comes, on the one line that an event has."""

    def __init__(self, out: Writer) -> None:
        self._out = out
        self._waiting = bytearray(b"data: ")
        self._is_indented = False  # what came last ended in an indent, perhaps in its middle

    def write(self, text: str) -> None:
        text = text.lstrip(" ") if self._is_indented else text
        if text:
            self._is_indented = _ENDS_INDENTED.search(text) is not None
            self._waiting += _INDENT.sub("", text).encode()
        if len(self._waiting) >= PIECE:
            self._let_go()

    def end(self) -> None:
        self._waiting += b"\n\n"
        self._let_go()

    def _let_go(self) -> None:
        self._out.write(bytes(self._waiting))
        self._waiting.clear()
