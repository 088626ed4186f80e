"""Replies, read from text and made comparable."""

from __future__ import annotations

import json
from typing import Any

VOLATILE = {"seconds", "timestamp", "last_modified", "transaction", "address"}


def without_volatile(reply: Any) -> Any:
    """Drop what differs from one call to the next: times, and the numbers that a store gives requests."""
    if isinstance(reply, dict):
        return {name: without_volatile(value) for name, value in reply.items() if name not in VOLATILE}
    return [without_volatile(each) for each in reply] if isinstance(reply, list) else reply


def decoded(text: str) -> list[Any]:
    """Return the JSON objects that stand one after another in *text*."""
    decoder, replies, text = json.JSONDecoder(), [], text.strip()
    while text:
        reply, end = decoder.raw_decode(text)
        replies.append(reply)
        text = text[end:].strip()
    return replies
