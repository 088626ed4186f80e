"""Messages without permission: tokens, origins, settings, paths and jobs of others."""

from __future__ import annotations

import hashlib
import json

from tests.support.attacks.row import (
    BEARER,
    CMD,
    EXPIRED,
    HASHED,
    PART,
    READER,
    WRITER,
    Row,
    bearer,
    message_bytes,
    objects,
)
from tests.support.exchange import message, post, request

EVIL = "Origin: https://evil.example.org"
QUIT = json.dumps({"meta": {"ctl": {"serverCmd": "quit"}}})


SHA256 = hashlib.sha256(HASHED.encode()).hexdigest()


def events(job: str, *headers: str) -> bytes:
    return request("GET", f"/api/v1/jobs/{job}/events", *headers)


TOKENS = [
    Row("no token", post(message("ls")), (401,)),
    Row("a token in the query", request("GET", f"{CMD}?action=ls&token={WRITER}"), (401,)),
    Row("a token in a cookie", post(message("ls"), f"Cookie: token={WRITER}"), (401,)),
    Row("two tokens", post(message("ls"), BEARER, "Authorization: Bearer x"), (401,)),
    Row("a token twice", post(message("ls"), BEARER, BEARER), (401,)),
    Row("a token that has expired", post(message("ls"), bearer(EXPIRED)), (401,), text="expired"),
    Row("an order by a token that has expired", post(QUIT, bearer(EXPIRED)), (401,), text="expired"),
    Row("the hash of a token", post(message("ls"), bearer(SHA256)), (401,)),
    Row("the line of a token", post(message("ls"), bearer(f"sha256:{SHA256}")), (401,)),
    *(
        Row(
            f"the authorization {value.replace(WRITER, 'TOKEN')[:30]!r}",
            post(message("ls"), f"Authorization: {value}"),
            (401,),
        )
        for value in (
            "Bearer",
            "Bearer x",
            f"Bearer {WRITER[:-1]}",
            f"Bearer {WRITER}x",
            f"Bearer {WRITER.upper()}",
            f"Bearer {WRITER}, x",
            f"Bearer {WRITER}\xa0",
            f"Bearer x {WRITER}",
            f"Bearer={WRITER}",
            f"Basic {WRITER}",
            f"Token {WRITER}",
            WRITER,
            "Bearer writer",
            "Bearer \xff\xfe",
            "Bearer " + "x" * 60_000,
        )
    ),
    *(
        Row(f"no token for {path}", request("GET", path), (401,))
        for path in (
            "/api/v1/objects/own/a",
            "/api/v1/objects?prefix=own/",
            "/metrics",
            "/api/v1/jobs/1/events",
        )
    ),
    Row("no token for a body that never comes", request("POST", CMD, "Content-Length: 1000000"), (401,)),
    Row("another method by a header", post(message("ls"), "X-HTTP-Method-Override: GET"), (401,)),
    Row("the numbers of all, by one who sees a part", request("GET", "/metrics", BEARER), (403,)),
    Row("the numbers of all, by one who rules a part", request("GET", "/metrics", bearer(PART)), (403,)),
]

SETTINGS = [
    *(
        Row(f"an order to quit with {name[:1]} {more}", post(QUIT, bearer(name), *more), (403,))
        for name, more in (
            (WRITER, ()),
            (READER, ()),
            (PART, ()),
            (WRITER, ("X-Forwarded-For: 127.0.0.1",)),
        )
    ),
    *(
        Row(f"the settings, {meta} by {token[:1]}", message_bytes("internalctl", token=token, **meta), (403,))
        for token in (WRITER, READER, PART)
        for meta in (
            {"var": "/swift/key", "set": "x"},
            {"var": "/", "get": "value"},
            {"var": "testing", "valueReplace": "x"},
            {"var": "/this/type", "set": "filesystem"},
        )
    ),
    Row("an order from a page", post(message("ls"), BEARER, EVIL), (403,)),
    Row("an order from no origin", post(message("ls"), BEARER, "Origin: null"), (403,)),
    Row("an origin that is no address", post(message("ls"), BEARER, "Origin: http://["), (403,)),
    Row("an origin that ends like ours", post(message("ls"), BEARER, "Origin: http://xlocalhost"), (403,)),
    Row("two origins", post(message("ls"), BEARER, "Origin: http://localhost", EVIL), (400, 403)),
    Row("an object from a page", objects("PUT", "/own/x", EVIL), (403,)),
    Row("a form of a page", post("x=y", BEARER, EVIL, "Content-Type: text/plain"), (403,)),
    Row("two names", post(message("ls"), BEARER, "Host: evil.example.org"), (400,)),
]

