"""Lines, headers, lengths and chunks that another reader could take for another request."""

from __future__ import annotations

from tests.support.attacks.row import BEARER, CMD, Row
from tests.support.exchange import post, request

SMUGGLED = f"GET /api/v1/objects/own/a HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\n\r\n".encode()
"""A request inside another one: the server must not run it, since it is the body of the other, or refused."""

HELLO = b'{"action":"hello","meta":{"askAbout":"timestamp"}}'
CHUNKED = "Transfer-Encoding: chunked"


def raw(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([line, b"Host: localhost", BEARER.encode(), *headers]) + b"\r\n\r\n" + body


def chunks(body: bytes, *headers: str) -> bytes:
    return request("POST", CMD, BEARER, CHUNKED, *headers, body=body)


LINES = [
    Row(f"the request line {line[:40]!r}", raw(line) + SMUGGLED, statuses)
    for line, statuses in (
        (b"GET  /healthz HTTP/1.1", (400,)),
        (b"GET /healthz HTTP/1.1 x", (400,)),
        (b"GET\t/healthz\tHTTP/1.1", (400,)),
        (b" GET /healthz HTTP/1.1", (400,)),
        (b"GET /healthz HTTP/1.1\r", (400,)),
        (b"GET /healthz http/1.1", (400,)),
        (b"GET /healthz HTTP/11", (400,)),
        (b"GET /healthz HTTP/1.10", (400,)),
        (b"GET /healthz HTTP/0.9", (505,)),
        (b"GET /healthz HTTP/9.9", (505,)),
        (b"PRI * HTTP/2.0", (505,)),
        (b"GET /healthz", (400,)),
        (b"GET /heal\0thz HTTP/1.1", (400,)),
        (b"G\xcbT /healthz HTTP/1.1", (400,)),
        (b"GET /\x7f HTTP/1.1", (400,)),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400,)),
        (b"GET /healthz#x HTTP/1.1", (400,)),
        (b"GET http://[ HTTP/1.1", (400,)),
        (b"GET /\xff\xfe HTTP/1.1", (400,)),
    )
]

