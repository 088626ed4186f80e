"""Local files and keys outside the permissions of a token."""

from __future__ import annotations

from tests.support.attacks.row import BEARER, Row, message_bytes, objects
from tests.support.exchange import MULTIPART, message, multipart, post

OUTSIDE = [
    "../secret",
    "/etc/passwd",
    "root/../../secret",
    "link-out/secret",
    "/proc/self/root/etc/passwd",
    "a\0b",
]
"""Local paths that lead out of the roots, or nowhere."""

LOCAL = [
    row
    for path in OUTSIDE
    for row in (
        Row(
            f"a push of {path!r}", message_bytes("objPut", putSpec=path, inLocation="own/x"), (200, 400, 403)
        ),
        Row(
            f"a push of the file {path!r}",
            message_bytes("objPut", file=path, inLocation="own/x"),
            (200, 400, 403),
        ),
        Row(
            f"a pull into {path!r}",
            message_bytes("objPull", fromLocation="own", mapLocationOver=path),
            (200, 400, 403),
        ),
        Row(
            f"a comparison with {path!r}",
            message_bytes("objVerify", fromLocation="own", mapLocationOver=path),
            (200, 400, 403),
        ),
    )
]

KEYS = [
    Row(
        "a push to other keys",
        message_bytes("objPut", putSpec="data", inLocation="other", mapLocationOver="data"),
        (403,),
    ),
    Row(
        "a push to keys above",
        message_bytes("objPut", putSpec="data", inLocation="own/../other", mapLocationOver="data"),
    ),
    Row("a push to nothing", message_bytes("objPut", putSpec="data", mapLocationOver="data")),
    Row(
        "an upload to other keys",
        post(
            multipart(("d_msg", message("objPut", toObject="other/x").encode()), ("local", b"x")),
            BEARER,
            MULTIPART,
        ),
        (403,),
    ),
    Row("a listing of other keys", message_bytes("ls", path="other/"), (403,)),
    Row("a look at another key", message_bytes("objStat", obj="other/secret"), (403,)),
    Row("whether another key exists", message_bytes("objExists", obj="other/secret"), (403,)),
    Row(
        "a pull of other keys", message_bytes("objPull", fromLocation="other", mapLocationOver="data"), (403,)
    ),
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
