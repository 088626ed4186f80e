"""Replies: the text is exactly that of 2.x, and a long reply takes little memory."""

from __future__ import annotations

import io
import itertools
import json
import logging
import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfstorage import StoreHandler
from pfstorage.cli import main as cli
from pfstorage.errors import MessageError, NotFoundError, PfstorageError, UnavailableError
from pfstorage.settings.model import Settings
from pfstorage.wire.json_text import ROWS_AT_ONCE, dumps
from pfstorage.wire.packed import PackedStrings
from pfstorage.wire.reply import Reply
from pfstorage.wire.rows import KnownRow, RowStream
from tests.support.replies import LS, STREAMING, Shelf, as_2x, written

ANY_TEXT = st.text(st.characters(exclude_categories=[])) | st.just('\ud800\udc00\udcff/\0\x7f"\\\n')
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT
KEYS = ANY_TEXT | st.integers() | st.booleans() | st.none() | st.floats()
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner),
    max_leaves=30,
)
ROWS = st.lists(st.dictionaries(ANY_TEXT, SCALARS) | ANY_TEXT)


# the text


def test_a_reply_is_indented_by_four_in_its_own_order_and_in_ascii() -> None:
    assert Reply({"status": True, "ls": [], "a": "\xe9"}).to_json() == (
        '{\n    "status": true,\n    "ls": [],\n    "a": "\\u00e9"\n}'
    )


def test_an_error_is_a_reply_with_its_facts() -> None:
    reply = Reply.from_error(NotFoundError("there is no\nobject", key="a"))
    assert reply.body == {
        "status": False,
        "msg": "there is no object",
        "error": {"type": "NotFoundError", "key": "a"},
    }


@given(st.dictionaries(KEYS, ANY_JSON))
def test_any_body_is_written_as_2x_wrote_it(body: dict[str, Any]) -> None:
    assert Reply(body).to_json() == written(Reply(body)) == as_2x(body)


@given(st.lists(st.dictionaries(KEYS, ANY_JSON, max_size=5), max_size=5))
def test_a_row_whose_json_is_known_is_written_as_any_other(rows: list[dict[str, Any]]) -> None:
    known = [KnownRow(row, dumps(row)) for row in rows]
    assert known == rows
    for kind in (list, RowStream):
        assert written(Reply({"deeper": {"rows": kind(known)}})) == as_2x({"deeper": {"rows": rows}})
        assert written(Reply({"rows": kind(known)})) == as_2x({"rows": rows})


@given(ROWS)
def test_rows_that_are_streamed_or_packed_are_written_as_a_list_of_them_is(rows: list[Any]) -> None:
    texts = [row for row in rows if isinstance(row, str)]
    for depth in (lambda value: value, lambda value: {"deeper": value, "status": True}):
        streamed = {"a": 1, "rows": depth(RowStream(rows)), "texts": depth(PackedStrings(texts)), "b": {}}
        plain = {"a": 1, "rows": depth(rows), "texts": depth(texts), "b": {}}
        assert written(Reply(streamed)) == as_2x(plain)


@pytest.mark.parametrize("count", [0, 1, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 3 * ROWS_AT_ONCE])
def test_no_row_is_lost_between_two_pieces(count: int) -> None:
    rows = [{"name": str(number), "bytes": number} for number in range(count)]
    assert written(Reply({"ls": RowStream(rows)})) == as_2x({"ls": rows})


@pytest.mark.parametrize("value", [object(), {1}, b"bytes", {"a": {(): 1}}])
def test_an_object_without_json_form_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        Reply({"a": value}).to_json()


def test_write_returns_the_status() -> None:
    for body, status in (({"status": True}, True), ({"status": False}, False), ({}, False)):
        assert Reply(dict(body)).write(io.StringIO()) is status
        assert Reply({**body, "ls": RowStream([])}).write(io.StringIO()) is status


def test_an_error_of_the_file_is_raised() -> None:
    rows = RowStream({"name": "a" * 100} for _ in range(1000))
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "w", buffering=1) as full:
        Reply({"status": True, "ls": rows}).write(full)


# streams


def breaking(error: Exception, rows: int = 3) -> Iterator[dict[str, Any]]:
    yield from ({"name": str(number)} for number in range(rows))
    raise error


def test_the_outcome_follows_the_rows_that_it_depends_on() -> None:
    body = {"status": True, "msg": "m", "ls": RowStream(["a"]), "warnings": ["w"]}
    assert list(json.loads(written(Reply(body)))) == ["ls", "warnings", "status", "msg"]
    settled = Reply({**body, "ls": ["a"]})
    assert list(json.loads(written(settled))) == ["status", "msg", "ls", "warnings"]


