"""The wire forms of a message: JSON, jQuery's form encoding, the query of a GET."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfstorage.actions import ACTIONS
from pfstorage.errors import MessageError
from pfstorage.wire.decoding import decode_json
from pfstorage.wire.forms import decode_form, decode_query, looks_like_json
from pfstorage.wire.message import MAX_KEY_WARNINGS, Message, read_meta

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NAMES = st.text(st.characters(exclude_categories=["Cs", "Nd"], exclude_characters="[]"), min_size=1)
NESTED = st.recursive(
    TEXT, lambda inner: st.lists(inner, min_size=1) | st.dictionaries(NAMES, inner, min_size=1), max_leaves=20
)


def jquery(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Encode as jQuery's ``$.param``: it writes an index only before a nested value."""
    if isinstance(value, dict):
        return [
            pair for key, each in value.items() for pair in jquery(each, f"{name}[{key}]" if name else key)
        ]
    if isinstance(value, list):
        indices = [number if isinstance(each, dict | list) else "" for number, each in enumerate(value)]
        return [
            pair
            for index, each in zip(indices, value, strict=True)
            for pair in jquery(each, f"{name}[{index}]")
        ]
    return [(name, value)]


@settings(deadline=None)
@given(st.dictionaries(NAMES, NESTED))
def test_forms_encoded_by_jquery(content: dict[str, Any]) -> None:
    assert decode_form(urlencode(jquery(content))) == content


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("", {}),
        ("action=ls", {"action": "ls"}),
        ("a[b][c]=x", {"a": {"b": {"c": "x"}}}),
        ("a[]=x&a[]=y", {"a": ["x", "y"]}),
        ("a[0]=x&a[1]=y", {"a": ["x", "y"]}),
        ("a[1]=y&a[0]=x", {"a": ["x", "y"]}),
        ("a[0][b]=x&a[0][c]=y&a[1][b]=z", {"a": [{"b": "x", "c": "y"}, {"b": "z"}]}),
        ("a=x&a=y&a=z", {"a": ["x", "y", "z"]}),
        ("m[a]=x&m[a]=y", {"m": {"a": ["x", "y"]}}),
        ("a[2]=x", {"a": {"2": "x"}}),
        ("a=&b", {"a": "", "b": ""}),
        ("m[sub_str]=a_b&_x=1", {"m": {"sub_str": "a_b"}, "_x": "1"}),
        ("a+b=c+d&%61%5Bb%5D=%26", {"a b": "c d", "a": {"b": "&"}}),
        ("a=%C3%A9&b=\xe9", {"a": "\xe9", "b": "\xe9"}),
        ("a;b=1;2", {"a;b": "1;2"}),
    ],
)
def test_a_form_decodes_to(text: str, content: dict[str, Any]) -> None:
    assert decode_form(text) == content


@settings(deadline=None)
@given(st.text() | st.text("[]{}(),:'\"\\0123456789.eE+-aNTrufls&=%"))
def test_no_text_gets_anything_but_a_message_error_from_the_decoders(text: str) -> None:
    for decode in (
        decode_json,
        decode_form,
        decode_query,
        lambda text: decode_query("meta=" + quote(text, errors="replace")),
    ):
        with contextlib.suppress(MessageError):
            json.dumps(decode(text), allow_nan=False)


@settings(deadline=None)
@given(st.binary())
def test_no_bytes_get_anything_but_a_message_error_from_json(data: bytes) -> None:
    with contextlib.suppress(MessageError):
        decode_json(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(TEXT, JSON))
def test_the_meta_of_a_query_is_json_or_a_python_literal(meta: dict[str, Any]) -> None:
    assert decode_query(urlencode({"action": "ls", "meta": json.dumps(meta)}))["meta"] == meta
    assert decode_query(urlencode({"action": "ls", "meta": meta}))["meta"] == meta  # as pfurl does it


def test_a_blank_meta_of_a_query_is_an_empty_one() -> None:
    assert decode_query("action=ls&meta=") == {"action": "ls", "meta": {}}


def test_a_payload_in_a_query_may_be_json() -> None:
    content = decode_query("payload=" + quote('{"action": "ls", "meta": {"path": "a"}}'))
    assert Message.parse(content) == Message("ls", {"path": "a"})


@pytest.mark.parametrize(
    "source",
    [
        '{"action": "ls", "meta": {"path": "a"}}',
        b'{"action": "ls", "meta": {"path": "a"}}',
        '\n {"meta": {"path": "a"}, "action": "ls"}',
        '{"payload": {"action": "ls", "meta": {"path": "a"}}}',
        '{"action": "ls", "args": {"path": "a"}}',
        {"action": "ls", "meta": {"path": "a"}},
        {"payload": {"action": "ls", "args": {"path": "a"}}},
    ],
)
def test_a_message_is_an_action_and_a_meta(source: Any) -> None:
    assert Message.parse(source) == Message("ls", {"path": "a"})


