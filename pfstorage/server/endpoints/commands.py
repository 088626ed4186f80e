"""``/api/v1/cmd``: pass messages to the dispatcher."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from pfstorage.actions import Upload
from pfstorage.errors import MessageError
from pfstorage.server.endpoints.form import Form, boundary_of, read_form
from pfstorage.server.exchange import Request, to_response
from pfstorage.server.http1 import body
from pfstorage.server.http1.sending import Response
from pfstorage.wire.forms import decode_form, decode_query, looks_like_json
from pfstorage.wire.reply import Reply


def command(request: Request) -> Response:
    """Answer the message in the query or the body of *request*."""
    method = request.head.method
    try:
        reply = _answer_query(request) if method in ("GET", "HEAD") else _answer_body(request)
        response = to_response(reply, as_html=request.services.handler.settings.http_response)
    finally:
        request.client.permit.end_decoding()
    if method == "HEAD":  # the rows of the reply will not be read
        reply.close()
    return response


def _answer_query(request: Request) -> Reply:
    principal = replace(request.principal, is_trusted=False, is_read_only=True)
    context = replace(request.context, principal=principal)
    return request.services.handler.answer(decode_query(request.head.query), context)


def _answer_body(request: Request) -> Reply:
    boundary = boundary_of(request.head.headers.only("content-type"))
    open_body = request.client.open_body
    if boundary is None:
        return _answer_text(request, body.body_text(open_body(body.MAX_MESSAGE)))
    max_file = request.max_spooled if request.principal.permissions.allows("write") else 0
    source = open_body(max_file + 2 * body.MAX_MESSAGE)  # the fields, and the boundaries between them
    with contextlib.closing(read_form(source, boundary, max_file, request.new_spooled_file)) as form:
        return _answer_form(request, form)


def _answer_text(request: Request, text: str) -> Reply:
    request.client.permit.begin_decoding(len(text))
    handler = request.services.handler
    if looks_like_json(text):
        return handler.answer(text, request.context)
    principal = replace(request.principal, is_trusted=False)
    return handler.answer(decode_form(text), replace(request.context, principal=principal))


def _answer_form(request: Request, form: Form) -> Reply:
    if "d_msg" not in form.fields:
        raise MessageError("the multipart form has no field d_msg: send the message in it")
    upload = None
    if file := form.file:
        name = form.fields.get("filename", "")
        upload = Upload(file.body(), file.size, name, content_type=file.content_type)
    # the token may have been revoked while the file arrived
    principal = replace(request.principal.renewed(), is_trusted=False)
    context = replace(request.context, principal=principal, upload=upload)
    text = form.fields["d_msg"]
    request.client.permit.begin_decoding(len(text))
    return request.services.handler.answer(text, context)
