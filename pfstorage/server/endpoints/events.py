"""``/api/v1/jobs/ID/events``: stream the events of a job."""

from __future__ import annotations

import re
import time
from urllib.parse import unquote

from pfstorage.actions.jobs import require_visible
from pfstorage.errors import UnknownPathError
from pfstorage.server.exchange import PIECE, Request, to_response
from pfstorage.server.http1.sending import Response, Writer
from pfstorage.wire.reply import Reply

_INDENT = re.compile(r"\n *")  # a JSON string contains no newline
_ENDS_INDENTED = re.compile(r"\n *\Z")
JOBS = "/api/v1/jobs/"
_END = "/events"
# milliseconds after which a client requests the events again when its stream has ended
RETRY_MS = 1000


def job_events(request: Request) -> Response:
    """Stream the events of a job as server-sent events (WHATWG HTML, section 9.2), each with the JSON of ``jobStatus``.

    The stream breaks if the token of the client loses its permission. After some time, it ends with a ``retry``, so
    that a client that still listens requests it again, and gets a place if one is free.
    """
    path = request.head.path
    if not path.endswith(_END):
        raise UnknownPathError(
            f"this path does not exist: the events of a job are at {JOBS}ID{_END}, and jobStatus returns its state"
        )
    job_id = unquote(path[len(JOBS) : -len(_END)])
    message = {"action": "jobStatus", "meta": {"job": job_id}}
    reply = request.services.handler.answer(message, request.context)
    jobs = request.context.jobs
    if reply.error or jobs is None:
        return to_response(reply)
    request.client.permit.begin_following()
    job, events = jobs.status(job_id), jobs.events(job_id)

    def write(out: Writer) -> None:
        deadline = time.monotonic() + request.services.stream_seconds
        for event in events:
            # checks the token again, which may have been revoked or restricted
            require_visible(request.principal.renewed(), job)
            line = _EventWriter(out)
            Reply(event).write(line)
            line.end()
            out.flush()
            if time.monotonic() >= deadline:
                out.write(b"retry: %d\n\n" % RETRY_MS)
                return

    # without this header, a proxy such as nginx would collect some kilobytes of events
    return Response(200, write, "text/event-stream", headers={"X-Accel-Buffering": "no"})


class _EventWriter:
    """A writer of one event to *out*: indented JSON, piece by piece, without its line breaks."""

    def __init__(self, out: Writer) -> None:
        self._out = out
        self._waiting = bytearray(b"data: ")
        self._is_indented = False  # the last text ended inside an indent

    def write(self, text: str) -> None:
        text = text.lstrip(" ") if self._is_indented else text
        if text:
            self._is_indented = _ENDS_INDENTED.search(text) is not None
            self._waiting += _INDENT.sub("", text).encode()
        if len(self._waiting) >= PIECE:
            self._send()

    def end(self) -> None:
        self._waiting += b"\n\n"
        self._send()

    def _send(self) -> None:
        self._out.write(bytes(self._waiting))
        self._waiting.clear()