PATHS = [
    *(
        Row(f"the path {path[:40]}", request("GET", path, BEARER), (404,))
        for path in (
            "/../../etc/passwd",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/..%2f..%2fetc/passwd",
            "/..%5c..%5cetc/passwd",
            "//evil.example.org/%2e%2e",
            "/static/../../etc/passwd",
            "/favicon.ico/../etc/passwd",
            "/%00",
            "/.git/config",
            "/api/v1/objectsother/secret",
        )
    ),
    *(
        Row(f"a message to {path}", post(message("ls"), BEARER, path=path), (404,))
        for path in ("/api//v1/cmd", "/api/v1/%63md", "/api/v1/x/../cmd", "/api/v1/cmd;x=1", "/API/v1/cmd")
    ),
    *(
        Row(f"the object {path[:30]}", objects("GET", path), (400, 403, 404))
        for path in (
            "/own/%c0%af..%c0%afother/secret",
            "/own/%2e%2e%2fother%2fsecret",
            "/own/./../other/secret",
            "/own/..%00/other/secret",
            "/own/.%2e/other/secret",
            "/own/" + "x" * 5000,
            "/own" + "/x" * 5000,
            "/own/%",
            "/own/%zz",
            "/own/%u002e%u002e/other",
            "/own/a/../../other/secret",
            "/Own/a",
            "/",
        )
    ),
    *(
        Row(f"storing {path[:30]}", objects("PUT", path), (400, 403))
        for path in (
            "/own/",
            "/own//x",
            "/own/.",
            "/own/x/..",
            "/own/" + "%C3%A4" * 600,
            "/own/a%2f%2e%2e",
        )
    ),
]

JOBS = [
    *(
        Row(f"the state of the job {job[:20]!r}", message_bytes("jobStatus", job=job), (400, 404))
        for job in ("../../x", "", "\0", "' OR 1=1 --", "%", "x" * 100_000, "\u202e", "0" * 32)
    ),
    *(
        Row(f"the end of the job {job[:20]!r}", message_bytes("jobCancel", job=job), (400, 404))
        for job in ("../../x", "'; DROP TABLE jobs; --", "0" * 32)
    ),
    *(
        Row(f"the state of a job of the name {jid[:20]!r}", message_bytes("jobStatus", jid=jid), (400, 404))
        for jid in ("' OR 1=1 --", "x" * 100_000)
    ),
    Row("a job by two names", message_bytes("jobStatus", job="0" * 32, jid="x"), (400, 404)),
    Row("a job that is no text", message_bytes("jobStatus", job=["x"]), (400,)),
    *(
        Row(
            f"a job that is waited for for {wait!r}",
            message_bytes("jobStatus", job="x", wait=wait),
            (400, 404),
        )
        for wait in (1e9, -1, "NaN", "inf", "1e999", [])
    ),
    *(
        Row(f"a list of {str(limit)[:20]} jobs", message_bytes("jobList", limit=limit), (400,))
        for limit in (0, -1, 10**12, "9" * 5000)
    ),
    *(
        Row(f"the events of {job[:20]!r}", events(job, BEARER), (400, 404))
        for job in ("0" * 32, "../cmd", "%2e%2e%2fx", "%00", "%ff", "x" * 5000, "1/events/2")
    ),
    Row("the events of no job", request("GET", "/api/v1/jobs//events", BEARER), (400, 404)),
    Row("the events by POST", post(b"", BEARER, path="/api/v1/jobs/1/events"), (405,)),
    Row("a job itself", request("GET", "/api/v1/jobs/1", BEARER), (404,)),
]

ROWS = [*TOKENS, *SETTINGS, *PATHS, *JOBS]
