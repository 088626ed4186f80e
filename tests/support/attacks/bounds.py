"""Small messages that ask for much, and settings that no token may change."""

from __future__ import annotations

import json
from typing import Any

from tests.support.attacks.row import ADMIN, BEARER, READER, Row, message_bytes
from tests.support.exchange import MULTIPART, message, multipart, post

STARS = "*a" * 200 + "b"
MEGABYTE = 1_000_000


def nested(depth: int, size: int) -> bytes:
    """Return lists in lists, *depth* deep, of about *size* bytes."""
    lists = b",".join([b"[" * depth + b"]" * depth] * (size // (2 * depth + 1)))
    return b'{"action":"hello","meta":{"askAbout":"echoBack","echoBack":[%b]}}' % lists


def ctl(**meta: Any) -> bytes:
    return message_bytes("internalctl", token=ADMIN, **meta)


FIELDS = [
    *(
        Row(
            f"{count} times the field {name}",
            message_bytes("ls", token=READER, path="own/", retSpec=[name] * count),
            (400,),
        )
        for name, count in (("name", 80_000), ("bytes", 1000))
    ),
    Row(
        "many fields of one text",
        message_bytes("ls", token=READER, path="own/", retSpec="name," * 80_000),
        (400,),
    ),
    Row(
        "fields that are none",
        message_bytes("ls", token=READER, path="own/", retSpec=[str(n) for n in range(50_000)]),
        (400,),
    ),
]

ECHOES = [
    Row(
        f"an echo of {size} bytes of lists {depth} deep",
        post(nested(depth, size), BEARER),
        (200, 400, 413),
        may_succeed=True,
        most=4 * size + 10_000,
    )
    for depth, size in ((28, 900_000), (28, 100_000), (5, 900_000), (28, 10_000))
] + [
    Row(
        f"an echo of {name}",
        message_bytes("hello", askAbout="echoBack", echoBack=echo),
        (200, 400, 413),
        may_succeed=True,
        most=4 * 900_000,
    )
    for name, echo in (
        ("what is not printed", "\x01" * 150_000),
        ("emoji", "\U0001f600" * 75_000),
        ("empty objects", [{}] * 200_000),
        ("numbers", list(range(120_000))),
        ("keys", {str(n): [] for n in range(50_000)}),
    )
]

GLOBS = [
    *(
        Row(
            f"{name} for objPull to {word}",
            message_bytes("objPull", fromLocation="own", mapLocationOver="data", **{word: globs}),
            (400,),
        )
        for word in ("include", "exclude")
        for name, globs in (
            ("a glob of a megabyte", "*a" * 400_000),
            ("many globs", ["*"] * 100_000),
            ("many other globs", [f"*{n}" for n in range(50_000)]),
        )
    ),
    *(
        Row(
            f"a glob of many stars for {action}",
            message_bytes(action, fromLocation="own", mapLocationOver="data", include=[STARS], dryRun=True),
            (200, 400),
        )
        for action in ("objPull", "objVerify")
    ),
    Row(
        "a glob of many stars for a push",
        message_bytes("objPut", putSpec="data", inLocation="own/x", include=[STARS], dryRun=True),
        (200, 400),
    ),
    Row(
        "a glob of many brackets",
        message_bytes(
            "objPull", fromLocation="own", mapLocationOver="data", include=["[a-z]*" * 100 + "["], dryRun=True
        ),
        (200, 400),
    ),
    Row(
        "many globs in a form",
        post(
            multipart(("d_msg", message("objPull", fromLocation="own", include=["*"] * 50_000).encode())),
            BEARER,
            MULTIPART,
        ),
        (400,),
    ),
]

LISTS = [
    Row(
        "many files",
        message_bytes("objPut", fileList=["data/a"] * 20_000, inLocation="own/x", dryRun=True),
        (200, 400),
        may_succeed=True,
    ),
    Row(
        "a job of a large message",
        message_bytes(
            "objPull", fromLocation="own", fileList=["own/a"] * 80_000, **{"async": True, "dryRun": True}
        ),
        (202, 400, 413, 503),
        may_succeed=True,
    ),
]

LOCATIONS = [
    *(
        Row(
            f"{count} files below a long location for {action} with {len(before)} parts",
            message_bytes(action, fileList=names, **before),
            (400,),
            most=10_000,
        )
        for count in (1000, 60_000)
        for names in ([f"f{n}" for n in range(count)],)
        for action, before in (
            ("objPut", {"inLocation": "own/" + "d/" * 7000}),
            ("objPut", {"prependBucketPath": "own/" + "d/" * 7000, "inLocation": "d/" * 7000}),
            ("objPull", {"prependBucketPath": "own/" + "d/" * 7000}),
            ("objVerify", {"prependBucketPath": "own/" + "d/" * 7000}),
        )
    ),
    Row(
        "many files pulled to a long path",
        message_bytes("objPull", fileList=["own/a"] * 90_000, mapLocationOver="d/" * 1800),
        (400,),
    ),
    Row(
        "a pull to a deep path",
        message_bytes("objPull", fileList=[{"from": "own/a", "to": "d/" * 8000 + "a"}]),
        (400,),
    ),
    Row("a push of a deep path", message_bytes("objPut", putSpec="d/" * 8000, inLocation="own"), (400,)),
]

TEXTS = [
    Row(
        f"a text without an end, of many {rest!r}, behind many brackets",
        post(b"[" * 120_000 + b'"' + rest * (800_000 // len(rest)), BEARER),
        (400,),
    )
    for rest in (b'\\"', b'"', b"\\", b'\\"[', b'" "')
] + [
    Row("a deep form", post("&".join(["a" + "[]" * 31 + "=1"] * 9000).encode(), BEARER), (400,)),
    Row(
        "a number without an end",
        post(b'{"action":"ls","meta":{"limit":' + b"9" * 900_000 + b"}}", BEARER),
        (400,),
    ),
    *(
        Row(f"many digits for {var}", ctl(var=f"/this/{var}", set=digits), (400,))
        for var, digits in (
            ("workers", "1" * 5000),
            ("segmentSize", "9" * 5000),
            ("bwLimit", "9" * 400 + "T"),
        )
    ),
]

STORE = [
    *(
        Row(f"the setting {var} for {str(value)[:30]!r}", ctl(var=var, set=value), (400, 403))
        for var, value in (
            ("/this/type", "memory"),
            ("/this", {"type": "memory"}),
            ("/filesystem/store_base", "/etc"),
            ("/filesystem", {"store_base": "/etc"}),
            ("/", {"this": {"type": "filesystem"}, "filesystem": {"store_base": "/etc"}}),
            ("/swift/auth_url", "http://127.0.0.1:9/auth/v1.0"),
            ("/swift", {"auth_url": "http://127.0.0.1:9/auth/v1.0"}),
            ("/swift/key", "x"),
            ("/swift/username", "x"),
            ("/swift/cacert", "/etc/passwd"),
            ("/swift/os_options", {"auth_token": "x"}),
            ("/this/httpProxy", "http://127.0.0.1:9"),
            ("/this/insecure", True),
            ("/this/debugToDir", "/tmp"),
            ("/this/ipSelf", "0.0.0.0"),
            ("/this/portSelf", 1),
            ("//filesystem//store_base", "/etc"),
            ("/filesystem/./store_base", "/etc"),
            ("filesystem/store_base", "/etc"),
            ("/this/../filesystem/store_base", "/etc"),
        )
    ),
    *(
        Row(
            f"the replacement of {value!r} by {new!r}",
            ctl(var=value, valueReplace=new),
            (200,),
            text='"hits": 0',  # also for the value itself: a hit would reveal whether a guess is right
            may_succeed=True,
        )
        for value, new in (
            ("testing", "x"),
            ("filesystem", "memory"),
            ("http://127.0.0.1:8080/auth/v1.0", "http://127.0.0.1:9"),
            ("chris:chris1234", "x"),
            ("swift", "filesystem"),
        )
    ),
    Row("a setting of many parts", ctl(var="/a" * 200_000, set="x"), (400, 403)),
    Row("a setting of many parts to read", ctl(var="/a" * 200_000, get="value"), (400, 403, 404)),
    Row("a deep setting", ctl(var="/x", set=json.loads("[" * 25 + "]" * 25)), (400, 403)),
    Row("a setting of a megabyte", ctl(var="/x", set="y" * 900_000), (400, 403)),
    Row("settings without end", ctl(var="/" + "x" * 900_000, set="y"), (400, 403)),
    Row(
        "a quit from a page",
        post(
            json.dumps({"meta": {"ctl": {"serverCmd": "quit"}}}),
            f"Authorization: Bearer {ADMIN}",
            "Origin: https://evil.example.org",
        ),
        (403,),
    ),
    Row(
        "a quit as a form",
        post(
            multipart(("d_msg", json.dumps({"meta": {"ctl": {"serverCmd": "quit"}}}).encode())),
            f"Authorization: Bearer {ADMIN}",
            MULTIPART,
        ),
        (400, 403),
    ),
]

ROWS = [*FIELDS, *ECHOES, *GLOBS, *LISTS, *LOCATIONS, *TEXTS, *STORE]