METHODS = [
    *(
        Row(f"the method {method}", request(method, target, BEARER), statuses)
        for method, target, statuses in (
            ("DELETE", "/api/v1/objects/own/a", (405,)),
            ("PATCH", "/api/v1/objects/own/a", (405,)),
            ("TRACE", CMD, (405,)),
            ("CONNECT", "evil.example.org:443", (404, 405)),
            ("PROPFIND", "/api/v1/objects", (405,)),
            ("get", CMD, (405,)),
            ("M" * 5000, CMD, (405,)),
            ("OPTIONS", "*", (404, 405)),
        )
    ),
    Row("a body where nothing is sent", post(HELLO, BEARER, path="/healthz"), (405,)),
    Row("a message by PUT", request("PUT", CMD, BEARER, "Content-Length: 2", body=b"{}"), (405,)),
    Row("an object by POST", post(b"x", BEARER, path="/api/v1/objects/own/x"), (405,)),
    Row(
        "what a page of elsewhere may do",
        request("OPTIONS", CMD, "Origin: https://evil.example.org", "Access-Control-Request-Method: POST"),
        (403, 405),
    ),
    Row(
        "what comes after an upgrade",
        request("GET", "/healthz", "Connection: Upgrade, close", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
        + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        (200,),
        may_succeed=True,
    ),
    Row(
        "a web socket",
        request("GET", CMD, BEARER, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
    ),
]

HEADERS = [
    *(
        Row(f"the header {header[:40]!r}", raw(b"GET /healthz HTTP/1.1", header) + SMUGGLED, (400,))
        for header in (
            b"X : y",
            b" X: y",
            b": y",
            b"X",
            b"X\0: y",
            b"X: \0",
            b"X: a\rb",
            b"X: a\nY: b",
            b"X\xe9: y",
            b"X: a\r\n Y: folded",
            b"X(y): z",
            b"Content-Length : 0",
            b"Content-Length: 0\nTransfer-Encoding: chunked",
        )
    ),
    *(
        Row(f"the host {host[:30]!r}", request("GET", CMD, BEARER).replace(b"localhost", host), (400, 403))
        for host in (
            b"",
            b"evil.example.org",
            b"localhost@evil.example.org",
            b"localhost.evil.example.org",
            b"localhost/x",
            b"127.0.0.1.evil.example.org",
            b"[::1",
            b"localhost\x85",
            b"localhost, evil.example.org",
        )
    ),
    Row("no host", f"GET {CMD}?action=hello HTTP/1.1\r\n{BEARER}\r\n\r\n".encode(), (400,)),
    Row("another host by the target", request("GET", f"http://evil.example.org{CMD}", BEARER), (403,)),
    Row(
        "a header with a line break",
        request("GET", "/healthz", "X-Request-Id: a\r\n\r\nGET /x"),
        (200,),
        may_succeed=True,
        answers=2,
    ),
    Row(
        "an id with what is not printed",
        request("GET", "/nowhere", "X-Request-Id: a\x85\xa0b\tc", "Connection: close"),
        (404,),
    ),
    Row("many headers", request("POST", CMD, BEARER, *[f"X-{n}: y" for n in range(200)]), (411, 431)),
    Row("a header without end", request("POST", CMD, BEARER, "X-Y: " + "z" * 100_000), (431,)),
    Row("a path without end", request("GET", "/" + "z" * 100_000, BEARER), (414,)),
    Row("long headers", request("GET", CMD, BEARER, *[f"X-{n}: {'y' * 60_000}" for n in range(9)]), (431,)),
    Row("a header of blanks", request("GET", CMD, BEARER, f"X: {' ' * 60_000}\0"), (400,)),
    Row("many empty lines", b"\r\n" * 50 + request("GET", "/healthz"), (), answers=0),
    Row("an expectation that is none", post(HELLO, BEARER, "Expect: 200-ok"), (200, 417), may_succeed=True),
]

LENGTHS = [
    *(
        Row(
            f"the length {value[:30]!r}",
            raw(b"POST /api/v1/cmd HTTP/1.1", b"Content-Length: " + value),
            (400,),
        )
        for value in (
            b"-1",
            b"+2",
            b"ten",
            b"0x2",
            b"2.0",
            b"1_0",
            b"2, 3",
            b"",
            b"2;x",
            b"\xb2",
            b"\x0b2",
            b"\x852",
            b"9" * 5000,
        )
    ),
    Row("a gigantic length", request("POST", CMD, BEARER, f"Content-Length: {10**18}"), (400, 413)),
    Row(
        "two lengths",
        request("POST", CMD, BEARER, "Content-Length: 1", "Content-Length: 2", body=b"{}"),
        (400,),
    ),
    Row(
        "a length and chunks",
        request("POST", CMD, BEARER, "Content-Length: 5", CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
        (400,),
    ),
    Row(
        "chunks and a length, where nothing is read",
        request("GET", "/healthz", CHUNKED, "Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED),
        (400,),
    ),
    Row("less than the length says", request("POST", CMD, BEARER, "Content-Length: 99", body=b"{}"), (400,)),
    Row("more than the length says", post(b"{}", BEARER) + b"}{", (400,), answers=2),
    Row(
        "an object of a gigantic length",
        request("PUT", "/api/v1/objects/own/x", BEARER, f"Content-Length: {10**15 - 1}", body=b"x"),
        (400, 413),
    ),
    Row("an object without a length", request("PUT", "/api/v1/objects/own/x", BEARER), (411,)),
    Row(
        "an object that is too large to wait for",
        request(
            "PUT", "/api/v1/objects/own/x", BEARER, "Expect: 100-continue", f"Content-Length: {10**15 - 1}"
        ),
        (413,),
    ),
    Row(
        "an object that breaks off",
        request("PUT", "/api/v1/objects/own/x", BEARER, "Content-Length: 9", body=b"x"),
        (400,),
    ),
]

CODINGS = [
    *(
        Row(
            f"the encoding {value!r}",
            request("POST", CMD, BEARER, f"Transfer-Encoding: {value}", body=b"0\r\n\r\n" + SMUGGLED),
            (400,),
        )
        for value in (
            "gzip",
            "identity",
            "xchunked",
            "chunked, chunked",
            "chunked, gzip",
            "gzip, chunked",
            "chunked;x=y",
            '"chunked"',
            "\x0bchunked",
            "\x85chunked",
            "",
        )
    ),
    Row("two encodings", chunks(b"0\r\n\r\n" + SMUGGLED, "Transfer-Encoding: identity"), (400,)),
    Row(
        "another name of an encoding",
        request("POST", CMD, BEARER, "Transfer_Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
        (411,),
    ),
    Row(
        "chunks by HTTP/1.0",
        request("POST", CMD, BEARER, CHUNKED, body=b"2\r\n{}\r\n0\r\n\r\n", version="HTTP/1.0"),
        (400,),
    ),
    *(
        Row(f"the chunk {chunk[:30]!r}", chunks(chunk + b"\r\n0\r\n\r\n" + SMUGGLED), (400,))
        for chunk in (
            b"fffffffffffffffff\r\nx",
            b"0x2\r\n{}",
            b"+2\r\n{}",
            b"-2\r\n{}",
            b"2_0\r\n{}",
            b"2 ;x\r\n{}",
            b"2 \r\n{}",
            b" 2\r\n{}",
            b"\x0b2\r\n{}",
            b"2\n{}",
            b"2\r\n{}}",
            b"2;\x00\r\n{}",
            b"2;a\nb\r\n{}",
            b"\xb2\r\n{}",
            b"\r\n{}",
            b"2;" + b"x" * 100_000 + b"\r\n{}",
        )
    ),
    *(
        Row(
            f"the trailer {trailer!r}", chunks(b"2\r\n{}\r\n0\r\n" + trailer + b"\r\n\r\n" + SMUGGLED), (400,)
        )
        for trailer in (
            b"Content-Length: 5",
            b"Transfer-Encoding: chunked",
            b"Host: evil.example.org",
            b"X : y",
            b"X: y\nZ: a",
            b"X: \0",
        )
    ),
    Row("trailers without end", chunks(b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 50_000 + b"\r\n"), (400, 431)),
    Row(
        "a message in bytes that come one by one",
        chunks(b"".join(b"1\r\n%c\r\n" % byte for byte in HELLO) + b"0\r\n\r\n"),
        (200,),
        may_succeed=True,
    ),
]

ROWS = [*LINES, *METHODS, *HEADERS, *LENGTHS, *CODINGS]
