"""The state that internalctl reads and changes."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from pfstorage import Settings, StoreHandler, open_storage
from pfstorage.access.principal import Principal
from pfstorage.actions import RequestContext
from pfstorage.errors import NotFoundError, SettingsError
from pfstorage.settings.loading import load_settings
from pfstorage.settings.state import MAX_PATH_DEPTH, StateTree
from tests.conftest import write_tree


def test_a_set_value_is_read_and_changes_the_settings() -> None:
    state = StateTree(Settings())
    state.set("/swift/container_name", "other")
    state.set("/this/verbosity", 2)
    state.set("/scratch/of/a/client", {"x": [1]})
    assert state.get("/swift/container_name") == state.settings.swift.container_name == "other"
    assert state.settings.verbosity == 2
    assert state.get("/scratch") == {"of": {"a": {"client": {"x": [1]}}}}
    assert state.get("/this/name") == "pfstorage"


def test_a_setting_that_is_not_valid_changes_nothing() -> None:
    state = StateTree(Settings())
    for var, value in [
        ("/swift/auth_url", "x"),
        ("/this/workers", 0),
        ("/swift", "text"),
        ("/this/type", "s3"),
    ]:
        with pytest.raises(SettingsError):
            state.set(var, value)
    assert state.settings == Settings()


def test_a_masked_secret_leaves_the_secret() -> None:
    state = StateTree(load_settings({"swift": {"key": "canary", "os_options": {"auth_token": "canary"}}})[0])
    shown = state.get("/swift")
    assert "canary" not in str(state.get("/"))
    state.set("/swift", {**shown, "username": "new"})
    assert (state.settings.swift.key, state.settings.swift.username) == ("canary", "new")


def test_a_value_is_replaced_at_each_depth() -> None:
    state = StateTree(Settings())
    state.set("/scratch/a", "testing")
    assert sorted(state.replace("testing", "new")) == ["/scratch/a", "/swift/key"]
    assert state.settings.swift.key == "new"
    assert state.replace("nowhere", "x") == []


@pytest.mark.parametrize("depth", [MAX_PATH_DEPTH + 1, 1000, 100_000])
def test_a_path_has_so_many_names_at_most(depth: int) -> None:
    state = StateTree(Settings())
    before = state.get("/")
    for call in (lambda: state.set("/a" * depth, 1), lambda: state.get("/a" * depth)):
        with pytest.raises(SettingsError, match="at most 16 names") as caught:
            call()
        assert len(str(caught.value)) < 200
    state.set("/a" * (MAX_PATH_DEPTH - 1), {"b": 1})
    assert state.get("/a" * (MAX_PATH_DEPTH - 1) + "/b") == 1
    for value in ({"b": {"c": 1}}, {"b": [1]}, [[1]]):
        with pytest.raises(SettingsError, match="at most 16 names"):
            state.set("/x" * (MAX_PATH_DEPTH - 1), value)
    assert {**state.get("/"), "a": None} == {**before, "a": None}


def test_a_node_that_is_not_there_is_not_found() -> None:
    for var in ("/nothing", "/swift/nothing", "/swift/key/below", "swift//nothing"):
        with pytest.raises(NotFoundError):
            StateTree(Settings()).get(var)


def test_the_next_message_uses_a_changed_setting(tmp_path: Path) -> None:
    write_tree(tmp_path, {"first/a": b"", "second/b": b""})
    with open_storage(type="filesystem", store_base="first") as storage:
        handler = StoreHandler(storage)
        change: dict[str, Any] = {"var": "/filesystem/store_base", "set": "second"}
        assert handler.run({"action": "ls"})["ls"] == [{"name": "a"}]
        assert handler.run({"action": "internalctl", "meta": change})["status"] is True
        assert handler.run({"action": "ls"})["ls"] == [{"name": "b"}]
        assert [row.key for row in storage.list()] == ["a"]
        handler.close()


def test_only_the_trusted_may_change_anything() -> None:
    handler = StoreHandler(settings=load_settings({"this": {"type": "memory"}})[0])
    stranger = RequestContext(Principal(is_trusted=False))
    for meta in ({"var": "/swift/key", "set": "x"}, {"var": "testing", "valueReplace": "x"}):
        reply = handler.run({"action": "internalctl", "meta": meta}, stranger)
        assert reply["error"]["type"] == "ForbiddenError"
    quit_order = {"meta": {"ctl": {"serverCmd": "quit"}}}
    assert handler.run(quit_order, stranger)["error"]["type"] == "ForbiddenError"
    assert handler.settings.swift.key == "testing"
    read = handler.run(
        {"action": "internalctl", "meta": {"var": "/swift/container_name", "get": "x"}}, stranger
    )
    assert read["status"] is True


def test_settings_may_change_while_messages_are_answered(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tree(tmp_path, {f"{name}/{number}": b"" for number in range(50)})
    handler = StoreHandler(
        settings=load_settings({"this": {"type": "filesystem"}, "filesystem": {"store_base": "a"}})[0]
    )
    wrong: list[Any] = []

    def list_often() -> None:
        for _ in range(20):
            reply = handler.run({"action": "ls"})
            if not reply["status"] or len(reply["ls"]) != 50:
                wrong.append(reply)

    threads = [threading.Thread(target=list_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(40):
        handler.state.set("/filesystem/store_base", "ab"[number % 2])
    for thread in threads:
        thread.join()
    handler.close()
    assert wrong == []


@pytest.mark.parametrize(
    ("var", "value"), [("/", "x"), ("/this", "text"), ("/this", 5), ("/this/args", []), ("/swift", 1)]
)
def test_a_tree_is_not_replaced_by_a_leaf(var: str, value: Any) -> None:
    state = StateTree(Settings())
    with pytest.raises(SettingsError):
        state.set(var, value)
    assert state.settings == Settings()
    assert state.get("/this/name") == "pfstorage"


def test_a_block_that_is_no_object_changes_nothing() -> None:
    state = StateTree(Settings(type="memory"))
    for block in ("this", "swift"):
        with pytest.raises(SettingsError, match=f"the settings block '{block}' must be an object"):
            state.set("/", {block: "x"})
    assert state.settings == Settings(type="memory")


def test_a_replacement_is_atomic() -> None:
    state = StateTree(Settings())
    state.set("/this/httpProxy", "users")
    with pytest.raises(SettingsError):
        state.replace("users", "b/d")
    assert (state.settings.http_proxy, state.settings.swift.container_name) == ("users", "users")


def test_other_settings_leave_the_store_open() -> None:
    handler = StoreHandler(settings=load_settings({"this": {"type": "memory"}})[0])
    before = handler.storage
    for var in ("/this/retries", "/this/workers", "/this/timeout", "/this/verbosity", "/swift/key"):
        handler.state.set(var, "7")
    assert handler.storage is before


def test_a_secret_of_the_wrong_type_is_not_repeated() -> None:
    handler = StoreHandler()
    reply = handler.run({"action": "internalctl", "meta": {"var": "/swift/key", "set": 12345678}})
    assert reply["msg"] == "settings, block 'swift': 'key' takes text"


def test_a_limit_beyond_all_stores_is_refused() -> None:
    with open_storage(type="memory") as storage:
        reply = StoreHandler(storage).run({"action": "ls", "meta": {"limit": 10**30}})
    assert reply["error"]["type"] == "MessageError"


def test_an_action_cannot_forge_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pfstorage")
    StoreHandler().run({"action": "ls\n2026 INFO all is well" + "x" * 1000})
    [record] = caplog.records
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 200
