"""The requests of a transfer, counted at the store: one for each object, and none for an unchanged one."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import swiftclient

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.devswift import DevSwift
from tests.conftest import read_tree, serving, swift_options, write_tree
from tests.support.faults import Proxy

FILES = {f"{number // 10}/{number}.dcm": b"x" * number for number in range(1, 41)}
LOGIN = ("GET", "login", 200)
LISTING = ("GET", "container", 200)
PUT = ("PUT", "object", 201)
GET = ("GET", "object", 200)
Requests = Counter[tuple[str, str, int]]
Run = Callable[..., tuple[dict[str, Any], Requests]]

PUSH = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
PULL = {"fromLocation": "s", "mapLocationOver": "out"}


@pytest.fixture
def options(swift: DevSwift, proxy: Proxy) -> dict[str, Any]:
    return swift_options(swift, auth_url=proxy.auth_url)


@pytest.fixture
def run(proxy: Proxy, options: dict[str, Any]) -> Run:
    """Answer a message from a storage that is opened for it alone. Return the reply and the requests."""

    def run_counted(action: str, meta: dict[str, Any], **more: Any) -> tuple[dict[str, Any], Requests]:
        proxy.forget()
        with open_storage(**{**options, **more}) as storage:
            reply = StoreHandler(storage).run({"action": action, "meta": meta})
        assert reply["status"] is True, reply
        return reply, Counter((each.method, each.kind, each.status) for each in proxy.exchanges)

    return run_counted


@pytest.fixture
def container(swift: DevSwift, options: dict[str, Any]) -> Iterator[swiftclient.Connection]:
    """The container, made; and a connection to the store itself."""
    raw = swiftclient.Connection(swift.auth_url, swift.user, swift.key)
    raw.put_container(options["container_name"])
    yield raw
    raw.close()


@pytest.mark.parametrize("workers", [1, 8, 32])
def test_a_push_is_a_login_a_listing_and_a_put_for_each_file(
    run: Run, container: swiftclient.Connection, workers: int
) -> None:
    write_tree(Path("data"), FILES)
    reply, requests = run("objPush", PUSH, workers=workers)
    assert requests == {LOGIN: 1, LISTING: 1, PUT: len(FILES)}
    assert reply["skipped"] == 0


@pytest.mark.parametrize("workers", [1, 8, 32])
def test_a_pull_is_a_login_a_listing_and_a_get_for_each_object(
    run: Run, container: swiftclient.Connection, options: dict[str, Any], workers: int
) -> None:
    for name, content in FILES.items():
        container.put_object(options["container_name"], f"s/{name}", content)
    _, requests = run("objPull", PULL, workers=workers)
    assert requests == {LOGIN: 1, LISTING: 1, GET: len(FILES)}
    assert read_tree(Path("out")) == FILES


@pytest.mark.parametrize("workers", [1, 8])
def test_unchanged_files_cost_only_the_listing(run: Run, workers: int) -> None:
    write_tree(Path("data"), FILES)
    run("objPush", PUSH, workers=workers)
    run("objPull", PULL, workers=workers)
    for action, meta in (("objPush", PUSH), ("objPull", PULL)):
        reply, requests = run(action, meta, workers=workers)
        assert requests == {LOGIN: 1, LISTING: 1}
        assert (reply["skipped"], reply["bytes"]) == (len(FILES), 0)


def test_of_a_tree_that_changed_only_the_changes_are_sent(run: Run) -> None:
    write_tree(Path("data"), FILES)
    run("objPush", PUSH)
    write_tree(Path("data"), {"1/11.dcm": b"changed", "new": b"new"})
    reply, requests = run("objPush", PUSH)
    assert requests == {LOGIN: 1, LISTING: 1, PUT: 2}
    assert (reply["skipped"], reply["bytes"]) == (len(FILES) - 1, len(b"changed" + b"new"))


@pytest.mark.parametrize("workers", [1, 4])
def test_a_first_push_is_refused_its_listing_and_makes_the_container(run: Run, workers: int) -> None:
    """Besides the login and a PUT for each file: a listing that finds no container, and the container's PUT."""
    write_tree(Path("data"), FILES)
    _, requests = run("objPush", PUSH, workers=workers)
    refused = requests.pop(("PUT", "object", 404), 0)
    assert requests == {
        LOGIN: 1,
        ("GET", "container", 404): 1,
        ("PUT", "container", 201): 1,
        PUT: len(FILES),
    }
    assert refused <= 1


@pytest.fixture
def many_rows(swift: DevSwift, container: swiftclient.Connection, options: dict[str, Any]) -> int:
    """One row more than two pages of a listing have, in the container: ``s/0000000`` and so on."""
    rows = 2 * 10_000 + 1
    # written where Swift's container server keeps them: as many PUTs take minutes
    arguments = [str(swift.directory), options["container_name"], str(rows)]
    subprocess.run([sys.executable, "-W", "ignore", "-c", ADD_ROWS, *arguments], check=True)
    return rows


