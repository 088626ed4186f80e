"""``GET /``: a page to browse, upload and download with. It asks for all that it shows as any client does."""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

from pfstorage.errors import UnknownPathError
from pfstorage.server.exchange import Answer, Request, names_etag

PAGE = "/page/"
"""Where what belongs to the page is, beside it."""

KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS = {
    # nothing from elsewhere, nothing inline: what a key or an error says never becomes a part of the page
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; worker-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    # it holds nobody's data: a browser may keep it, and asks whether it is the same
    "Cache-Control": "no-cache",
}


def page(request: Request) -> Answer:
    """Give out the page, or a file that belongs to it. Anybody may have them: they show nothing by themselves."""
    name = request.path.removeprefix(PAGE) if request.path.startswith(PAGE) else "index.html"
    if name not in _files():
        raise UnknownPathError("there is nothing at this path: the page is at /")
    content, etag = _files()[name]
    headers = {**HEADERS, "ETag": f'"{etag}"'}
    kind = f"{KINDS[name.rpartition('.')[2]]}; charset=utf-8"
    if names_etag(request.headers.get("if-none-match", ""), etag):
        return Answer(304, kind=kind, headers=headers)
    return Answer(200, content, kind, headers=headers)


@functools.cache
def _files() -> dict[str, tuple[bytes, str]]:
    """Return the content and the etag of each file by its name."""
    names = (file for file in resources.files(__package__).iterdir() if file.name.rpartition(".")[2] in KINDS)
    contents = {file.name: file.read_bytes() for file in names}
    return {name: (content, hashlib.sha256(content).hexdigest()[:32]) for name, content in contents.items()}