def test_unknown_top_level_keys_cause_a_warning_or_an_error() -> None:
    _, warnings = read_meta(
        ACTIONS["ls"].meta, Message.parse('{"action": "ls", "meta": {}, "threadAction": true}')
    )
    assert warnings == ["unknown top-level key 'threadAction'; a message has 'action' and 'meta'"]
    for key in ("path", "PATH"):
        message = Message.parse({"payload": {"action": "ls", "meta": {}, key: "a"}})
        with pytest.raises(MessageError, match="'path' is outside of 'meta': ls takes it in 'meta'"):
            read_meta(ACTIONS["ls"].meta, message)


def test_a_message_has_one_meta() -> None:
    with pytest.raises(MessageError, match="either 'meta' or 'args'"):
        Message.parse({"payload": {"action": "objPull", "meta": {"path": "a"}, "args": {"dryRun": True}}})
    same = {"path": "a"}
    assert Message.parse({"action": "ls", "meta": same, "args": same}) == Message("ls", same)


@pytest.mark.parametrize("source", ['{"action": "ls"}', '{"action": "ls", "meta": null}', {"action": "ls"}])
def test_a_message_without_a_meta_has_an_empty_one(source: Any) -> None:
    assert Message.parse(source) == Message("ls", {})


@pytest.mark.parametrize("source", ["[]", "5", "null", '"ls"', "", [], None, 5])
def test_a_message_must_be_an_object(source: Any) -> None:
    with pytest.raises(MessageError):
        Message.parse(source)


def test_an_order_needs_no_action() -> None:
    order = {"meta": {"ctl": {"serverCmd": "quit"}}}
    assert Message.parse(order).action == ""


@pytest.mark.parametrize(
    "text",
    ["NaN", "[Infinity]", "-Infinity", "1e999", '{"a": 1, "a": 2}', "[" * 33 + "]" * 33, "\ufeff\ufeff{}"],
)
def test_json_is_read_strictly(text: str) -> None:
    with pytest.raises(MessageError):
        decode_json(text)


def test_numbers_keep_their_value() -> None:
    assert decode_json("[1e308, -0.5, 12345678901234567890, 5e-324]") == [
        1e308,
        -0.5,
        12345678901234567890,
        5e-324,
    ]
    assert math.copysign(1, decode_json("-0.0")) == -1


@pytest.mark.parametrize(
    ("text", "is_json"),
    [
        ('{"a": "b=c"}', True),
        (' [ "=" ]', True),
        ("hello", True),
        ("", True),
        ("action=ls", False),
        ('action=ls&meta={"path":"a"}', False),
    ],
)
def test_json_and_forms_are_distinguished(text: str, is_json: bool) -> None:
    assert looks_like_json(text) is is_json


@pytest.mark.parametrize(("given", "name"), [("dryrun", "dryRun"), ("dry_run", "dryRun"), ("PATH", "path")])
def test_a_meta_in_the_wrong_case_is_refused(given: str, name: str) -> None:
    message = Message.parse({"action": "objPull", "meta": {given: True}})
    with pytest.raises(MessageError, match=f"it is called {name!r}"):
        read_meta(ACTIONS["objPull"].meta, message)


def test_a_reply_does_not_name_each_of_many_unknown_keys() -> None:
    many = {f"x{number}": 1 for number in range(MAX_KEY_WARNINGS)}
    for content in ({"meta": many}, {"meta": {}, **many}):
        _, warnings = read_meta(ACTIONS["ls"].meta, Message.parse({"action": "ls", **content}))
        assert len(warnings) == MAX_KEY_WARNINGS
        assert "x19" in warnings[-1]
    both = {"action": "ls", "meta": many, "y1": 1, "y2": 1}
    _, warnings = read_meta(ACTIONS["ls"].meta, Message.parse(both))
    assert len(warnings) == MAX_KEY_WARNINGS + 1
    assert warnings[-1] == "and 2 more of the kind"


def test_a_meta_that_is_unknown_is_warned_of() -> None:
    _, warnings = read_meta(
        ACTIONS["objPull"].meta, Message.parse({"action": "objPull", "meta": {"colour": 1}})
    )
    assert len(warnings) == 1
    assert warnings[0].startswith("objPull knows no meta 'colour' (it knows ")