@pytest.mark.parametrize("rows", [0, 3, ROWS_AT_ONCE, ROWS_AT_ONCE + 1])
def test_a_failed_stream_gives_its_rows_and_its_error(rows: int) -> None:
    error = UnavailableError("the store went away", key="k")
    reply = Reply({"status": True, "msg": "m", "ls": RowStream(breaking(error, rows)), "warnings": ["w"]})
    file = io.StringIO()
    assert reply.write(file) is False
    assert json.loads(file.getvalue()) == {
        "ls": [{"name": str(number)} for number in range(rows)],
        "warnings": ["w"],
        "status": False,
        "msg": "the store went away",
        "error": {"type": "UnavailableError", "key": "k"},
    }
    assert reply.error is error


def test_an_error_that_nobody_foresaw_leaves_the_json_whole(caplog: pytest.LogCaptureFixture) -> None:
    reply = Reply({"status": True, "ls": RowStream(breaking(ZeroDivisionError("in a row")))})
    reported = json.loads(written(reply))
    assert (reported["status"], len(reported["ls"])) == (False, 3)
    assert reported["msg"] == "unexpected ZeroDivisionError; the log has the details"
    assert "in a row" in caplog.text


def test_an_interrupt_is_no_error_of_a_stream() -> None:
    def interrupted() -> Iterator[str]:
        yield "a"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(Reply({"ls": RowStream(interrupted())}))


def test_a_settled_reply_has_plain_lists_alone() -> None:
    reply = Reply(
        {
            "a": RowStream(["x"]),
            "b": PackedStrings(["y"]),
            "c": {"d": RowStream([{"e": 1}]), "f": 2},
            "g": [3],
        }
    )
    reply.settle()
    assert reply.body == {"a": ["x"], "b": ["y"], "c": {"d": [{"e": 1}], "f": 2}, "g": [3]}
    assert {type(reply.body["a"]), type(reply.body["b"]), type(reply.body["c"]["d"])} == {list}


def test_settle_raises_the_error_of_a_stream() -> None:
    with pytest.raises(UnavailableError):
        Reply({"ls": {"deeper": RowStream(breaking(UnavailableError("gone")))}}).settle()


def test_a_note_is_called_once_when_the_outcome_is_known() -> None:
    seen: list[bool] = []
    plain, streamed = (
        Reply({"status": True}),
        Reply({"status": True, "ls": RowStream(breaking(MessageError("")))}),
    )
    for reply in (plain, streamed):
        reply.when_known(lambda reply=reply: seen.append(reply.body["status"]))  # type: ignore[misc]
    assert seen == [True]
    written(streamed)
    written(streamed)
    assert seen == [True, False]


# packed strings


@given(st.lists(ANY_TEXT), st.integers(-10, 10), st.slices(8))
def test_packed_strings_behave_as_a_list(texts: list[str], place: int, part: slice) -> None:
    packed = PackedStrings()
    for text in texts:
        packed.append(text)
    assert packed == texts == list(packed)
    assert packed == PackedStrings(texts)
    assert (len(packed), bool(packed)) == (len(texts), bool(texts))
    assert packed[part] == texts[part]
    assert list(reversed(packed)) == texts[::-1]
    if -len(texts) <= place < len(texts):
        assert packed[place] == texts[place]
    else:
        with pytest.raises(IndexError):
            _ = packed[place]


def test_packed_strings_differ_from_other_values() -> None:
    assert PackedStrings(["a", "b"]) not in (["a"], ["a", "c"], PackedStrings(["ab"]), ("a", "b"), "ab", None)
    assert repr(PackedStrings(["a"])) == "PackedStrings(['a'])"
    with pytest.raises(TypeError):
        hash(PackedStrings())


def test_a_text_that_cannot_be_packed_is_not_there() -> None:
    packed = PackedStrings(["a"])
    with pytest.raises(AttributeError):
        packed.append(b"bytes")  # type: ignore[arg-type]
    assert packed == ["a"]


def test_a_packed_text_costs_its_bytes_and_eight() -> None:
    texts = (f"chris/feed_{number:05}/data/{number:040}.dcm" for number in range(50_000))
    tracemalloc.start()
    packed = PackedStrings(texts)
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    size = sum(len(text) for text in packed)
    assert used < (size + 8 * len(packed)) * 1.2  # a growing list reserves some memory ahead


