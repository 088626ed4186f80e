"""The body of a request: its length, chunks, and the parts of a form, however the bytes arrive."""

from __future__ import annotations

import contextlib
import errno
import io
import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfstorage.errors import FullDiskError, LocalFileError, MessageError, NoLengthError, TooLargeError
from pfstorage.serving import body
from pfstorage.serving.body import (
    ChunkedReader,
    Form,
    SizedReader,
    boundary_of,
    open_body,
    read_form,
    read_text,
)
from tests.exchange import multipart


class Trickle(io.BytesIO):
    """A stream that gives no more than *step* bytes at once, as a connection may."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__(data)
        self._step = step

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, self._step))


def drained(reader: Any, size: int) -> bytes:
    return b"".join(iter(lambda: reader.read(size), b""))


def as_chunks(pieces: list[bytes], extension: bytes = b"") -> bytes:
    return b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces) + b"0\r\n\r\n"


STEPS = st.integers(1, 70)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1)), STEPS, STEPS, st.sampled_from([b"", b";a=b", b" ; a", b";\r"]))
def test_chunks_are_put_together_however_they_are_split(
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


def test_a_sized_body_that_breaks_off_is_an_error_that_counts_what_is_missing() -> None:
    with pytest.raises(MessageError, match="3 bytes are missing"):
        drained(SizedReader(io.BytesIO(b"ab"), 5), 10)


@pytest.mark.parametrize(
    ("encodings", "lengths"),
    [(["chunked"], []), ([" Chunked "], []), ([], ["4"]), ([], [" 4 "]), ([], ["4", "4"])],
)
def test_a_body_has_chunks_or_a_length(encodings: list[str], lengths: list[str]) -> None:
    stream = io.BytesIO(b"4\r\nabcd\r\n0\r\n\r\n" if encodings else b"abcd")
    assert read_text(open_body(stream, encodings, lengths)) == "abcd"


@pytest.mark.parametrize(
    ("encodings", "lengths"),
    [
        (["chunked"], ["4"]),
        (["gzip"], []),
        (["chunked", "gzip"], []),
        ([""], []),
        ([], ["4", "5"]),
        ([], ["x"]),
    ],
)
def test_a_length_in_doubt_is_refused(encodings: list[str], lengths: list[str]) -> None:
    with pytest.raises(MessageError):
        open_body(io.BytesIO(), encodings, lengths)


def test_a_body_without_a_length_is_refused() -> None:
    with pytest.raises(NoLengthError):
        open_body(io.BytesIO(b"{}"), [], [])


def test_a_message_has_at_most_a_mebibyte() -> None:
    full = b"a" * body.MAX_MESSAGE
    assert len(read_text(SizedReader(io.BytesIO(full), len(full)))) == len(full)
    with pytest.raises(TooLargeError):
        read_text(ChunkedReader(io.BytesIO(as_chunks([full, b"a"]))))


def test_a_length_over_that_is_refused_before_anything_is_read() -> None:
    stream = io.BytesIO(b"a" * 10)
    body.require_length(SizedReader(stream, 10), 10)
    body.require_length(ChunkedReader(stream), 0)
    with pytest.raises(TooLargeError):
        body.require_length(SizedReader(stream, 11), 10)
    assert stream.tell() == 0


def test_a_byte_order_mark_is_no_part_of_a_message() -> None:
    data = "\ufeff{}".encode()
    assert read_text(SizedReader(io.BytesIO(data), len(data))) == "{}"


def form_of(data: bytes, step: int = 1 << 20, boundary: str = "limit") -> Form:
    return read_form(SizedReader(Trickle(data, step), len(data)), boundary)


@settings(deadline=None)
@given(st.binary(), st.text(), STEPS)
def test_the_parts_of_a_form_are_the_same_however_they_arrive(content: bytes, text: str, step: int) -> None:
    text = text.encode(errors="replace").decode()
    form = form_of(multipart(("d_msg", text.encode()), ("local", content), ("filename", b"a")), step)
    assert form.local
    with form.local.file as file:
        assert (form.fields, file.read(), form.local.size) == (
            {"d_msg": text, "filename": "a"},
            content,
            len(content),
        )


@pytest.mark.parametrize(
    "content", [b"", b"\r\n", b"--limit", b"\r\n--limi", b"\r\n--limits", b"\r", b"\n--limit\r\n"]
)
def test_a_file_may_hold_what_looks_like_a_boundary(content: bytes) -> None:
    data = multipart(("local", content + b"x" + content))
    if b"\r\n--limit" in content:
        with pytest.raises(MessageError):
            form_of(data)
        return
    form = form_of(data, 1)
    assert form.local
    with form.local.file as file:
        assert file.read() == content + b"x" + content


@settings(deadline=None)
@given(st.binary())
def test_no_bytes_get_anything_but_a_message_error_from_a_form(data: bytes) -> None:
    for content in (data, b"--limit\r\n" + data, multipart(("d_msg", data), ("local", data))[:-3]):
        with contextlib.suppress(MessageError):
            form_of(content).close()


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("", None),
        ("application/json", None),
        ("application/x-www-form-urlencoded; boundary=x", None),
        ("multipart/mixed; boundary=x", None),
        ("multipart/form-data", ""),
        ("multipart/form-data; boundary=x", "x"),
        ('Multipart/Form-Data; charset=utf-8; BOUNDARY="a b"', "a b"),
    ],
)
def test_the_boundary_of_a_form_is_in_its_content_type(content_type: str, boundary: str | None) -> None:
    assert boundary_of(content_type) == boundary


def test_no_temporary_file_is_left_open_when_a_form_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    original = tempfile.TemporaryFile

    def remember(*args: Any, **kwargs: Any) -> Any:
        opened.append(original(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", remember)
    with pytest.raises(MessageError):
        form_of(multipart(("local", b"content"))[:-5])
    assert [file.closed for file in opened] == [True]


class FullDisk(io.BytesIO):
    """A file on a disk without room."""

    def write(self, data: Any, /) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_no_room_for_an_upload_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: FullDisk())
    with pytest.raises(FullDiskError, match="No space left"):
        form_of(multipart(("local", b"content")))


def test_no_place_for_an_upload_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(LocalFileError, match="the temporary copy of the upload"):
        form_of(multipart(("local", b"content")))
