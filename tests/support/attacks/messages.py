"""Bodies that are no messages, and messages with invalid values."""

from __future__ import annotations

import json

from tests.support.attacks.row import BEARER, READER, Row, message_bytes, objects
from tests.support.exchange import MULTIPART, message, multipart, post, request

CMD = "/api/v1/cmd"
FILE = ("local", b"x")


def form(*parts: tuple[str, bytes], kind: str = MULTIPART, boundary: str = "limit") -> bytes:
    return post(multipart(*parts, boundary=boundary), BEARER, kind)


def upload(**meta: object) -> tuple[str, bytes]:
    return "d_msg", message("objPut", **meta).encode()


JSON = [
    *(
        Row(f"the body {body[:60]!r}", post(body, BEARER), (400,))
        for body in (
            b"",
            b" ",
            b"[]",
            b"null",
            b"true",
            b'"ls"',
            b"{}{}",
            b'{"action":"ls"}x',
            b"{'action':'ls'}",
            b'{"action":"ls",}',
            b'{"action":"ls"/**/}',
            b'{"action":"\xff"}',
            b'{"action":"ls","meta":{"path":"\xc0\xaf"}}',
            b'{"action":"ls","action":"hello"}',
            b'{"action":"ls","meta":{"path":"own/","path":"other/"}}',
            b'{"action":"ls","meta":{"limit":NaN}}',
            b'{"action":"ls","meta":{"limit":-Infinity}}',
            b'{"action":"ls","meta":{"limit":1e999}}',
            b'{"action":"ls","meta":[]}',
            b'{"action":["ls"],"meta":{}}',
            b'{"action":{"ls":1},"meta":{}}',
            b'{"meta":{"path":"own/"}}',
        )
    ),
    Row("deep JSON", post(b"[" * 100_000, BEARER), (400,)),
    Row("deep JSON that ends", post(b'{"a":' * 50_000 + b"1" + b"}" * 50_000, BEARER), (400,)),
    Row("a deep value", message_bytes("ls", path=[[[[[[["own/"]]]]]]]), (400,)),
    Row("a million keys", post(json.dumps({str(n): 0 for n in range(80_000)}), BEARER), (400,)),
    Row(
        "a number of many digits",
        post(b'{"action":"ls","meta":{"limit":%b}}' % (b"9" * 100_000), BEARER),
        (400,),
    ),
    *(
        Row(f"the action {action[:20]!r}", message_bytes(action), (404,))
        for action in ("__init__", "ls\0", "LS", "../ls", "x" * 1_000_000)
    ),
    Row("a message over a megabyte", post(b" " * (1 << 20) + b"{}", BEARER), (413,)),
    Row("a surrogate alone", post(b'{"action":"ls","meta":{"path":"own/\\ud800"}}', BEARER), (200, 400)),
]

META = [
    *(
        Row(f"ls with {str(meta)[:60]}", message_bytes("ls", **meta), (400, 403))
        for meta in (
            {"limit": 0},
            {"limit": -1},
            {"limit": True},
            {"limit": 10**30},
            {"limit": "9" * 5000},
            {"limit": 1.5},
            {"limit": {}},
            {"path": 7},
            {"path": None, "substr": []},
            {"retSpec": ["__class__"], "path": "own/"},
            {"retSpec": "name; drop", "path": "own/"},
            {"retSpec": [["name"]], "path": "own/"},
            {"delimiter": 0, "path": "own/"},
            {"prependBucketPath": True, "path": "own/"},
            {"prependBucketPath": "other", "path": "own/"},
        )
    ),
    *(
        Row(
            f"objPull with {str(meta)[:60]}",
            message_bytes("objPull", fromLocation="own", mapLocationOver="data", **meta),
        )
        for meta in (
            {"include": [[]]},
            {"include": 7},
            {"exclude": {"a": "b"}},
            {"shard": "1/0"},
            {"shard": "0/1e9"},
            {"shard": "-1/2"},
            {"shard": "9" * 5000 + "/2"},
            {"overwrite": "perhaps"},
            {"reply": "everything"},
            {"dryRun": "perhaps"},
            {"async": "perhaps"},
            {"async": True, "jid": "x" * 300},
            {"async": True, "jid": "a\nb"},
            {"async": True, "jid": {"$ne": None}},
        )
    ),
    Row("ls below what climbs", message_bytes("ls", prependBucketPath="own/..", path="other/"), (200, 400)),
    Row("all that is known, by one who sees a part", message_bytes("hello", askAbout="sysinfo"), (403,)),
    Row(
        "a write by one who reads",
        message_bytes("objPut", token=READER, putSpec="data", inLocation="own/x"),
        (403,),
    ),
    Row("an upload by one who reads", objects("PUT", "/own/x", token=READER), (403,)),
    Row(
        "a sweep by one who reads", message_bytes("objSweep", token=READER, path="own", dryRun=False), (403,)
    ),
    Row("a pull by one who reads", message_bytes("objPull", token=READER, fromLocation="own"), (403,)),
    Row("a name with a NUL", message_bytes("objStat", obj="own/a\0"), (400, 404)),
    Row("a name with a line break", message_bytes("objStat", obj="own/a\r\nX: y"), (400, 404)),
    Row("a name in another form", message_bytes("objStat", obj="own/a\u0301"), (404,)),
    Row("a name that runs backwards", message_bytes("objStat", obj="own/\u202ea"), (404,)),
    Row("a name of a megabyte", message_bytes("objStat", obj="own/" + "a" * 1_000_000), (400, 404)),
    Row("a name of many parts", message_bytes("objStat", obj="own" + "/a" * 400_000), (400, 404)),
    Row(
        "a name that climbs for long", message_bytes("objStat", obj="own" + "/.." * 300_000), (400, 403, 404)
    ),
]