# the memory of a reply


class Longest:
    """A file that notes the size of its largest write, and the number of writes."""

    longest = count = 0

    def write(self, text: str) -> int:
        self.longest = max(self.longest, len(text))
        self.count += 1
        return len(text)


def test_a_reply_of_many_rows_is_written_in_pieces_and_never_whole_in_memory() -> None:
    rows = ({"name": f"chris/feed/data/{number:060}.dcm", "bytes": number} for number in range(10_000))
    texts = PackedStrings(f"{number:060}.dcm" for number in range(10_000))
    file = Longest()
    tracemalloc.start()
    done = Reply({"status": True, "ls": RowStream(rows), "localFileList": texts}).write(file)  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done
    assert peak < 1_000_000
    assert file.longest < 200 * ROWS_AT_ONCE
    assert file.count > 10_000 / ROWS_AT_ONCE


# callers that stream


def test_only_a_caller_who_streams_gets_a_stream() -> None:
    handler = StoreHandler(Shelf(3))
    rows = [{"name": f"chris/000000{number}.dcm"} for number in range(3)]
    assert handler.run(LS) == handler.answer(LS).body == {"status": True, "ls": rows}
    assert type(handler.run(LS)["ls"]) is list
    assert isinstance(handler.answer(LS, STREAMING).body["ls"], RowStream)
    assert json.loads(written(handler.answer(LS, STREAMING))) == handler.run(LS)


def test_a_listing_is_read_as_it_is_written() -> None:
    shelf = Shelf(100_000)
    reply = StoreHandler(shelf).answer(LS, STREAMING)
    assert shelf.given == 1
    assert list(itertools.islice(reply.body["ls"], 5))[-1] == {"name": "chris/0000004.dcm"}
    assert shelf.given == 5


@pytest.mark.parametrize(
    ("meta", "names"),
    [
        ({"limit": 1}, ["0"]),
        ({"limit": 2, "substr": "2"}, ["2"]),
        ({"substr": "nothing"}, []),
        ({"retSpec": ["name"], "limit": 100}, ["0", "1", "2"]),
    ],
)
def test_a_streamed_listing_is_limited_and_filtered_like_any(meta: dict[str, Any], names: list[str]) -> None:
    message = {"action": "ls", "meta": meta}
    reported = json.loads(written(StoreHandler(Shelf(3)).answer(message, STREAMING)))
    assert [row["name"] for row in reported["ls"]] == [f"chris/000000{name}.dcm" for name in names]
    assert reported["status"] is bool(names)
    assert ("msg" in reported) is not bool(names)
    assert reported == StoreHandler(Shelf(3)).run(message)


def test_an_error_before_the_first_row_is_a_reply_to_a_caller_who_streams_too() -> None:
    reply = StoreHandler(Shelf(0, UnavailableError("down"))).answer(LS, STREAMING)
    assert reply.body["error"] == {"type": "UnavailableError"}
    assert isinstance(reply.error, UnavailableError)


def test_the_log_has_the_outcome_of_a_listing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reply = StoreHandler(Shelf(3, UnavailableError("gone"))).answer(LS, STREAMING)
    assert not caplog.messages
    written(reply)
    assert [message.partition(" in ")[0] for message in caplog.messages] == ["ls: UnavailableError"]


def test_a_record_holds_the_rows_too(tmp_path: Path) -> None:
    handler = StoreHandler(settings=Settings(type="memory", debug_to_dir=str(tmp_path / "debug")))
    handler.storage.put("a", io.BytesIO(b""), 0)
    reply = handler.answer(LS, STREAMING)
    [record] = (tmp_path / "debug").iterdir()
    assert json.loads(record.read_text())["reply"] == reply.body == {"status": True, "ls": [{"name": "a"}]}
    handler.close()


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, cli.DONE), (UnavailableError("gone"), cli.FAILED), (MessageError("no"), cli.MALFORMED)],
)
def test_the_exit_status_is_that_of_the_reply_as_it_was_written(
    error: PfstorageError | None, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli._print(StoreHandler(Shelf(2, error)).answer(LS, STREAMING)) == status
    reported = capsys.readouterr().out
    assert json.loads(reported)["status"] is (error is None)
    assert reported == as_2x(json.loads(reported)) + "\n"


def test_floats_are_written_as_json_writes_them() -> None:
    assert Reply({"seconds": 0.1, "big": 1e300, "no": math.nan}).to_json() == as_2x(
        {"seconds": 0.1, "big": 1e300, "no": math.nan}
    )
