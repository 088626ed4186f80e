"""The settings and the tokens of a server: at its start, and again on SIGHUP."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from pfstorage.server import program
from pfstorage.settings.model import Settings
from tests.conftest import Command
from tests.support.exchange import HELLO, answered, message, server_process
from tests.support.operations import CMD, STORE


def test_a_start_that_may_succeed_later_fails_with_its_own_exit_status(
    tmp_path: Path, command: Command
) -> None:
    flags = (*STORE, "--forever", "--stateDir", "state")
    with server_process(tmp_path, *flags):
        done = command("--server", "--portSelf", "0", *flags)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "--stateDir: another pfstorage uses the state directory" in done.stderr


def test_the_tokens_are_read_again_on_sighup(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("0123456789abcdef-one\n")
    tokens.chmod(0o600)
    flags = ("--forever", "--enableTokenAuth", "--tokenPath", str(tokens))
    with server_process(tmp_path, *STORE, *flags) as served:

        def status(token: str) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
            with contextlib.closing(connection):
                connection.request("POST", CMD, json.dumps(HELLO), {"Authorization": f"Bearer {token}"})
                return connection.getresponse().status

        assert (status("0123456789abcdef-one"), status("0123456789abcdef-two")) == (200, 401)
        tokens.write_text("0123456789abcdef-two\n")
        served.process.send_signal(signal.SIGHUP)
        served.wait_for_output("the tokens have changed: 1 are known")
        assert (status("0123456789abcdef-one"), status("0123456789abcdef-two")) == (401, 200)


@pytest.mark.parametrize("title", ["[TOKEN RIGHT]", "[token rights]"])
def test_a_typo_in_the_tokens_gives_nobody_more_rights(tmp_path: Path, command: Command, title: str) -> None:
    tokens, token = tmp_path / "tokens.cfg", "0123456789abcdef-one"
    good = f"[AUTH TOKENS]\nann = {token}\n[TOKEN RIGHTS]\nann = read\n"
    tokens.touch(0o600)
    tokens.write_text(good)
    flags = (*STORE, "--forever", "--enableTokenAuth", "--tokenPath", str(tokens))
    with server_process(tmp_path, *flags) as served:

        def status(action: str, **meta: Any) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
            with contextlib.closing(connection):
                connection.request("POST", CMD, message(action, **meta), {"Authorization": f"Bearer {token}"})
                return connection.getresponse().status

        tokens.write_text(good.replace("[TOKEN RIGHTS]", title))
        served.process.send_signal(signal.SIGHUP)
        served.wait_for_output("the previous tokens stay valid: ")
        for _ in range(3):
            assert status("objExists", obj="a") in (200, 404)
            assert status("objPut", putSpec="tokens.cfg") == 403
            assert status("internalctl", var="/this/workers", set=3) == 403
        served.process.send_signal(signal.SIGTERM)
        said = served.ends()[1]
    warnings = [line for line in said.splitlines() if "the previous tokens stay valid" in line]
    assert len(warnings) == 1
    assert "line 3: an unknown section: use [AUTH TOKENS] and [TOKEN RIGHTS], in capitals" in warnings[0]
    assert token not in said
    done = command("--server", "--portSelf", "0", *flags)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "line 3: an unknown section" in done.stderr
    assert token not in done.stderr


def test_a_store_that_does_not_exist_yet_is_reported(tmp_path: Path) -> None:
    with server_process(tmp_path, *STORE, "--forever") as served:
        served.process.send_signal(signal.SIGHUP)
        served.wait_for_output("serves store (which the first upload creates)")


@pytest.mark.parametrize(("key", "is_reported"), [("a-key-of-ours", True), (None, False)])
def test_a_world_readable_configuration_with_a_key_is_reported(
    tmp_path: Path, key: str | None, is_reported: bool
) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"swift": {"key": key} if key else {}}))
    (tmp_path / "settings.json").chmod(0o644)
    with server_process(tmp_path, "--forever", "--configFileLoad", "settings.json") as served:
        served.process.send_signal(signal.SIGTERM)
        said = served.ends()[1]
    assert ("any user of this host can read --configFileLoad" in said) is is_reported


def test_sighup_loads_valid_settings(tmp_path: Path) -> None:
    settings, key = tmp_path / "settings.json", tmp_path / "key"
    settings.write_text('{"swift": {"container_name": "first"}}')
    key.touch(0o600)
    key.write_text("one")
    flags = ("--forever", "--configFileLoad", str(settings), "--swiftKey", f"@{key}")
    with server_process(tmp_path, *flags) as served:

        def state(var: str) -> Any:
            return answered(served.port, "internalctl", var=f"/swift/{var}", get="value")[1]["d_ret"][
                f"/swift/{var}"
            ]

        def hung_up(then: str) -> None:
            served.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 20
            while state("container_name") != then and time.monotonic() < deadline:
                time.sleep(0.01)

        assert state("container_name") == "first"
        key.chmod(0o644)
        settings.write_text('{"swift": {"container_name": "second"}, "this": {"portSelf": "7777"}}')
        hung_up("second")
        assert state("container_name") == "second"
        settings.write_text('{"swift": {"container_name": 7')
        served.process.send_signal(signal.SIGHUP)
        served.wait_for_output("is not JSON")
        settings.write_text('{"swift": {"container_name": "third"}}')
        key.write_text(" \n")
        served.process.send_signal(signal.SIGHUP)
        served.wait_for_output("the old settings stay in use: --swiftKey: the secret is empty")
        key.unlink()
        served.process.send_signal(signal.SIGHUP)
        served.wait_for_output("No such file")
        assert state("container_name") == "second"
        served.process.send_signal(signal.SIGTERM)
        _, said = served.ends()
    assert "reloaded the settings" in said
    assert "serves the container 'second' of" in said
    assert f"any user of this host can read --swiftKey '{key}'" in said
    assert "no more requests are accepted" in said
    assert re.search("the old settings stay in use: --swiftKey: .* No such file", said)


def test_sighup_names_the_settings_that_need_a_restart(tmp_path: Path) -> None:
    settings, tokens = tmp_path / "settings.json", tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text("0123456789abcdef-one\n")
    block: dict[str, Any] = {"maxRows": 7, "maxUpload": "1K", "logFormat": "text"}
    settings.write_text(json.dumps({"server": block}))
    flags = (*STORE, "--forever", "--maxJobs", "2", "--configFileLoad", "settings.json")
    with server_process(tmp_path, *flags) as served:

        def reload(server: dict[str, Any], wait_for: str, **blocks: Any) -> None:
            settings.write_text(json.dumps({"server": server, **blocks}))
            served.process.send_signal(signal.SIGHUP)
            served.wait_for_output(wait_for)

        reload({**block, "maxUpload": 1024, "maxJobs": 3}, "reloaded the settings")
        changed = {"maxRows": 8, "maxUpload": "1K", "enableTokenAuth": True, "tokenPath": "tokens"}
        reload(changed, "restart only: server.tokenPath, server.maxRows\n")
        reload({"tokenPath": "tokens"}, "the old settings stay in use: --tokenPath needs --enableTokenAuth")
        served.process.send_signal(signal.SIGTERM)
        said = served.ends()[1]
    [warning] = [line for line in said.splitlines() if "after a restart only" in line]
    assert "WARNING" in warning
    assert program._changed_address(Settings(), Settings(port_self=1, ip_self="::1")) == [
        "this.ipSelf",
        "this.portSelf",
    ]
    assert program._changed_address(Settings(), Settings(workers=5)) == []