QUERIES = [
    Row(
        "a change by GET",
        request("GET", f"{CMD}?action=objPut&putSpec=data&inLocation=own/x", BEARER),
        (405,),
    ),
    Row(
        "a change of settings by GET", request("GET", f"{CMD}?action=internalctl&var=/&set=x", BEARER), (405,)
    ),
    Row(
        "a value twice in the query", request("GET", f"{CMD}?action=ls&path=own/&path=other/", BEARER), (400,)
    ),
    Row("a query that is no UTF-8", request("GET", f"{CMD}?action=ls&path=%ff", BEARER), (400,)),
    Row("a query of many values", request("GET", f"{CMD}?action=ls&" + "a=b&" * 10_000, BEARER), (400,)),
    Row("a page of objects without end", objects("GET", f"?limit={10**12}"), (400,)),
    Row("a page of objects of none", objects("GET", "?limit=0"), (400,)),
    Row("a page with another question", objects("GET", "?prefix=own/&x=y"), (400,)),
    Row("a page that begins at another key", objects("GET", "?marker=other/"), (200, 403), may_succeed=True),
]

FORMS = [
    Row("a form without a limit", post(b"x", BEARER, "Content-Type: multipart/form-data"), (400,)),
    Row(
        "a form with a long limit",
        form(FILE, kind="Content-Type: multipart/form-data; boundary=" + "b" * 10_000, boundary="b" * 10_000),
        (400,),
    ),
    Row(
        "a form that does not end",
        post(b"--limit\r\nContent-Disposition: form-data", BEARER, MULTIPART),
        (400,),
    ),
    Row("a form of nothing", post(b"--limit--\r\n", BEARER, MULTIPART), (400,)),
    Row("a form without a message", form(FILE), (400,)),
    Row("a form of two messages", form(upload(toObject="own/x"), upload(toObject="other/x"), FILE)),
    Row("a form of two files", form(upload(toObject="own/x"), FILE, FILE), (400,)),
    Row("a file before the message", form(FILE, upload(toObject="other/x"))),
    Row("a form of many parts", form(*[(f"f{n}", b"x") for n in range(5000)]), (400, 413)),
    Row("a form with a long field", form(("d_msg", b" " * (2 << 20)), FILE), (400, 413)),
    Row("a form in a form", form(("d_msg", multipart(upload(toObject="own/x")))), (400,)),
    Row("a form to keys above", form(upload(toObject="own/../other/x"), FILE)),
    Row("a form to an empty key", form(upload(toObject=""), FILE), (200, 400)),
    Row(
        "a form for an action of the whole store",
        form(("d_msg", message("ls", path="other/").encode()), FILE),
    ),
    Row(
        "a part whose head does not end",
        post(b"--limit\r\nX: " + b"y" * 100_000 + b"\r\n\r\nx\r\n--limit--\r\n", BEARER, MULTIPART),
        (400, 413),
    ),
    *(
        Row(
            f"a message as {kind!r}",
            post(message("objPut", toObject="other/x"), BEARER, f"Content-Type: {kind}"),
        )
        for kind in (
            "application/json; charset=utf-7",
            "application/xml",
            "application/x-www-form-urlencoded",
        )
    ),
    Row(
        "a packed message", post(b"\x1f\x8b\x08\0" + b"x" * 50, BEARER, "Content-Encoding: gzip"), (400, 415)
    ),
]

ROWS = [*JSON, *META, *QUERIES, *FORMS]
