"""``/api/v1/cmd``: messages for the dispatcher."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from pfstorage.actions import Upload
from pfstorage.errors import MessageError
from pfstorage.server.exchange import Answer, Request, answer_of
from pfstorage.server.http1 import body
from pfstorage.server.http1.form import Form, boundary_of, read_form
from pfstorage.wire.forms import decode_form, decode_query, looks_like_json
from pfstorage.wire.reply import Reply


def command(request: Request) -> Answer:
    """Answer the message that *request* carries."""
    try:
        reply = _of_query(request) if request.method in ("GET", "HEAD") else _of_body(request)
        answer = answer_of(reply, as_html=request.handler.settings.http_response)
    finally:
        request.permit.end_decoding()
    if request.method == "HEAD":  # nobody reads what the reply has
        reply.close()
    return answer


def _of_query(request: Request) -> Reply:
    principal = replace(request.principal, is_trusted=False, is_read_only=True)
    return request.handler.answer(decode_query(request.query), replace(request.context, principal=principal))


def _of_body(request: Request) -> Reply:
    boundary = boundary_of(request.headers.only("content-type"))
    if boundary is None:
        return _of_text(request, body.read_text(request.open_body(body.MAX_MESSAGE)))
    most = request.most_on_disk if request.principal.permissions.allows("write") else 0
    source = request.open_body(most + 2 * body.MAX_MESSAGE)  # the fields, and what divides them
    with contextlib.closing(read_form(source, boundary, most, request.new_spool)) as form:
        return _of_form(request, form)


def _of_text(request: Request, text: str) -> Reply:
    request.permit.begin_decoding(len(text))
    if looks_like_json(text):
        return request.handler.answer(text, request.context)
    principal = replace(request.principal, is_trusted=False)
    return request.handler.answer(decode_form(text), replace(request.context, principal=principal))


def _of_form(request: Request, form: Form) -> Reply:
    if "d_msg" not in form.fields:
        raise MessageError("a multipart form needs the field d_msg with the message")
    upload = None
    if file := form.local:
        name = form.fields.get("filename", "")
        upload = Upload(file.body(), file.size, name, content_type=file.content_type)
    # the token may have been revoked while the file arrived
    principal = replace(request.principal.renewed(), is_trusted=False)
    text = form.fields["d_msg"]
    request.permit.begin_decoding(len(text))
    return request.handler.answer(text, replace(request.context, principal=principal, upload=upload))
