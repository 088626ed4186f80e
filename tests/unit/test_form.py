"""A multipart form: its parts, in portions of any size, and malformed forms."""

from __future__ import annotations

import contextlib
import errno
import io
import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfstorage.errors import FullDiskError, LocalFileError, MessageError
from pfstorage.server.endpoints.form import Form, boundary_of, read_form
from pfstorage.server.http1.body import SizedReader
from tests.support.exchange import multipart
from tests.support.trickle import STEPS, Trickle


def form_of(data: bytes, step: int = 1 << 20, boundary: str = "limit") -> Form:
    return read_form(SizedReader(Trickle(data, step), len(data)), boundary)


@settings(deadline=None)
@given(st.binary(), st.text(), STEPS)
def test_the_parts_of_a_form_are_the_same_in_portions_of_any_size(
    content: bytes, text: str, step: int
) -> None:
    text = text.encode(errors="replace").decode()
    form = form_of(multipart(("d_msg", text.encode()), ("local", content), ("filename", b"a")), step)
    assert form.file
    with form.file.file as file:
        assert (form.fields, file.read(), form.file.size) == (
            {"d_msg": text, "filename": "a"},
            content,
            len(content),
        )


@pytest.mark.parametrize(
    "content", [b"", b"\r\n", b"--limit", b"\r\n--limi", b"\r\n--limits", b"\r", b"\n--limit\r\n"]
)
def test_a_file_may_hold_bytes_like_a_boundary(content: bytes) -> None:
    data = multipart(("local", content + b"x" + content))
    if b"\r\n--limit" in content:
        with pytest.raises(MessageError):
            form_of(data)
        return
    form = form_of(data, 1)
    assert form.file
    with form.file.file as file:
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


def test_missing_space_for_an_upload_is_reported_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: FullDisk())
    with pytest.raises(FullDiskError, match=r"the upload \(TMPDIR\)': No space left"):
        form_of(multipart(("local", b"content")))


def test_a_missing_directory_for_uploads_is_reported_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(LocalFileError, match="the temporary copy of the upload"):
        form_of(multipart(("local", b"content")))


def parts_of(form: Form) -> tuple[dict[str, str], bytes | None]:
    with contextlib.closing(form):
        return form.fields, form.file.file.read() if form.file else None


BLANKS = st.text(" \t", max_size=5).map(str.encode)


@settings(deadline=None)
@given(st.binary(), st.lists(BLANKS, min_size=3, max_size=3), STEPS, st.booleans(), st.booleans())
def test_blanks_may_follow_a_boundary(
    content: bytes, blanks: list[bytes], step: int, has_preamble: bool, has_epilogue: bool
) -> None:
    head = b'Content-Disposition: form-data; name="%s"\r\n\r\n'
    data = b"\r\n".join(
        [
            *([b"a preamble", b"--other"] if has_preamble else []),
            b"--limit" + blanks[0],
            head % b"d_msg" + b"{}",
            b"--limit" + blanks[1],
            head % b"local" + content,
            b"--limit--" + blanks[2],
            *([b"an epilogue", b"--limit--"] if has_epilogue else []),
        ]
    )
    assert parts_of(form_of(data, step)) == ({"d_msg": "{}"}, content)


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "content",
    [b"\r\n--limit ", b"\r\n--limi \r\n", b"\r\n--limit--x\r\n", b"\r\n--limit-- x", b"\r\n--limit--\r\r\n",
     b"--limit \r\n", b"\n--limit \r\n", b" \t", b"\r\n--limit\t", b"\r\r\n--limi", b"\r\n-- limit\r\n"],
)  # fmt: skip
def test_the_blanks_of_a_file_stay_in_it(content: bytes, step: int) -> None:
    """Unless they make a line of their own of a boundary, they belong to the file, or the form is refused."""
    data = multipart(("local", b"x" + content + b"x"))
    try:
        assert parts_of(form_of(data, step))[1] == b"x" + content + b"x"
    except MessageError:
        assert b"\r\n--limit" in content


@pytest.mark.parametrize("step", [1, 1 << 20])
def test_a_boundary_has_no_endless_blanks(step: int) -> None:
    data = multipart(("d_msg", b"{}"))
    with pytest.raises(MessageError):
        form_of(data.replace(b"--limit\r\n", b"--limit" + b" " * 200_000 + b"x\r\n"), step)


@pytest.mark.parametrize(
    "line", [b"--limitx", b"--limit-", b"--limit- -", b"--limit x", b"--limit \n", b"--limit\n", b"--limit\0"]
)
def test_bytes_that_are_no_boundary_divide_nothing(line: bytes) -> None:
    data = multipart(("d_msg", b"{}"), ("local", b"a")).replace(b"\r\n--limit\r\n", b"\r\n" + line + b"\r\n")
    with pytest.raises(MessageError):
        form_of(data)


def encoded(encoding: str, name: str = "local", content: bytes = b"eA==") -> bytes:
    data = multipart(("d_msg", b"{}"), (name, content))
    return data.replace(b'"%s"\r\n' % name.encode(), b'"%s"\r\n%s\r\n' % (name.encode(), encoding.encode()))


