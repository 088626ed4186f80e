"""The body of a request: its length, chunks, and the parts of a form, however the bytes arrive."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfstorage.errors import MessageError, TooLargeError
from pfstorage.server.http1 import body
from pfstorage.server.http1.body import ChunkedReader, SizedReader, body_text, request_body
from pfstorage.server.http1.head import read_headers
from tests.support.trickle import STEPS, Trickle


def drained(reader: Any, size: int) -> bytes:
    return b"".join(iter(lambda: reader.read(size), b""))


def as_chunks(pieces: list[bytes], extension: bytes = b"") -> bytes:
    return b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces) + b"0\r\n\r\n"


EXTENSIONS = [b"", b";a", b";a=b", b"; a = b ;c", b';a="b c;\\"\xe4"', b';a;b=1;c=\t""']


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1)), STEPS, STEPS, st.sampled_from(EXTENSIONS))
def test_chunks_are_joined_for_each_way_to_split_them(
    pieces: list[bytes], step: int, size: int, extension: bytes
) -> None:
    stream = Trickle(as_chunks(pieces, extension) + b"the next request", step)
    assert drained(ChunkedReader(stream), size) == b"".join(pieces)
    assert io.BytesIO.read(stream) == b"the next request"


@settings(deadline=None)
@given(st.binary())
def test_no_bytes_get_anything_but_a_message_error_from_chunks(data: bytes) -> None:
    with contextlib.suppress(MessageError):
        drained(ChunkedReader(io.BytesIO(data)), 10)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1), min_size=1), st.data())
def test_chunks_that_break_off_anywhere_are_an_error(pieces: list[bytes], data: st.DataObject) -> None:
    whole = as_chunks(pieces)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(MessageError):
        drained(ChunkedReader(io.BytesIO(cut)), 10)


def test_a_trailer_is_skipped() -> None:
    stream = io.BytesIO(b"1\r\na\r\n0\r\nX: y\r\nZ: z\r\n\r\nrest")
    assert drained(ChunkedReader(stream), 10) == b"a"
    assert stream.read() == b"rest"


@settings(deadline=None)
@given(st.binary(), st.binary(), STEPS, STEPS)
def test_a_sized_body_ends_where_its_length_says(content: bytes, rest: bytes, step: int, size: int) -> None:
    stream = Trickle(content + rest, step)
    assert drained(SizedReader(stream, len(content)), size) == content
    assert io.BytesIO.read(stream) == rest


def test_a_sized_body_that_breaks_off_is_an_error_that_counts_the_missing_bytes() -> None:
    with pytest.raises(MessageError, match="3 bytes are missing"):
        drained(SizedReader(io.BytesIO(b"ab"), 5), 10)


SIZE_LINES = {
    "LF alone": b"1\n",
    "CR alone": b"1\r",
    "two CRs": b"1\r\r\n",
    "a CR in the extension": b"1;a\r=b\r\n",
    "a NUL in the extension": b"1;a=\0\r\n",
    "an extension without a name": b"1;\r\n",
    "an extension without a value": b"1;a=\r\n",
    "an open quotation": b'1;a="b\r\n',
    "a control character in a quotation": b'1;a="\x07"\r\n',
    "a DEL after a backslash": b'1;a="\\\x7f"\r\n',
    "a comma": b"1,a\r\n",
    "a blank before": b" 1\r\n",
    "a blank after": b"1 \r\n",
    "a blank before the extension": b"1 ;a\r\n",
    "a blank after the extension": b"1;a \r\n",
    "a sign": b"+1\r\n",
    "a prefix": b"0x1\r\n",
    "an underscore": b"0_1\r\n",
    "another digit": b"\xb2\r\n",
    "an h": b"1h\r\n",
    "nothing": b"\r\n",
    "16 digits": b"0000000000000001\r\n",
}


@pytest.mark.parametrize("line", SIZE_LINES.values(), ids=SIZE_LINES)
def test_a_chunk_begins_with_its_size_and_a_line_end_and_nothing_else(line: bytes) -> None:
    with pytest.raises(MessageError):
        drained(ChunkedReader(io.BytesIO(line + b"x\r\n0\r\n\r\n")), 10)
    last = line.replace(b"1", b"0")
    with pytest.raises(MessageError):
        drained(ChunkedReader(io.BytesIO(last + b"\r\n")), 10)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"", b"\r\r\n", b" \r\n", b"\0\r\n", b"\n\r\n", b"\r\0"])
def test_a_chunk_ends_with_a_line_end_and_nothing_else(end: bytes) -> None:
    with pytest.raises(MessageError):
        drained(ChunkedReader(io.BytesIO(b"1\r\nx" + end + b"0\r\n\r\n")), 10)


@pytest.mark.parametrize(
    "trailer",
    [b"\n", b"\r", b"X: y\n\r\n", b"X: y\r\n\n", b"junk\r\n\r\n", b"X : y\r\n\r\n", b": y\r\n\r\n",
     b"X: y\r\n z\r\n\r\n", b" X: y\r\n\r\n", b"X: \0\r\n\r\n", b"X: a\rb\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
     b"X: y\r\n", b"", b"Content-Length: 1\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n", b"Host: a\r\n\r\n"],
)  # fmt: skip
def test_a_trailer_has_headers_and_a_line_end_and_nothing_else(trailer: bytes) -> None:
    with pytest.raises(MessageError):
        drained(ChunkedReader(io.BytesIO(b"1\r\nx\r\n0\r\n" + trailer)), 10)


def opened(stream: io.BytesIO, *fields: str) -> body.Reader | None:
    return request_body(
        stream, read_headers(io.BytesIO("".join(f"{each}\r\n" for each in (*fields, "")).encode()))
    )


CHUNKED = "Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    "fields",
    [
        [CHUNKED],
        ["Transfer-Encoding:\t Chunked "],
        ["Content-Length: 4"],
        ["Content-Length:  4 "],
        ["Content-Length: 4", "content-length: 4"],
    ],
)
def test_a_body_has_chunks_or_a_length(fields: list[str]) -> None:
    is_chunked = "hunked" in fields[0]
    found = opened(io.BytesIO(b"4\r\nabcd\r\n0\r\n\r\n" if is_chunked else b"abcd"), *fields)
    assert found
    assert body_text(found) == "abcd"


@pytest.mark.parametrize(
    "fields",
    [
        [CHUNKED, "Content-Length: 4"],
        ["Content-Length: 4", CHUNKED],
        [CHUNKED, CHUNKED],
        ["Transfer-Encoding: gzip"],
        [CHUNKED, "Transfer-Encoding: gzip"],
        ["Transfer-Encoding: gzip, chunked"],
        ["Transfer-Encoding: chunked,"],
        ["Transfer-Encoding: chunked;q=1"],
        ["Transfer-Encoding: x-chunked"],
        ["Transfer-Encoding:"],
        ["Content-Length: 4", "Content-Length: 5"],
        ["Content-Length: 4, 4"],
        ["Content-Length: x"],
        ["Content-Length: 0x4"],
        ["Content-Length: 4_0"],
        ["Content-Length: 4 0"],
        ["Content-Length:"],
    ],
)
def test_a_length_in_doubt_is_refused(fields: list[str]) -> None:
    with pytest.raises(MessageError):
        opened(io.BytesIO(), *fields)


def test_a_request_that_announces_no_body_has_none() -> None:
    assert opened(io.BytesIO(b"{}"), "X: y") is None


def test_a_message_has_at_most_a_mebibyte() -> None:
    full = b"a" * body.MAX_MESSAGE
    assert len(body_text(SizedReader(io.BytesIO(full), len(full)))) == len(full)
    with pytest.raises(TooLargeError):
        body_text(ChunkedReader(io.BytesIO(as_chunks([full, b"a"]))))


def test_a_length_over_that_is_refused_before_anything_is_read() -> None:
    stream = io.BytesIO(b"a" * 10)
    body.check_length(SizedReader(stream, 10), 10)
    body.check_length(ChunkedReader(stream), 0)
    with pytest.raises(TooLargeError):
        body.check_length(SizedReader(stream, 11), 10)
    assert stream.tell() == 0


def test_a_byte_order_mark_is_no_part_of_a_message() -> None:
    data = "\ufeff{}".encode()
    assert body_text(SizedReader(io.BytesIO(data), len(data))) == "{}"


@pytest.mark.parametrize(
    ("limit", "remedy"), [(body.MAX_MESSAGE, "send a shorter message"), (5, "the server's --maxUpload")]
)
def test_a_stated_length_that_is_too_large_names_the_limit(limit: int, remedy: str) -> None:
    with pytest.raises(TooLargeError, match=f"has {limit + 1} bytes, and may have at most {limit}: {remedy}"):
        body.check_length(SizedReader(io.BytesIO(), limit + 1), limit)
    body.check_length(SizedReader(io.BytesIO(), limit), limit)
