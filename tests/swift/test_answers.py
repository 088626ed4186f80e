"""The meaning of a status depends on the request and on its sender: the store, its login, or a proxy before them."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.backends import Storage
from pfstorage.backends.contract import Attributes
from pfstorage.devswift import DevSwift
from pfstorage.errors import (
    ContainerNotFoundError,
    MisconfiguredError,
    NotFoundError,
    PermissionDeniedError,
    RejectedError,
    UnauthenticatedError,
    UnavailableError,
)
from tests.conftest import ask, read_tree, run, serving, swift_options, write_tree
from tests.support.clone import Clone
from tests.support.faults import Exchange, Fault, Proxy, is_listing, is_login, is_object

PUT = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
PULL = {"fromLocation": "s", "mapLocationOver": "out"}
FILES = {f"{number:03}": b"x" * number for number in range(40)}


def is_container_put(exchange: Exchange) -> bool:
    return (exchange.method, exchange.kind) == ("PUT", "container")


def is_account(exchange: Exchange) -> bool:
    return exchange.kind == "account"


@pytest.fixture
def storage(swift: DevSwift, proxy: Proxy) -> Iterator[Storage]:
    """A container with one object, and a storage that has not logged in yet."""
    options = swift_options(swift, auth_url=proxy.auth_url)
    with open_storage(**options) as made:
        made.put("s/a", io.BytesIO(b"abc"), 3)
    with open_storage(**options) as made:
        proxy.forget()
        yield made


OPERATIONS: dict[str, Callable[[Storage], Any]] = {
    "head": lambda storage: storage.head("s/a"),
    "get": lambda storage: storage.get("s/a", io.BytesIO()),
    "put": lambda storage: storage.put("s/b", io.BytesIO(b"x"), 1),
    "put-new": lambda storage: storage.put("s/b", io.BytesIO(b"x"), 1, if_absent=True),
    "delete": lambda storage: storage.delete("s/a"),
    "copy": lambda storage: storage.copy("s/a", "s/b"),
    "list": lambda storage: list(storage.list()),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("status", [403, 404, 405, 409, 410, 412, 416, 422])
def test_an_ingress_that_answers_a_login_says_nothing_about_an_object(
    storage: Storage, proxy: Proxy, status: int, name: str
) -> None:
    proxy.fault(Fault("answer", status=status), where=is_login)
    with pytest.raises(
        UnavailableError, match=rf"the login at \S+/auth/v1\.0 answered {status} .*--swiftAuthUrl"
    ):
        OPERATIONS[name](storage)
    assert proxy.logins == 2  # it may be another one the next time
    proxy.forget()
    OPERATIONS[name](storage)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("path", ["auth/v2.7", "auth/", "nothing", "v1/AUTH_chris/users/x"])
def test_a_mistyped_path_of_the_login_is_named_and_asked_once(
    swift: DevSwift, proxy: Proxy, path: str, name: str
) -> None:
    url = f"http://127.0.0.1:{proxy.port}/{path}"
    refused = pytest.raises((MisconfiguredError, UnauthenticatedError), match=r"--swiftAuthUrl|--swiftKey")
    with open_storage(**{**swift_options(swift), "auth_url": url}) as storage, refused:
        OPERATIONS[name](storage)
    assert len(proxy.requests) == 1


def test_a_failed_login_does_not_make_an_object_missing(
    swift: DevSwift, storage: Storage, proxy: Proxy
) -> None:
    proxy.fault(Fault("answer", status=404), where=is_login)
    with contextlib.closing(StoreHandler(storage)) as handler, serving(handler) as server:
        status, reply = ask(server, {"action": "objExists", "meta": {"obj": "s/a"}})
        assert (status, reply["error"]["type"]) == (503, "UnavailableError")
        assert ask(server, method="GET", path="/readyz")[0] == 503
        assert ask(server, method="GET", path="/api/v1/objects/s/a")[0] == 503


@pytest.mark.parametrize("status", [200, 204, 302, 400, 404])
def test_a_run_outlives_a_login_that_an_ingress_answers_for_a_moment(
    swift: DevSwift, proxy: Proxy, tmp_path: Any, status: int
) -> None:
    write_tree(tmp_path / "data", FILES)
    options = swift_options(swift, retries=3, auth_url=proxy.auth_url)
    with open_storage(**options) as storage:
        proxy.fault(Fault("expire"), "PUT", [10])  # then all log in again
        proxy.fault(Fault("answer", status=status), on=[2, 3], where=is_login)
        reply = run(storage, "objPut", {"workers": 8}, **PUT)
        assert (reply["status"], reply["failed"], len(reply["objectFileList"])) == (True, [], len(FILES))
        assert run(storage, "objPull", **PULL)["status"] is True
    assert read_tree(tmp_path / "out") == FILES


@pytest.mark.parametrize("name", ["head", "get", "delete", "copy"])
def test_a_404_of_an_ingress_is_not_that_of_an_object(storage: Storage, proxy: Proxy, name: str) -> None:
    proxy.fault(Fault("answer", status=404), where=is_object)
    with pytest.raises(UnavailableError, match="no X-Trans-Id") as caught:
        OPERATIONS[name](storage)
    assert caught.value.facts["stranger"] is True
    proxy.forget()
    OPERATIONS[name](storage)


def test_a_404_of_an_ingress_is_not_that_of_a_container(storage: Storage, proxy: Proxy) -> None:
    proxy.fault(Fault("answer", status=404), where=is_listing)
    with pytest.raises(UnavailableError, match="no X-Trans-Id"):
        list(storage.list())
    with pytest.raises(UnavailableError):
        run_error(storage, "objPull", **PULL)


def run_error(storage: Storage, action: str, **meta: Any) -> None:
    with contextlib.closing(StoreHandler(storage)) as handler:
        reply = handler.answer({"action": action, "meta": meta})
    assert reply.error is not None
    raise reply.error


def test_a_put_that_an_ingress_refuses_makes_no_container(storage: Storage, proxy: Proxy) -> None:
    proxy.fault(Fault("answer", status=404), "PUT", where=is_object)
    with pytest.raises(UnavailableError, match="no X-Trans-Id"):
        storage.put("s/b", io.BytesIO(b"x"), 1)
    assert proxy.made("PUT", is_container_put) == []


@pytest.mark.parametrize("status", [409, 412])
def test_a_new_object_is_not_there_already_since_a_container_was_refused(
    swift: DevSwift, proxy: Proxy, status: int, tmp_path: Any
) -> None:
    """A push would skip the file as if the object existed, and the file would be lost."""
    write_tree(tmp_path / "data", {"a": b"abc"})
    with open_storage(**swift_options(swift, auth_url=proxy.auth_url)) as storage:
        proxy.fault(Fault("answer", status=status), "PUT", where=is_container_put)
        reply = run(storage, "objPut", overwrite="never", **PUT)
        assert (reply["status"], reply.get("skipped", 0)) == (False, 0)
        proxy.forget()
        assert run(storage, "objPut", overwrite="never", **PUT)["bytes"] == 3


def test_a_403_of_a_proxy_is_not_that_of_the_store(storage: Storage, proxy: Proxy) -> None:
    proxy.fault(Fault("answer", status=403), where=is_object)
    with pytest.raises(RejectedError, match=r"403.*no X-Trans-Id") as caught:
        storage.head("s/a")
    assert not isinstance(caught.value, PermissionDeniedError)
    assert len(proxy.made("HEAD")) == 1


def test_an_answer_of_the_store_itself_is_believed(storage: Storage) -> None:
    with pytest.raises(NotFoundError, match="there is no object 'none'") as caught:
        storage.head("none")
    assert caught.value.facts["transaction"]
    with pytest.raises(NotFoundError):
        storage.delete("none")
    with pytest.raises(NotFoundError):
        storage.copy("none", "other")


def test_a_missing_container_is_none_for_a_put_a_copy_and_a_listing(swift: DevSwift) -> None:
    with open_storage(**swift_options(swift, auto_create_container=False)) as storage:
        for name in ("put", "list"):
            with pytest.raises(ContainerNotFoundError):
                OPERATIONS[name](storage)
        for name in ("get", "head"):
            with pytest.raises(NotFoundError):
                OPERATIONS[name](storage)


def test_a_redirection_is_not_followed_with_a_token_and_names_its_target(
    storage: Storage, proxy: Proxy, clone: Clone
) -> None:
    clone.status = {"": 301}
    clone.location = f"http://127.0.0.1:{proxy.port}/auth/v1.0?token=x"
    with open_storage(**clone.options) as other, pytest.raises(MisconfiguredError) as caught:
        other.head("a")
    assert f"a redirection to http://127.0.0.1:{proxy.port}: use the final address" in str(caught.value)
    assert "token" not in str(caught.value)
    assert proxy.requests == []


def test_a_store_that_names_no_transactions_is_believed_if_it_gives_out_its_account(clone: Clone) -> None:
    clone.status = {"/a/users/x": 404}
    with open_storage(**clone.options) as storage:
        for _ in range(2):
            with pytest.raises(NotFoundError, match="there is no object 'x'"):
                storage.head("x")
    assert clone.asked == ["GET /auth/v1.0", "HEAD /v1/a/users/x", "HEAD /v1/a", "HEAD /v1/a/users/x"]


def test_a_user_who_may_not_see_the_account_is_believed_after_a_success(clone: Clone) -> None:
    clone.status = {"/x": 404, "/v1/a": 403}
    with open_storage(**clone.options) as storage:
        with pytest.raises(UnavailableError, match="no X-Trans-Id"):
            storage.head("x")
        storage.head("y")
        with pytest.raises(NotFoundError):
            storage.head("x")


def test_a_new_container_may_take_a_moment_to_be_known(clone: Clone) -> None:
    clone.headers = {"X-Trans-Id": "t"}
    clone.status, clone.once = {}, {"PUT /v1/a/users/x": [404, 404]}
    with open_storage(**clone.options) as storage:
        assert storage.put("x", io.BytesIO(b"abc"), 3).size == 3
    assert clone.asked[1:] == ["PUT /v1/a/users/x", "PUT /v1/a/users", *["PUT /v1/a/users/x"] * 2]


def test_where_all_is_404_nothing_is_known_of_an_object(clone: Clone) -> None:
    clone.status = {"/auth/v1.0": 200, "": 404}
    with open_storage(**clone.options) as storage, pytest.raises(UnavailableError, match="no X-Trans-Id"):
        storage.head("x")


@pytest.mark.parametrize("header", ["X-Trans-Id", "X-Openstack-Request-Id"])
def test_a_store_that_names_its_transactions_is_believed_at_once(clone: Clone, header: str) -> None:
    clone.headers = {header: "tx1"}
    clone.status = {"/x": 404}
    with open_storage(**clone.options) as storage, pytest.raises(NotFoundError):
        storage.head("x")
    assert len(clone.asked) == 2


@pytest.mark.parametrize("asked", ['Basic realm="staff"', 'Bearer realm="sso", error="invalid_token"'])
def test_a_login_of_http_is_not_that_of_the_store(clone: Clone, asked: str) -> None:
    clone.status = {"/auth/v1.0": 401}
    clone.headers = {"WWW-Authenticate": asked}
    with (
        open_storage(**clone.options) as storage,
        pytest.raises(MisconfiguredError, match="asks for its own login"),
    ):
        storage.head("x")
    assert len(clone.asked) == 1


def test_a_proxy_that_wants_a_password_is_named(clone: Clone) -> None:
    clone.status = {"/auth/v1.0": 407}
    with open_storage(**clone.options) as storage, pytest.raises(MisconfiguredError, match="proxy"):
        storage.head("x")
    clone.status = {"/x": 407}
    with open_storage(**clone.options) as storage, pytest.raises(MisconfiguredError, match="407"):
        storage.head("x")


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_success_from_an_ingress_is_not_believed(storage: Storage, proxy: Proxy, name: str) -> None:
    """A page of it, with 200, is neither an object nor a listing nor the end of one."""
    storage.head("s/a")
    for where in (is_object, is_listing):
        proxy.fault(Fault("answer", status=200 if name == "get" else 204), where=where)
    with pytest.raises(UnavailableError, match="no X-Trans-Id"):
        OPERATIONS[name](storage)
    proxy.forget()
    assert storage.head("s/a").size == 3


def test_a_header_that_can_not_be_sent_fails_its_object_alone(storage: Storage) -> None:
    attributes = Attributes("text/plain\n; x=y")
    with pytest.raises(RejectedError, match="'s/b': the header Content-Type contains a line break") as caught:
        storage.put("s/b", io.BytesIO(b"x"), 1, attributes)
    assert not isinstance(caught.value, MisconfiguredError)
    storage.put("s/b", io.BytesIO(b"x"), 1, Attributes("text/plain; name=ä"))
    assert storage.head("s/b").content_type == "text/plain; name=ä"


def test_an_object_behind_a_login_of_http_is_not_asked_for_with_a_new_token(clone: Clone) -> None:
    clone.status = {"/x": 401}
    clone.headers = {"WWW-Authenticate": "Basic"}
    with (
        open_storage(**clone.options) as storage,
        pytest.raises(MisconfiguredError, match="asks for its own login"),
    ):
        storage.head("x")
    assert len(clone.asked) == 2


def test_a_wrong_account_is_no_missing_object(swift: DevSwift) -> None:
    """A 404 for the creation of a container is about its account."""
    made = Clone()
    made.headers = {"X-Trans-Id": "tx1"}
    made.status = {"/users/x": 404, "/users": 404}
    with made.server:
        threading.Thread(target=made.server.serve_forever, daemon=True).start()
        with (
            open_storage(**made.options) as storage,
            pytest.raises(MisconfiguredError, match="no such account"),
        ):
            storage.put("x", io.BytesIO(b""), 0)
        made.server.shutdown()


def test_a_job_waits_for_a_login_that_an_ingress_answers(storage: Storage, proxy: Proxy) -> None:
    proxy.fault(Fault("answer", status=404), where=is_login)
    with contextlib.closing(StoreHandler(storage)) as handler:
        reply = handler.run({"action": "objPull", "meta": PULL})
    assert reply["error"]["type"] == "UnavailableError"  # jobs wait for the end of such an error
    assert json.dumps(reply)
