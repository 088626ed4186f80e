"""Uploads over HTTP: the server stores them like files of a push, in segments, rate-limited and verified."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from tests.conftest import serving, swift_options
from tests.support.exchange import form_of, send
from tests.support.faults import Fault, Proxy
from tests.support.large import segments

CONTENT = bytes(range(256)) * 3000
Way = Callable[..., tuple[int, dict[str, str], bytes]]


def by_form(
    server: ThreadedHTTPServer, content: bytes = CONTENT, **meta: object
) -> tuple[int, dict[str, str], bytes]:
    form = form_of("x/a", content, None)
    if meta:
        form = form.replace(b'"toObject": "x/a"', json.dumps({"toObject": "x/a", **meta})[1:-1].encode())
    return send(server, "POST", "/api/v1/cmd", form, Content_Type="multipart/form-data; boundary=limit")


def by_put(
    server: ThreadedHTTPServer, content: bytes = CONTENT, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    return send(server, "PUT", "/api/v1/objects/x/a", content, **headers)


@pytest.fixture
def storage(swift: DevSwift, proxy: Proxy) -> Iterator[Storage]:
    with open_storage(**swift_options(swift, auth_url=proxy.auth_url)) as storage:
        yield storage


@contextlib.contextmanager
def served(storage: Storage, **settings: object) -> Iterator[ThreadedHTTPServer]:
    with contextlib.closing(StoreHandler(storage)) as handler:
        for name, value in settings.items():
            handler.state.set(f"/this/{name}", value)
        with serving(handler) as server:
            yield server


@pytest.mark.parametrize("way", [by_form, by_put])
@pytest.mark.parametrize("workers", [1, 4])
def test_a_large_upload_goes_in_segments(swift: DevSwift, storage: Storage, way: Way, workers: int) -> None:
    container = storage.settings.swift.container_name  # type: ignore[union-attr]
    with served(storage, segmentSize="256K", workers=workers) as server:
        for content in (CONTENT, CONTENT[::-1], CONTENT):
            status, _, text = way(server, content)
            assert status in (200, 201), text
            assert len(segments(swift, container)) >= 3
            status, headers, got = send(server, "GET", "/api/v1/objects/x/a")
            assert (status, got) == (200, content)
        assert storage.head("x/a").segments_etag == headers["ETag"].strip('"')


def test_the_etag_of_a_large_put_is_that_of_its_get(storage: Storage) -> None:
    with served(storage, segmentSize="256K") as server:
        _, headers, text = by_put(server)
        assert headers["ETag"] == send(server, "GET", "/api/v1/objects/x/a")[1]["ETag"]
        assert json.loads(text)["object"]["bytes"] == len(CONTENT)
        assert by_put(server, b"other", If_None_Match="*")[0] == 412
        assert by_put(server, CONTENT[::-1], If_None_Match="*")[0] == 412
        assert send(server, "GET", "/api/v1/objects/x/a")[2] == CONTENT


@pytest.mark.parametrize("way", [by_form, by_put])
def test_a_segment_that_arrives_damaged_is_sent_again(storage: Storage, proxy: Proxy, way: Way) -> None:
    with served(storage, segmentSize="256K") as server:
        way(server, b"x")  # the container is made
        proxy.fault(Fault("flip", at=1000, side="request"), "PUT", on={1})
        assert way(server)[0] in (200, 201)
        assert send(server, "GET", "/api/v1/objects/x/a")[2] == CONTENT
        assert proxy.struck


@pytest.mark.parametrize("way", [by_form, by_put])
def test_an_upload_goes_within_the_bandwidth_of_all(way: Way) -> None:
    with (
        contextlib.closing(open_storage("memory")) as storage,
        served(storage, bwLimit=len(CONTENT)) as server,
    ):
        started = time.monotonic()
        for _ in range(2):
            assert way(server)[0] in (200, 201)
        assert time.monotonic() - started >= 1.5


def test_a_form_keeps_to_what_its_message_says(storage: Storage) -> None:
    with served(storage, segmentSize="256K") as server:
        assert json.loads(by_form(server, dryRun=True)[2])["status"] is True
        assert send(server, "GET", "/api/v1/objects/x/a")[0] == 404
        reply = json.loads(by_form(server)[2])
        assert (reply["bytes"], reply["objectFileList"]) == (len(CONTENT), ["x/a"])
        reply = json.loads(by_form(server, b"other", overwrite="never")[2])
        assert (reply["status"], reply["skipped"]) == (True, 1)
        assert (
            hashlib.md5(send(server, "GET", "/api/v1/objects/x/a")[2]).digest()
            == hashlib.md5(CONTENT).digest()
        )
