"""``GET /``: a page to browse, upload and download with. It asks for all that it shows as any client does."""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

from pfstorage.errors import UnknownPathError
from pfstorage.serving.exchange import Answer, Request

PAGE = "/page/"
"""Where what belongs to the page is, beside it."""

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS = {
    # nothing from elsewhere, nothing inline: what a key or an error says never becomes a part of the page
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    # it holds nobody's data: a browser may keep it, and asks whether it is the same
    "Cache-Control": "no-cache",
}


def page(request: Request) -> Answer:
    """Give out the page, or a file that belongs to it. Anybody may have them: they show nothing by themselves."""
    name = request.path.removeprefix(PAGE) if request.path.startswith(PAGE) else "index.html"
    content = _files().get(name)
    if content is None:
        raise UnknownPathError("there is nothing at this path: the page is at /")
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": etag}
    kind = f"{KINDS[name.rpartition('.')[2]]}; charset=utf-8"
    if etag in request.headers.get("if-none-match", ""):
        return Answer(304, kind=kind, headers=headers)
    return Answer(200, content, kind, headers=headers)


@functools.cache
def _files() -> dict[str, bytes]:
    here = resources.files(__package__)
    return {file.name: file.read_bytes() for file in here.iterdir() if file.name.rpartition(".")[2] in KINDS}
