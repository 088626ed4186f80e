"""Messages that are small and ask for much."""

from __future__ import annotations

from tests.attacks.row import BEARER, READER, Row, told
from tests.exchange import MULTIPART, message, multipart, post

STARS = "*a" * 200 + "b"


FIELDS = [
    Row("many fields of one text", told("ls", token=READER, path="own/", retSpec="name," * 80_000), (400,)),
    Row(
        "fields that are none",
        told("ls", token=READER, path="own/", retSpec=[str(n) for n in range(50_000)]),
        (400,),
    ),
]

GLOBS = [
    *(
        Row(
            f"{name} for objPull to {word}",
            told("objPull", fromLocation="own", mapLocationOver="data", **{word: globs}),
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
            told(action, fromLocation="own", mapLocationOver="data", include=[STARS], dryRun=True),
            (200, 400),
        )
        for action in ("objPull", "objVerify")
    ),
    Row(
        "a glob of many stars for a push",
        told("objPut", putSpec="data", inLocation="own/x", include=[STARS], dryRun=True),
        (200, 400),
    ),
    Row(
        "a glob of many brackets",
        told(
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
        told("objPut", fileList=["data/a"] * 20_000, inLocation="own/x", dryRun=True),
        (200, 400),
    ),
    Row(
        "a job of a large message",
        told("objPull", fromLocation="own", fileList=["own/a"] * 80_000, **{"async": True, "dryRun": True}),
        (202, 400, 413, 503),
        may_succeed=True,
    ),
]

ROWS = [*FIELDS, *GLOBS, *LISTS]
