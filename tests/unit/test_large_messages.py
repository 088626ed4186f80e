"""Large messages: the server decodes one at a time, frees it early, and sends no much larger reply."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfstorage import StoreHandler
from pfstorage.actions import RequestContext
from pfstorage.actions.service import ECHO_ALWAYS, ECHO_GROWTH
from pfstorage.backends.memory import MemoryStorage
from pfstorage.errors import MessageError
from pfstorage.server.admission import LARGE_MESSAGE, AdmissionQueue, RequestPermit
from pfstorage.server.http1.body import MAX_MESSAGE
from pfstorage.settings.model import Settings
from pfstorage.wire.decoding import MAX_CONTAINERS, decode_json
from pfstorage.wire.forms import decode_form
from pfstorage.wire.reply import Reply

AROUND = 1000
"""Characters of a reply outside the repeated value."""


def nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def echoed(value: Any) -> tuple[dict[str, Any], str, str]:
    """Make a server repeat *value*. Return the reply, its text, and the text of the message."""
    text = json.dumps(
        {"action": "hello", "meta": {"askAbout": "echoBack", "echoBack": value}},
        ensure_ascii=False,
        separators=(",", ":"),
    )
    with contextlib.closing(StoreHandler(settings=Settings(type="memory"))) as handler:
        reply = handler.answer(text)
    return reply.body, reply.to_json(), text


@pytest.mark.parametrize(
    "value",
    [
        nested([0] * 1000, 25),
        [nested(0, 25)] * 1000,
        [[]] * 100_000,
        [{"a": {}}] * 30_000,
        {str(number): nested({}, 10) for number in range(10_000)},
        "\x7fé" * 200_000,
        ["\ud800"] * 100_000,
        {"é" * 300_000: 1},
    ],
    ids=range(8),
)
def test_a_message_whose_reply_would_be_many_times_as_long_is_refused(value: Any) -> None:
    body, text, _ = echoed(value)
    assert (body["status"], body["error"]["type"]) == (False, "MessageError")
    assert len(text) < AROUND


@pytest.mark.parametrize(
    "value", ["x" * 900_000, [12345678] * 20_000, nested([0] * 100, 25), [1, {"a": [None]}]]
)
def test_a_message_whose_reply_has_its_length_is_accepted(value: Any) -> None:
    body, _, _ = echoed(value)
    assert body["d_ret"]["echoBack"]["msg"] == value


VALUES = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES, st.integers(0, 10), st.integers(1, 300))
def test_no_echo_is_much_longer_than_its_message(value: Any, depth: int, times: int) -> None:
    body, text, asked = echoed([nested(value, depth)] * times)
    assert body["status"] or body["error"]["type"] == "MessageError"
    assert len(text) <= max(ECHO_ALWAYS, ECHO_GROWTH * len(asked.encode("utf-8", "surrogatepass"))) + AROUND


def test_a_message_of_too_many_lists_and_objects_is_not_decoded() -> None:
    assert len(decode_json("[" + ",".join(["{}"] * (MAX_CONTAINERS - 1)) + "]")) == MAX_CONTAINERS - 1
    for text in ("[" + ",".join(["{}"] * MAX_CONTAINERS) + "]", "[[" * MAX_CONTAINERS):
        with pytest.raises(MessageError, match="over 110000 lists and objects"):
            decode_json(text)


def test_brackets_in_a_text_are_no_lists() -> None:
    text = r'[{"\"' * MAX_CONTAINERS
    assert decode_json(json.dumps({"a": text})) == {"a": text}


@pytest.mark.parametrize(
    "rest", ['\\"' * 400_000, '"' * 800_001, "\\" * 800_001, '\\"[' * 250_000, '" "' * 250_001]
)
def test_a_text_without_an_end_is_looked_at_once(rest: str) -> None:
    text = "[" * MAX_CONTAINERS + '"' + rest
    assert len(text) <= MAX_MESSAGE
    with pytest.raises(MessageError, match="the message is not JSON"):
        decode_json(text)


def test_characters_in_an_unterminated_string_are_not_counted() -> None:
    with pytest.raises(MessageError, match="Unterminated string"):
        decode_json('"' + r"\"[" * (MAX_CONTAINERS + 1))


def test_a_form_of_too_many_lists_and_objects_is_not_read() -> None:
    few = "&".join(["a[b][c][]=1"] * 9000)
    assert len(decode_form(few)["a"]["b"]["c"]) == 9000
    deep = "&".join(["a" + "[]" * 31 + "=1"] * 9000)
    with pytest.raises(MessageError, match="the form has over 110000 lists and objects"):
        decode_form(deep)


def test_one_large_message_at_a_time_is_decoded_until_the_store_is_needed_or_it_is_answered() -> None:
    decoding, quick, long = AdmissionQueue(1), AdmissionQueue(8), AdmissionQueue(8)

    def new_permit() -> RequestPermit:
        return RequestPermit(quick, long, decoding=decoding)

    first, second, third = new_permit(), new_permit(), new_permit()
    first.begin_decoding(LARGE_MESSAGE + 1)
    small = new_permit()
    small.begin_decoding(LARGE_MESSAGE)
    assert decoding.counts() == {"busy": 1, "waiting": 0}
    waiting = threading.Thread(target=second.begin_decoding, args=(LARGE_MESSAGE + 1,))
    waiting.start()
    first.begin()
    waiting.join(30)
    assert (decoding.counts()["busy"], quick.counts()["busy"]) == (1, 1)
    second.begin_transfer()
    assert (decoding.counts()["busy"], long.counts()["busy"]) == (0, 1)
    third.begin_decoding(LARGE_MESSAGE + 1)
    third.end_decoding()
    second.end_decoding()  # which is over
    assert (decoding.counts()["busy"], long.counts()["busy"]) == (0, 1)


def test_an_error_keeps_no_local_variables_of_its_calls() -> None:
    reply: Reply = StoreHandler(MemoryStorage(Settings(type="memory"))).answer(
        {"action": "ls"}, RequestContext()
    )
    assert reply.error
    assert reply.error.__traceback__ is reply.error.__cause__ is reply.error.__context__ is None