ADD_ROWS = """
import sys
from pathlib import Path
from swift.common.utils import Timestamp, md5
from swift.container.backend import ContainerBroker
directory, container, count = sys.argv[1:]
brokers = [ContainerBroker(str(path)) for path in Path(directory).glob("devices/*/containers/**/*.db")]
[broker] = [broker for broker in brokers if broker.get_info()["container"] == container]
row = {"created_at": Timestamp.now().internal, "size": 1, "content_type": "text/plain", "deleted": 0}
row |= {"etag": md5(b"x", usedforsecurity=False).hexdigest(), "storage_policy_index": 0}
row |= {"ctype_timestamp": None, "meta_timestamp": None}
broker.merge_items([{**row, "name": f"s/{number:07}"} for number in range(int(count))])
"""


def test_a_long_listing_is_a_request_for_each_ten_thousand_rows(
    run: Run, container: swiftclient.Connection, options: dict[str, Any], many_rows: int
) -> None:
    reply, requests = run("ls", {"path": "s"})
    assert (len(reply["ls"]), requests) == (many_rows, {LOGIN: 1, LISTING: 3})
    container.put_object(options["container_name"], "s/wanted", b"content")
    _, requests = run("objPull", {**PULL, "substr": "wanted"})
    assert requests == {LOGIN: 1, LISTING: 3, GET: 1}
    assert read_tree(Path("out")) == {"wanted": b"content"}


def test_an_object_is_never_asked_about_before_it_is_moved(run: Run, proxy: Proxy) -> None:
    write_tree(Path("data"), FILES)
    methods = set()
    for action, meta in (("objPush", PUSH), ("objPull", PULL), ("ls", {"path": "s"})):
        run(action, meta)
        methods |= {each.method for each in proxy.exchanges}
    assert methods == {"GET", "PUT"}


@pytest.fixture
def server(proxy: Proxy, options: dict[str, Any]) -> Iterator[ThreadedHTTPServer]:
    """Run a server that has logged in and stored the object ``a``. Its later requests to the store are counted."""
    with open_storage(**options) as storage, serving(StoreHandler(storage)) as server:
        storage.put("a", io.BytesIO(CONTENT), len(CONTENT))
        proxy.forget()
        yield server


CONTENT = b"0123456789"
ETAG = f'"{hashlib.md5(CONTENT).hexdigest()}"'


def get_all(
    server: ThreadedHTTPServer, count: int, method: str = "GET", **headers: str
) -> set[tuple[int, bytes]]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    with contextlib.closing(connection):
        found = set()
        for _ in range(count):
            connection.request(method, "/api/v1/objects/a", headers=given)
            answer = connection.getresponse()
            found.add((answer.status, answer.read()))
        return found


def asked(proxy: Proxy) -> Requests:
    return Counter((each.method, each.kind, each.status) for each in proxy.exchanges)


def test_two_hundred_objects_that_are_given_out_are_two_hundred_requests(
    server: ThreadedHTTPServer, proxy: Proxy
) -> None:
    assert get_all(server, 200) == {(200, CONTENT)}
    assert asked(proxy) == {GET: 200}


@pytest.mark.parametrize(
    ("headers", "status", "content", "at_store"),
    [
        ({"If_None_Match": ETAG}, 304, b"", 200),
        ({"If_None_Match": '"x"'}, 200, CONTENT, 200),
        ({"If_Match": ETAG}, 200, CONTENT, 200),
        ({"If_Modified_Since": "Thu, 01 Jan 2150 00:00:00 GMT"}, 304, b"", 200),
        ({"Range": "bytes=2-3"}, 206, CONTENT[2:4], 206),
        ({"Range": "bytes=-3"}, 206, CONTENT[-3:], 206),
        ({"Range": "bytes=4-", "If_Range": ETAG}, 206, CONTENT[4:], 206),
        ({"Range": "bytes=2-3,5-6"}, 200, CONTENT, 200),
        ({"Range": "bytes=2-3", "If_None_Match": ETAG}, 304, b"", 206),
    ],
)
def test_conditions_and_parts_are_one_request_too(
    server: ThreadedHTTPServer,
    proxy: Proxy,
    headers: dict[str, str],
    status: int,
    content: bytes,
    at_store: int,
) -> None:
    assert get_all(server, 5, **headers) == {(status, content)}
    assert asked(proxy) == {("GET", "object", at_store): 5}


def test_the_head_of_an_object_is_one_request(server: ThreadedHTTPServer, proxy: Proxy) -> None:
    assert get_all(server, 5, "HEAD") == {(200, b"")}
    assert asked(proxy) == {("HEAD", "object", 200): 5}


def test_the_whole_object_is_sent_if_it_is_not_the_one_of_if_range(
    server: ThreadedHTTPServer, proxy: Proxy
) -> None:
    assert get_all(server, 1, Range="bytes=2-3", If_Range='"x"') == {(200, CONTENT)}
    assert asked(proxy) == {("GET", "object", 412): 1, GET: 1}


def test_a_client_copy_is_current_also_for_a_range_outside_the_object(
    server: ThreadedHTTPServer,
) -> None:
    assert get_all(server, 1, Range="bytes=20-", If_None_Match=ETAG) == {(304, b"")}
    [(status, _)] = get_all(server, 1, Range="bytes=20-", If_Match='"x"')
    assert status == 412
