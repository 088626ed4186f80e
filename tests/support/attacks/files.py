"""Local files and keys that a token is not for."""

from __future__ import annotations

from tests.support.attacks.row import BEARER, Row, objects, told
from tests.support.exchange import MULTIPART, message, multipart, post

OUTSIDE = [
    "../secret",
    "/etc/passwd",
    "root/../../secret",
    "link-out/secret",
    "/proc/self/root/etc/passwd",
    "a\0b",
]
"""Local paths that lead out of what is served, or nowhere."""

LOCAL = [
    row
    for path in OUTSIDE
    for row in (
        Row(f"a push of {path!r}", told("objPut", putSpec=path, inLocation="own/x"), (200, 400, 403)),
        Row(f"a push of the file {path!r}", told("objPut", file=path, inLocation="own/x"), (200, 400, 403)),
        Row(
            f"a pull into {path!r}",
            told("objPull", fromLocation="own", mapLocationOver=path),
            (200, 400, 403),
        ),
        Row(
            f"a comparison with {path!r}",
            told("objVerify", fromLocation="own", mapLocationOver=path),
            (200, 400, 403),
        ),
    )
]

KEYS = [
    Row(
        "a push to other keys",
        told("objPut", putSpec="data", inLocation="other", mapLocationOver="data"),
        (403,),
    ),
    Row(
        "a push to keys above",
        told("objPut", putSpec="data", inLocation="own/../other", mapLocationOver="data"),
    ),
    Row("a push to nothing", told("objPut", putSpec="data", mapLocationOver="data")),
    Row(
        "an upload to other keys",
        post(
            multipart(("d_msg", message("objPut", toObject="other/x").encode()), ("local", b"x")),
            BEARER,
            MULTIPART,
        ),
        (403,),
    ),
    Row("a listing of other keys", told("ls", path="other/"), (403,)),
    Row("a look at another key", told("objStat", obj="other/secret"), (403,)),
    Row("whether another key exists", told("objExists", obj="other/secret"), (403,)),
    Row("a pull of other keys", told("objPull", fromLocation="other", mapLocationOver="data"), (403,)),
    Row("another object", objects("GET", "/other/secret"), (403,)),
    Row("another object, encoded", objects("GET", "/own/%2e%2e/other/secret")),
    Row("another object, twice encoded", objects("GET", "/own/%252e%252e/other/secret"), (404,)),
    Row("another object by a backslash", objects("GET", "/own\\..\\other\\secret"), (403, 404)),
    Row("another object by a semicolon", objects("GET", "/own;/../other/secret")),
    Row("another object by slashes", objects("GET", "//other/secret"), (403,)),
    Row("storing another object", objects("PUT", "/other/x"), (403,)),
    Row("storing above", objects("PUT", "/own/../other/x")),
    Row("a key with a NUL", objects("PUT", "/own/%00")),
    Row("a key that is no UTF-8", objects("PUT", "/own/%ff")),
    Row("a key with a line break", objects("GET", "/own/%0d%0aX:%20y"), (404,)),
    Row("a listing of other objects", objects("GET", "?prefix=other/"), (403,)),
]

ROWS = [*LOCAL, *KEYS]