@pytest.mark.parametrize("name", ["local", "filename"])
@pytest.mark.parametrize(
    "encoding", ["base64", "Quoted-Printable", " BASE64 ", "x-uuencode", "base64, 8bit", ""]
)
@pytest.mark.parametrize("header", ["Content-Transfer-Encoding", "content-transfer-encoding"])
def test_a_part_in_another_encoding_is_refused_and_not_decoded(name: str, encoding: str, header: str) -> None:
    with pytest.raises(MessageError, match="encoding"):
        form_of(encoded(f"{header}: {encoding}", name))


@pytest.mark.parametrize(
    "second",
    [
        "Content-Transfer-Encoding: binary\r\nContent-Transfer-Encoding: base64",
        "Content-Transfer-Encoding: base64\r\ncontent-transfer-encoding: binary",
        'Content-Disposition: form-data; name="local"',
        "Content-Type: text/plain\r\nContent-Type: multipart/mixed",
    ],
)
def test_a_part_says_nothing_twice(second: str) -> None:
    with pytest.raises(MessageError, match="twice"):
        form_of(encoded(second))


@pytest.mark.parametrize("encoding", ["gzip", "deflate, gzip", "aws-chunked"])
def test_a_part_that_is_packed_is_refused(encoding: str) -> None:
    with pytest.raises(MessageError, match="encoding"):
        form_of(encoded(f"Content-Encoding: {encoding}"))
    assert parts_of(form_of(encoded("Content-Encoding: identity")))[1] == b"eA=="


@pytest.mark.parametrize("encoding", ["7bit", "8bit", "Binary", " binary\t"])
def test_a_part_may_name_an_identity_encoding(encoding: str) -> None:
    assert parts_of(form_of(encoded(f"Content-Transfer-Encoding: {encoding}")))[1] == b"eA=="


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf8"'])
def test_a_field_may_say_that_it_is_utf_8(charset: str) -> None:
    data = encoded(f"Content-Type: text/plain; charset={charset}", "filename", "ä".encode())
    assert form_of(data).fields["filename"] == "ä"


def test_a_field_of_an_old_client_is_read_as_it_says() -> None:
    data = encoded("Content-Type: text/plain; charset=ISO-8859-1", "filename", b"\xc3\xa4")
    assert form_of(data).fields["filename"] == "\xc3\xa4"


@pytest.mark.parametrize("charset", ["utf-16", "windows-1252", "rot13", "x", '"; a=b"'])
def test_a_field_in_another_charset_is_refused_and_not_guessed(charset: str) -> None:
    with pytest.raises(MessageError, match="charset"):
        form_of(encoded(f"Content-Type: text/plain; charset={charset}", "filename", b"a"))


def test_the_charset_of_a_file_is_its_own() -> None:
    data = encoded("Content-Type: text/plain; charset=utf-16", content=b"\xff\xfea\0")
    assert parts_of(form_of(data))[1] == b"\xff\xfea\0"


def test_files_in_a_part_are_no_file() -> None:
    data = encoded(
        "Content-Type: multipart/mixed; boundary=inner", content=multipart(("a", b"x"), boundary="inner")
    )
    with pytest.raises(MessageError, match="of its own"):
        form_of(data)


def test_a_file_may_contain_another_form() -> None:
    inner = multipart(("a", b"x"), boundary="limi")
    assert parts_of(form_of(encoded("Content-Type: multipart/related", content=inner)))[1] == inner


@pytest.mark.parametrize(
    "disposition",
    [
        'form-data; name="local"; filename="a.dcm"; filename*=UTF-8\'\'%e2%82%ac.dcm',
        "form-data; filename*=UTF-8''a.dcm; name=local",
        'form-data; name="local"; filename="..\\\\..\\\\a"',
    ],
)
def test_the_name_of_a_file_in_its_part_means_nothing(disposition: str) -> None:
    data = multipart(("d_msg", b"{}"), ("local", b"x"))
    data = data.replace(b'form-data; name="local"', disposition.encode())
    assert parts_of(form_of(data)) == ({"d_msg": "{}"}, b"x")


@pytest.mark.parametrize("name", ["name*=UTF-8''local", "x=local", ""])
def test_a_part_with_a_name_in_another_notation_is_no_file(name: str) -> None:
    data = multipart(("d_msg", b"{}"), ("local", b"x")).replace(b'name="local"', name.encode())
    form = form_of(data)
    assert form.file is None


@pytest.mark.parametrize("boundary", ["x" * 70, "x" * 5000, "'()+_,-./:=? a", "a--", "--", "-"])
def test_a_boundary_may_be_long_or_odd(boundary: str) -> None:
    content = b"\r\n--" + boundary[:-1].encode() + b"\r\n\r\n--"
    data = multipart(("local", content), boundary=boundary)
    found = boundary_of(f'multipart/form-data; boundary="{boundary}"')
    assert found == boundary
    for step in (1, 1 << 20):
        assert parts_of(form_of(data, step, found))[1] == content


def test_the_last_line_end_may_be_missing() -> None:
    assert parts_of(form_of(multipart(("local", b"x"))[:-2])) == ({}, b"x")


@pytest.mark.parametrize("second", ["boundary=b", "BOUNDARY = b", 'boundary="b"', "x=y;boundary=a"])
def test_a_form_has_one_boundary(second: str) -> None:
    with pytest.raises(MessageError, match="two boundaries"):
        boundary_of(f"multipart/form-data; boundary=a; {second}")
