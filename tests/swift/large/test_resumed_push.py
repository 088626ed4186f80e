"""Pushes that continue with the segments of an earlier push, or leave none."""

from __future__ import annotations

import re

import pytest
import swiftclient

from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from tests.conftest import run
from tests.support.faults import Exchange, Fault, Proxy
from tests.support.large import (
    CONTENT,
    NAMES,
    OTHER,
    PUT,
    SEGMENT_SIZE,
    container_of,
    content_of,
    is_manifest,
    is_segment,
    keys,
    segments,
    write_large,
)


def test_segments_that_an_earlier_try_left_are_used(
    swift: DevSwift, store: Storage, proxy: Proxy, raw: swiftclient.Connection
) -> None:
    container = container_of(store)
    raw.put_container(f"{container}_segments")
    for number in (0, 2, 3):
        raw.put_object(
            f"{container}_segments",
            NAMES[number],
            CONTENT[number * SEGMENT_SIZE : (number + 1) * SEGMENT_SIZE],
        )
    raw.put_object(f"{container}_segments", NAMES[4], OTHER[:SEGMENT_SIZE])  # of another file
    raw.put_object(f"{container}_segments", NAMES[5], CONTENT[5 * SEGMENT_SIZE : -1])  # broken off
    raw.put_object(f"{container}_segments", "s/large/1.5/9/9/00000000", b"of a try with another file")
    raw.put_object(f"{container}_segments", "s/large/more/1.5/9/9/00000000", b"of another object")
    write_large(CONTENT)
    before = segments(swift, container)
    reply = run(store, "objPut", **PUT)
    assert (reply["status"], reply["bytes"]) == (True, len(CONTENT) - 3 * SEGMENT_SIZE)
    sent = {exchange.key for exchange in proxy.made("PUT", is_segment)}
    assert {name[-8:] for name in sent} == {"00000001", "00000004", "00000005"}
    assert not sent & before
    assert content_of(store) == CONTENT
    assert segments(swift, container) == before | sent


def test_a_push_that_breaks_off_goes_on_where_it_was(swift: DevSwift, store: Storage, proxy: Proxy) -> None:
    write_large(CONTENT)
    proxy.fault(Fault("answer", status=503), "PUT", on=range(4, 100), where=is_segment)
    reply = run(store, "objPut", {"workers": 1, "retries": 0}, **PUT)
    assert reply["error"]["type"] == "UnavailableError"
    left = segments(swift, container_of(store))
    assert 1 <= len(left) <= 3
    assert {re.sub("/[0-9a-f]{32}/", "/", name) for name in left} < set(NAMES)
    assert keys(store) == []
    proxy.forget()
    again = run(store, "objPut", **PUT)
    assert (again["status"], len(proxy.made("PUT", is_segment))) == (True, 6 - len(left))
    assert content_of(store) == CONTENT


@pytest.mark.parametrize("is_signed", [True, False], ids=["by the store", "by a proxy"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_segments_of_an_earlier_try_that_are_not_accessible_are_sent_again(
    store: Storage, proxy: Proxy, method: str, is_signed: bool
) -> None:
    write_large(CONTENT)
    proxy.fault(Fault("answer", status=503), "PUT", on=range(4, 100), where=is_segment)
    run(store, "objPut", {"workers": 1, "retries": 0}, **PUT)
    proxy.forget()
    proxy.fault(
        Fault("answer", status=403, is_signed=is_signed),
        method,
        where=lambda exchange: exchange.container.endswith("_segments"),
    )
    reply = run(store, "objPut", **PUT)
    assert (reply["status"], reply["bytes"]) == (True, len(CONTENT))
    assert content_of(store) == CONTENT


def test_segments_of_an_earlier_try_that_disappear_are_sent_again(
    store: Storage, proxy: Proxy, raw: swiftclient.Connection
) -> None:
    write_large(CONTENT)
    proxy.fault(Fault("answer", status=503), "PUT", on=range(4, 100), where=is_segment)
    run(store, "objPut", {"workers": 1, "retries": 0}, **PUT)
    proxy.forget()
    home = f"{container_of(store)}_segments"
    gone: list[str] = []

    def remove_first(exchange: Exchange) -> bool:
        if not gone:
            gone.append(exchange.key)
            raw.delete_object(home, exchange.key)
        return False

    proxy.fault(Fault("close"), "POST", where=remove_first)
    assert run(store, "objPut", {"workers": 1}, **PUT)["status"] is True
    assert gone
    assert content_of(store) == CONTENT


@pytest.mark.parametrize("status", [403, 413])
def test_a_push_that_is_refused_for_good_leaves_nothing(
    swift: DevSwift, store: Storage, proxy: Proxy, status: int
) -> None:
    write_large(CONTENT)
    proxy.fault(Fault("answer", status=status), "PUT", where=is_manifest)
    reply = run(store, "objPut", **PUT)
    assert (reply["status"], reply["objectFileList"], len(reply["failed"])) == (False, [], 1)
    assert segments(swift, container_of(store)) == set()
    assert keys(store) == []
