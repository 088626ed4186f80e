"""Changes of settings while a server runs, by a message or a file. No secret is sent to another address."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import Settings, StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.access.permissions import Permissions
from pfstorage.access.principal import Principal
from pfstorage.actions import RequestContext
from pfstorage.cli.flags import build_parser
from pfstorage.devswift import DevSwift
from pfstorage.errors import SettingsError
from pfstorage.jobs.model import JobRequest
from pfstorage.jobs.origin import Origin
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.settings.changes import AT_RUN_TIME
from pfstorage.settings.loading import load_settings
from pfstorage.settings.model import to_document
from pfstorage.settings.redaction import MASK
from tests.conftest import ask, serving, swift_options
from tests.support.exchange import Served, Transport, answer, message, post, server_process

KEY, TOKEN = "canary-of-the-store", "canary-of-an-option"
OPTIONS = {"auth_token": TOKEN, "object_storage_url": "http://127.0.0.1:9/v1/a", "project_name": "p"}
SETTINGS = load_settings(
    {
        "this": {"type": "filesystem", "httpProxy": "me:canary-of-the-proxy@127.0.0.1:9"},
        "swift": {
            "auth_url": "http://me:canary-of-the-login@127.0.0.1:9/auth",
            "key": KEY,
            "os_options": OPTIONS,
        },
        "filesystem": {"store_base": "store"},
    }
)[0]


@pytest.fixture
def server(transport: Transport) -> Iterator[ThreadedHTTPServer]:
    """A server for a program of this machine, or for one with a token that may do all."""
    with contextlib.closing(StoreHandler(settings=SETTINGS)) as handler, serving(handler) as server:
        yield server


def ctl(server: ThreadedHTTPServer, var: str, **meta: Any) -> tuple[int, dict[str, Any]]:
    return ask(server, message("internalctl", var=var, **meta))


# over HTTP


ALLOWED = {
    "/this/verbosity": 2,
    "/this/workers": 7,
    "/this/segmentSize": "128K",
    "/this/rangeSize": "2M",
    "/this/bwLimit": "50M",
    "/this/durable": "file",
    "/this/retries": 1,
    "/this/timeout": 12.5,
    "/this/connectTimeout": 1.5,
    "/swift/container_name": "other",
}


def test_the_tests_cover_all_settings_that_may_change() -> None:
    assert {tuple(var.split("/")[1:]) for var in ALLOWED} == AT_RUN_TIME


@pytest.mark.parametrize("var", ALLOWED)
def test_a_message_changes_settings_that_name_no_address(server: ThreadedHTTPServer, var: str) -> None:
    assert ctl(server, var, set=ALLOWED[var]) == (200, {"d_ret": {var: ALLOWED[var]}, "status": True})
    _, block, name = var.split("/")
    assert to_document(server.handler.settings)[block][name] == ALLOWED[var]


REFUSED = [
    ("/this/type", "memory"),
    ("/filesystem/store_base", "/etc"),
    ("filesystem/store_base", "~"),
    ("/filesystem/store_base", "../.."),
    ("/filesystem", {"store_base": "/etc"}),
    ("/filesystem/auto_create_container", False),
    ("/memory/auto_create_container", False),
    ("/swift/auth_url", "http://127.0.0.1:1/auth/v1.0"),
    ("//swift//auth_url//", "http://127.0.0.1:1/auth/v1.0"),
    ("/swift/auth_url", "nonsense"),
    ("/swift/auth_url", {}),
    ("/swift", {"auth_url": "http://127.0.0.1:1/auth/v1.0", "key": "mine"}),
    ("/swift", {"container_name": "other", "auth_url": "http://127.0.0.1:1/"}),
    ("/", {"swift": {"container_name": "other"}, "filesystem": {"store_base": "/etc"}}),
    ("/", {"this": {"type": "memory"}}),
    ("/swift/key", "mine"),
    ("/swift/key", KEY),
    ("/swift/key", ""),
    ("/swift/key", ["mine"]),
    ("/swift/key", {"a": "mine"}),
    ("/swift/username", "me"),
    ("/swift/os_options", {"auth_token": "mine"}),
    ("/swift/os_options", {}),
    ("/swift/os_options/object_storage_url", "http://127.0.0.1:1/"),
    ("/swift/cacert", "/etc/passwd"),
    ("/swift/auth_version", "3"),
    ("/swift/file_storage", "x"),
    ("/swift/auto_create_container", False),
    ("/swift/Container_Name", "other"),
    ("/swift/containerName", "other"),
    ("/swift/container_name/x", "other"),
    ("/swift/container_name", {"x": "other"}),
    ("/swift", {"x/container_name": "other"}),
    ("/", {"swift/container_name": "other"}),
    ("/this/httpProxy", "127.0.0.1:1"),
    ("/this/httpProxy", ""),
    ("/this/http_proxy", "127.0.0.1:1"),
    ("/this/insecure", True),
    ("/this/allowPlainStorage", True),
    ("/this/debugToDir", "records"),
    ("/this/ipSelf", "0.0.0.0"),
    ("/this/portSelf", 1),
    ("/this/httpResponse", True),
    ("/this/name", "other"),
    ("/this/args", {"swiftKey": "mine"}),
    ("/this/args/tokenPath", "x"),
    ("/scratch/of/a/client", "x"),
    ("/..", {"swift": {"key": "mine"}}),
    ("/../swift/key", "mine"),
]


@pytest.mark.parametrize(("var", "value"), REFUSED, ids=repr)
def test_a_message_changes_no_store_no_address_and_no_secret(
    server: ThreadedHTTPServer, var: str, value: Any
) -> None:
    shown = ctl(server, "/", get="x")
    status, reply = ctl(server, var, set=value)
    assert (status, reply["error"]["type"]) == (403, "ForbiddenError")
    assert "change the file of --configFileLoad and send SIGHUP" in reply["msg"]
    assert "canary" not in reply["msg"]
    assert server.handler.settings == SETTINGS
    assert ctl(server, "/", get="x") == shown


@pytest.mark.parametrize(
    ("var", "value"),
    [
        ("/swift/container_name", "a/b"),
        ("/swift/container_name", ".."),
        ("/swift/container_name", "."),
        ("/swift/container_name", ""),
        ("/swift/container_name", "x" * 257),
        ("/swift/container_name", "a\nb"),
        ("/swift/container_name", ["other"]),
        ("/swift/container_name", 5),
        ("/this/workers", "many"),
        ("/this/workers", 10**6),
        ("/this/bwLimit", -1),
        ("/this/timeout", "NaN"),
        ("/this/retries", 10**6),
        ("/this", {"verbosity": 2, "workers": 0}),
    ],
)
def test_a_value_that_is_none_is_refused_whole(server: ThreadedHTTPServer, var: str, value: Any) -> None:
    status, reply = ctl(server, var, set=value)
    assert (status, reply["error"]["type"]) == (400, "SettingsError")
    assert server.handler.settings == SETTINGS


def test_no_file_of_the_host_is_given_out_by_another_store(
    server: ThreadedHTTPServer, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("canary")
    for var, value in (("/filesystem/store_base", str(tmp_path)), ("/this/type", "filesystem")):
        ctl(server, var, set=value)
    assert ask(server, None, "GET", "/api/v1/objects/secret")[0] == 404


@pytest.mark.parametrize("var", ["/", "/swift"])
def test_a_tree_that_comes_back_with_one_change_is_taken(server: ThreadedHTTPServer, var: str) -> None:
    tree = ctl(server, var, get="x")[1]["d_ret"]
    tree["swift"]["container_name"] = "other"
    assert tree["swift"]["key"] == MASK
    assert ctl(server, var, set=tree if var == "/" else tree["swift"])[0] == 200
    settings = server.handler.settings
    assert (settings.swift.container_name, settings.swift.key, settings.secrets()) == (
        "other",
        KEY,
        SETTINGS.secrets(),
    )
    assert settings.swift.auth_url == SETTINGS.swift.auth_url


SECRETS = [KEY, TOKEN, "canary-of-the-login", SETTINGS.swift.auth_url, SETTINGS.http_proxy, MASK]


@pytest.mark.parametrize("guess", SECRETS)
def test_a_replacement_does_not_reveal_whether_a_guess_is_right(
    server: ThreadedHTTPServer, guess: str
) -> None:
    found = ctl(server, guess, valueReplace="mine")
    assert found == ctl(server, "a-wrong-guess", valueReplace="mine")
    assert found == (200, {"d_ret": {"status": True, "l_fileChanged": [], "hits": 0}, "status": True})
    assert server.handler.settings == SETTINGS


@pytest.mark.parametrize(
    "var", ["/swift/key", "/swift/auth_url", "/this/httpProxy", "/swift/os_options/auth_token"]
)
def test_setting_a_value_does_not_reveal_whether_a_guess_is_right(
    server: ThreadedHTTPServer, var: str
) -> None:
    replies = [ctl(server, var, set=guess) for guess in (*SECRETS[:-1], "a-wrong-guess")]
    assert [status for status, _ in replies] == [403] * len(replies)
    assert len({json.dumps(reply) for _, reply in replies}) == 1


def test_a_replacement_finds_the_name_of_the_container(server: ThreadedHTTPServer) -> None:
    status, reply = ctl(server, "users", valueReplace="other")
    assert (status, reply["d_ret"]["l_fileChanged"]) == (200, ["/swift/container_name"])
    assert server.handler.settings.swift.container_name == "other"
    assert ctl(server, "other", valueReplace="a/b")[0] == 400


def test_a_job_changes_no_settings() -> None:
    handler = StoreHandler(settings=SETTINGS)
    perform = handler.job_runner(RequestContext(Principal(is_remote=True)))
    for meta in ({"var": "/swift/container_name", "set": "x"}, {"var": "users", "valueReplace": "x"}):
        order = JobRequest({"action": "internalctl", "meta": meta}, "", Permissions(), "", Origin("", ()))
        reply = perform(order, CancellationToken(), lambda _: None)
        assert reply.body["error"]["type"] == "ForbiddenError"
    assert handler.settings == SETTINGS


def post_message(served: Served, action: str, **meta: Any) -> tuple[int, Any]:
    found = answer(served.port, post(message(action, **meta)))
    return found.status, found.json


def test_the_verbosity_holds_for_the_next_line(tmp_path: Path) -> None:
    with server_process(tmp_path, "--type", "memory", "--forever") as served:
        assert post_message(served, "internalctl", var="/this/verbosity", set=0)[0] == 200
        assert post_message(served, "hello", askAbout="timestamp")[0] == 200
        assert post_message(served, "internalctl", var="/this/verbosity", set=1)[0] == 200
        assert post_message(served, "objExists", obj="a")[0] == 200
        served.wait_for_output("objExists")
        served.process.send_signal(signal.SIGTERM)
        said = served.ends()[1]
    assert "hello" not in said


# no old secret for a new address


class Thief:
    """An address that notes connections."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/auth/v1.0"

    def has_come(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            self._socket.accept()[0].close()
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def thief() -> Iterator[Thief]:
    with contextlib.closing(Thief()) as thief:
        yield thief


def handler_of(*flags: str) -> StoreHandler:
    args = vars(build_parser().parse_args(["--configFileLoad", "settings.json", "--retries", "0", *flags]))
    return StoreHandler.from_args(args, name="pfstorage", version="3")


def write(**blocks: Any) -> None:
    Path("settings.json").write_text(json.dumps(blocks))


OLD = "http://127.0.0.1:9/auth/v1.0"


@pytest.mark.parametrize(
    ("environ", "flags", "before", "after"),
    [
        ({"SWIFT_KEY": KEY}, (), {"auth_url": OLD}, {}),
        ({"ST_KEY": KEY}, (), {"auth_url": OLD}, {"key": "of no use"}),
        ({"SWIFT_KEY": KEY}, (), {"auth_url": OLD, "key": KEY}, {"key": MASK}),
        ({}, ("--swiftKey", KEY), {"auth_url": OLD}, {"username": "me"}),
        ({}, ("--swiftKey", KEY), {"auth_url": OLD, "container_name": "c"}, {"container_name": "c"}),
        ({}, (), {"auth_url": OLD}, {}),  # not even the key that is known to all
        ({}, (), {}, {}),
        (
            {"OS_AUTH_TOKEN": TOKEN, "OS_STORAGE_URL": "http://127.0.0.1:9/v1/a"},
            (),
            {"auth_url": OLD, "key": "a"},
            {"key": "b"},
        ),
    ],
)
def test_a_file_with_a_new_address_and_not_its_key_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
    thief: Thief,
    environ: dict[str, str],
    flags: tuple[str, ...],
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    write(swift=before)
    with contextlib.closing(handler_of(*flags)) as handler:
        was = handler.settings
        write(swift={**after, "auth_url": thief.url})
        with pytest.raises(
            SettingsError, match=r"swift\.auth_url has changed, and swift\.\w+ has not: set the key"
        ) as e:
            handler.reload()
        assert "canary" not in str(e.value)
        assert handler.settings == was
        handler.run({"action": "ls"})
    assert not thief.has_come()


def test_an_address_that_goes_from_the_file_takes_no_key_to_the_default_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SWIFT_KEY", KEY)
    write(swift={"auth_url": OLD})
    handler = handler_of()
    for swift in ({}, {"auth_url": "http://********@127.0.0.1:1/"}, {"auth_url": None}):
        write(swift=swift)
        with pytest.raises(SettingsError, match="has changed"):
            handler.reload()
    assert handler.settings.swift.auth_url == OLD


@pytest.mark.parametrize(
    "after",
    [
        {"this": {"httpProxy": "127.0.0.1:1"}},
        {"swift": {"os_options": {"object_storage_url": "http://127.0.0.1:1/"}}},
    ],
)
def test_a_proxy_and_the_address_of_an_account_are_addresses_too(
    monkeypatch: pytest.MonkeyPatch, after: dict[str, Any]
) -> None:
    monkeypatch.setenv("SWIFT_KEY", KEY)
    write()
    handler = handler_of()
    write(**after)
    with pytest.raises(
        SettingsError, match=r"(this\.httpProxy|swift\.os_options) has changed, and swift\.key has not"
    ):
        handler.reload()
    assert handler.settings.http_proxy == ""


def test_a_file_that_gives_the_key_with_the_new_address_is_taken() -> None:
    write(swift={"auth_url": OLD, "key": KEY, "os_options": OPTIONS})
    handler = handler_of()
    for key in ("another", KEY, KEY):
        swift = {"auth_url": f"http://{key}.invalid/", "key": f"{key}\n", "os_options": {"auth_token": TOKEN}}
        write(swift=swift, this={"httpProxy": f"{key}:1"})
        handler.reload()
        assert (handler.settings.swift.auth_url, handler.settings.swift.key) == (
            f"http://{key}.invalid/",
            key,
        )


def test_a_new_key_may_come_in_its_own_file_with_a_new_address() -> None:
    write(swift={"auth_url": OLD})
    args = vars(build_parser().parse_args(["--configFileLoad", "settings.json", "--swiftKey", KEY]))
    handler = StoreHandler.from_args(args, name="pfstorage", version="3")
    write(swift={"auth_url": "http://new.invalid/"})
    args["swiftKey"] = "another"
    handler.reload()
    assert (handler.settings.swift.auth_url, handler.settings.swift.key) == ("http://new.invalid/", "another")


def test_a_change_of_another_setting_than_the_address_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWIFT_KEY", KEY)
    write(swift={"auth_url": OLD})
    handler = handler_of()
    write(swift={"auth_url": OLD, "container_name": "other", "username": "me"}, this={"workers": 3})
    handler.reload()
    assert (handler.settings.swift.container_name, handler.settings.worker_count) == ("other", 3)


def test_at_sighup_a_server_keeps_its_store_instead_of_sending_the_key_to_another_address(
    swift: DevSwift, thief: Thief, tmp_path: Path
) -> None:
    options = swift_options(swift)
    block = {name: options[name] for name in ("auth_url", "container_name")}
    with open_storage(**options) as storage:
        storage.put("kept", io.BytesIO(b"1"), 1)
    write(swift=block)
    flags = ("--forever", "--configFileLoad", "settings.json")
    with server_process(tmp_path, *flags, SWIFT_KEY=swift.key, SWIFT_USERNAME=swift.user) as served:
        write(swift={**block, "auth_url": thief.url})
        served.process.send_signal(signal.SIGHUP)
        served.wait_for_output(
            "the old settings stay in use: swift.auth_url has changed, and swift.key has not"
        )
        assert post_message(served, "ls")[1]["ls"] == [{"name": "kept"}]
    assert not thief.has_come()


# in a separate process


def test_a_message_to_oneself_changes_an_address_with_its_key_alone() -> None:
    handler = StoreHandler(settings=load_settings({"swift": {"key": KEY}})[0])

    def change(var: str, value: Any) -> Any:
        return handler.run({"action": "internalctl", "meta": {"var": var, "set": value}})

    for var, value in (
        ("/swift/auth_url", OLD),
        ("/swift", {"auth_url": OLD, "key": MASK}),
        ("/swift", {"auth_url": OLD, "username": "me"}),
        ("/", {"swift": {"auth_url": OLD}}),
    ):
        assert "swift.auth_url has changed, and swift.key has not" in change(var, value)["msg"]
    assert handler.settings.swift.auth_url == Settings().swift.auth_url
    assert change("/swift", {"auth_url": OLD, "key": KEY})["status"] is True
    assert change("/swift", {"auth_url": f"{OLD}/", "key": "new"})["status"] is True
    assert (handler.settings.swift.auth_url, handler.settings.swift.key) == (f"{OLD}/", "new")


def test_an_address_that_comes_back_masked_stays() -> None:
    handler = StoreHandler(settings=SETTINGS)
    shown = handler.state.get("/")
    handler.state.set("/", shown)
    assert handler.settings == SETTINGS
