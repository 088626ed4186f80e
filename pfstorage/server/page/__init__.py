"""``GET /``: serve a web page to browse, upload and download objects. The page uses the same API as other clients."""

from __future__ import annotations

import functools
import hashlib
from importlib import resources

from pfstorage.errors import UnknownPathError
from pfstorage.server.exchange import Request, matches_etag
from pfstorage.server.http1.sending import Response

# the files of the page are below this path
PAGE = "/page/"

CONTENT_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS = {
    # Nothing from other origins and nothing inline is allowed, so a key or an error text can't run as a script.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    " connect-src 'self'; worker-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    # The files contain no user data: a browser may cache them, and checks whether they have changed.
    "Cache-Control": "no-cache",
}


def page(request: Request) -> Response:
    """Return the page or one of its files. They need no token, because they contain no data."""
    path = request.head.path
    name = path.removeprefix(PAGE) if path.startswith(PAGE) else "index.html"
    if name not in _files():
        raise UnknownPathError("this path does not exist: the page is at /")
    content, etag = _files()[name]
    headers = {**HEADERS, "ETag": f'"{etag}"'}
    content_type = f"{CONTENT_TYPES[_extension(name)]}; charset=utf-8"
    if matches_etag(request.head.headers.get("if-none-match", ""), etag):
        return Response(304, content_type=content_type, headers=headers)
    return Response(200, content, content_type, headers=headers)


def _extension(name: str) -> str:
    return name.rpartition(".")[2]


@functools.cache
def _files() -> dict[str, tuple[bytes, str]]:
    """Return the content and the ETag of each file by its name."""
    files = [
        each for each in resources.files(__package__).iterdir() if _extension(each.name) in CONTENT_TYPES
    ]
    contents = {file.name: file.read_bytes() for file in files}
    return {name: (content, hashlib.sha256(content).hexdigest()[:32]) for name, content in contents.items()}
