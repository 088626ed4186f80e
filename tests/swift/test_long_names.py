"""Large objects of long keys and in containers of long names, and the manifests of dynamic ones."""

from __future__ import annotations

import http.client
import os
import random
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
import swiftclient

from pfstorage import open_storage
from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from tests.conftest import read_tree, run, swift_options, write_tree
from tests.support.faults import Fault, Proxy
from tests.support.large import content_of, is_segment, raw_connection

PIECE = 64 * 1024
CONTENT = random.Random(3).randbytes(3 * PIECE + 1)
OTHER = random.Random(4).randbytes(2 * PIECE + 1)
MTIME = 1_700_000_000_123_456_789


@pytest.fixture
def swift(own_account: DevSwift) -> DevSwift:
    return own_account


def long_key(size: int, letter: str = "x") -> str:
    """Return a key of *size* bytes, no component of which is too long for a file system."""
    part = letter * (200 // len(letter.encode()))
    key = "/".join([part] * 6)
    while len(key.encode()) > size:
        key = key[:-1]
    return key + "y" * (size - len(key.encode()))


def opened(swift: DevSwift, proxy: Proxy, container: str = "") -> Storage:
    options = swift_options(swift, segment_size=PIECE, range_size=PIECE)
    options |= {"auth_url": proxy.auth_url, **({"container_name": container} if container else {})}
    return open_storage(**options)


def put(store: Storage, key: str, content: bytes, settings: dict[str, Any] | None = None) -> dict[str, Any]:
    write_tree(Path.cwd(), {"file": content})
    os.utime("file", ns=(MTIME, MTIME))
    location, _, name = key.rpartition("/")
    os.replace("file", name)
    return run(store, "objPut", settings, file=name, inLocation=location, mapLocationOver=".")


def pulled(store: Storage) -> dict[str, bytes]:
    assert run(store, "objPull", mapLocationOver="out", overwrite="always")["status"] is True
    return read_tree(Path("out"))


@pytest.mark.parametrize("size", [912, 913, 980, 1024])
@pytest.mark.parametrize("letter", ["x", "é", "脳", "%", "😀"])
def test_large_objects_have_keys_of_any_length(swift: DevSwift, proxy: Proxy, size: int, letter: str) -> None:
    key = long_key(size, letter)
    with opened(swift, proxy) as store:
        reply = put(store, key, CONTENT)
        assert (reply["status"], reply["objectFileList"], reply["bytes"]) == (True, [key], len(CONTENT))
        assert put(store, key, CONTENT)["skipped"] == 1
        assert pulled(store) == {key: CONTENT}
        assert put(store, key, OTHER)["status"] is True
        assert content_of(store, key) == OTHER
        assert run(store, "objSweep", olderThan=0, dryRun=False)["removed"] == 4
        assert content_of(store, key) == OTHER


def test_an_upload_of_a_long_key_goes_on_where_it_was(swift: DevSwift, proxy: Proxy) -> None:
    key = long_key(1024)
    with opened(swift, proxy) as store:
        proxy.fault(Fault("answer", status=503), "PUT", range(3, 100), is_segment)
        assert put(store, key, CONTENT, {"workers": 1, "retries": 0})["status"] is False
        proxy.forget()
        assert put(store, key, CONTENT)["bytes"] == len(CONTENT) - 2 * PIECE
        assert content_of(store, key) == CONTENT


def test_two_long_keys_with_one_beginning_do_not_share_segments(swift: DevSwift, proxy: Proxy) -> None:
    keys = [long_key(1023) + end for end in "ab"]
    with opened(swift, proxy) as store:
        for key, content in zip(keys, (CONTENT, OTHER), strict=True):
            assert put(store, key, content)["bytes"] == len(content)
        assert [content_of(store, key) for key in keys] == [CONTENT, OTHER]
        location = os.path.dirname(keys[0])
        store.delete(keys[1])
        seen = run(store, "objSweep", olderThan=0, path=location.split("/")[0])["leftovers"]
        assert len(seen) == 3
        # no name has the end of the key, so segments below a longer location are unknown
        assert run(store, "objSweep", olderThan=0, path=location)["leftovers"] == []
        assert content_of(store, keys[0]) == CONTENT


@pytest.mark.parametrize("size", [246, 247, 248, 255, 256])
@pytest.mark.parametrize("letter", ["c", "é"])
def test_large_objects_are_in_containers_of_any_name(
    swift: DevSwift, proxy: Proxy, size: int, letter: str
) -> None:
    name = uuid.uuid4().hex
    name += letter * ((size - len(name)) // len(letter.encode()))
    with opened(swift, proxy, name + "y" * (size - len(name.encode()))) as store:
        for content in (CONTENT, OTHER):
            assert put(store, "s/large", content)["status"] is True
            assert pulled(store) == {"s/large": content}
        assert run(store, "objSweep", olderThan=0, dryRun=False)["removed"] == 4
        assert content_of(store, "s/large") == OTHER


def test_containers_whose_long_names_begin_alike_have_segments_of_their_own(
    swift: DevSwift, proxy: Proxy
) -> None:
    name = uuid.uuid4().hex + "c" * 223
    for end, content in (("a", CONTENT), ("b", OTHER)):
        with opened(swift, proxy, name + end) as store:
            assert put(store, "large", content)["status"] is True
    with opened(swift, proxy, name + "a") as store:
        assert run(store, "objSweep", olderThan=0, dryRun=False)["removed"] == 0
        assert content_of(store, "large") == CONTENT


NAMES = ["plain", "Müller", "脳 1", "100%", "a%41", "a%2541", "%C3%A9", "x+y z", "😀/é", "é%C3%A9"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("encoded", [True, False], ids=["encoded", "raw"])
def test_a_dynamic_manifest_names_its_prefix_encoded_or_not(
    swift: DevSwift, proxy: Proxy, name: str, encoded: bool
) -> None:
    """The interpretation of the store counts: it decodes the header once."""
    with opened(swift, proxy) as store, raw_connection(swift) as raw:
        container = store.settings.swift.container_name
        raw.put_container(container)
        parts = f"{container}-{name.partition('/')[0].replace('%', '')}"
        raw.put_container(parts)
        place = name if encoded else unquote(name)
        for number in range(2):
            raw.put_object(parts, f"{place}/p{number}", CONTENT[number * PIECE : (number + 1) * PIECE])
        reported = f"{parts}/{name}/"
        put_dynamic(raw, container, quote(reported).encode() if encoded else reported.encode())
        content = raw.get_object(container, "dlo")[1]
        assert content == CONTENT[: 2 * PIECE]
        reply = run(store, "objPull", mapLocationOver="out")
        assert (reply["status"], read_tree(Path("out"))) == (True, {"dlo": content})
        assert run(store, "objVerify", mapLocationOver="out")["same"] == 1
        assert run(store, "objSweep", olderThan=0)["status"] is True


def put_dynamic(raw: swiftclient.Connection, container: str, manifest: bytes) -> None:
    """Store a manifest with a header of these very bytes."""
    url, token = raw.get_auth()
    address = urlsplit(url)
    with closing(http.client.HTTPConnection(address.netloc)) as connection:
        connection.putrequest("PUT", f"{address.path}/{container}/dlo")
        connection.putheader("X-Auth-Token", token)
        connection.putheader("X-Object-Manifest", manifest)
        connection.putheader("Content-Length", "0")
        connection.endheaders()
        assert connection.getresponse().status == 201
