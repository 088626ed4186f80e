"""Conditions, ranges and other headers of a request for an object."""

from __future__ import annotations

from tests.support.attacks.row import Row, objects

ROWS = [
    Row("a part of an object to store", objects("PUT", "/own/a", "Content-Range: bytes 0-1/9"), (400,)),
    Row("an object on a condition", objects("PUT", "/own/a", 'If-Match: "x"'), (400,)),
    Row("an object packed", objects("PUT", "/own/x", "Content-Encoding: gzip"), (415,)),
    Row("an object with a wrong sum", objects("PUT", "/own/x", "Content-MD5: " + "A" * 22 + "=="), (400,)),
    Row("an object with a sum that is none", objects("PUT", "/own/x", "Content-MD5: \xe9"), (400,)),
    Row("a kind that can't be sent back", objects("PUT", "/own/x", "Content-Type: a\xe9/b"), (400,)),
    Row("a kind that is too long", objects("PUT", "/own/x", "Content-Type: a/" + "b" * 300), (400,)),
    *(
        Row(
            f"the range {value[:30]!r}",
            objects("GET", "/own/a", f"Range: {value}"),
            statuses,
            may_succeed=True,
        )
        for value, statuses in (
            ("bytes=0-" + "9" * 5000, (200,)),
            ("bytes=" + "0-0," * 10_000 + "0-0", (200,)),
            ("bytes=-0", (200, 416)),
            ("bytes=3-1", (200, 416)),
            ("bytes=a-b", (200,)),
            ("bytes=-" + "9" * 5000, (200,)),
            ("bytes=\xb2-", (200,)),
        )
    ),
    Row(
        "a range beyond the object",
        objects("GET", "/own/a", f"Range: bytes={10**30}-"),
        (200, 416),
        may_succeed=True,
    ),
    Row(
        "many etags", objects("GET", "/own/a", "If-None-Match: " + '"x", ' * 10_000), (200,), may_succeed=True
    ),
    *(
        Row(
            f"since {since[:30]!r}",
            objects("GET", "/own/a", f"If-Modified-Since: {since}"),
            (200,),
            may_succeed=True,
        )
        for since in ("Fri, 31 Dec 99999 23:59:59 GMT", "Mon, 0 Jan 0000 00:00:00 GMT", "\xff", "9" * 5000)
    ),
]
