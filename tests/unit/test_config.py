"""The sources of settings, their order, and the redaction of secrets."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pfstorage.backends.http.errors import Mistake
from pfstorage.backends.http.routes import MAX_CERTIFICATES, trusting
from pfstorage.cli.flags import build_parser
from pfstorage.errors import SettingsError
from pfstorage.server.options import ServerOptions
from pfstorage.settings.flag import Flag
from pfstorage.settings.flags import FLAGS, SERVER_FLAGS
from pfstorage.settings.loading import load_settings
from pfstorage.settings.model import Settings, size_of, to_document
from pfstorage.settings.redaction import MASK
from pfstorage.settings.sources import from_environment, from_flags, read_settings_file
from pfstorage.settings.state import StateTree
from pfstorage.settings.values import MAX_FILE


def load(*documents: Any) -> Settings:
    return load_settings(*documents)[0]


def test_the_defaults_are_those_of_2_x_on_this_host() -> None:
    settings, warnings = load_settings()
    assert warnings == []
    assert settings.type == "swift"
    assert settings.swift.auth_url == "http://127.0.0.1:8080/auth/v1.0"
    assert (settings.swift.username, settings.swift.key) == ("chris:chris1234", "testing")
    assert settings.swift.container_name == "users"
    assert (settings.ip_self, settings.port_self, settings.verbosity) == ("127.0.0.1", 4055, 1)


def test_flags_win_over_the_environment_which_wins_over_the_file() -> None:
    file = {"this": {"workers": 3, "retries": 7}, "swift": {"username": "file", "container_name": "file"}}
    environ = {"SWIFT_USERNAME": "environ", "SWIFT_CONTAINER_NAME": "environ"}
    flags = {"swiftContainer": "flag", "workers": 5, "timeout": None, "swiftUsername": ""}
    settings = load(file, from_environment(environ), from_flags(flags, environ))
    assert (settings.retries, settings.workers) == (7, 5)
    assert (settings.swift.username, settings.swift.container_name) == ("environ", "flag")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"SWIFT_AUTH_URL": "http://a/1", "SWIFT_USERNAME": "u", "SWIFT_KEY": "k"},
            ("http://a/1", "u", "k", "1"),
        ),
        ({"ST_AUTH": "http://a/1", "ST_USER": "u", "ST_KEY": "k"}, ("http://a/1", "u", "k", "1")),
        (
            {"OS_AUTH_URL": "http://a/v3", "OS_USERNAME": "u", "OS_PASSWORD": "k"},
            ("http://a/v3", "u", "k", "3"),
        ),
        (
            {
                "OS_AUTH_URL": "http://a/v3",
                "OS_USERNAME": "u",
                "OS_PASSWORD": "k",
                "OS_IDENTITY_API_VERSION": "2",
            },
            ("http://a/v3", "u", "k", "2"),
        ),
        ({"ST_USER": "u", "OS_USERNAME": "other"}, ("http://127.0.0.1:8080/auth/v1.0", "u", "testing", "1")),
        ({"HOST_IP": "10.1.2.3"}, ("http://10.1.2.3:8080/auth/v1.0", "chris:chris1234", "testing", "1")),
    ],
)
def test_the_environment_names_of_the_field_are_read(
    environ: dict[str, str], expected: tuple[str, ...]
) -> None:
    swift = load(from_environment(environ)).swift
    assert (swift.auth_url, swift.username, swift.key, swift.auth_version) == expected


def test_keystone_gets_its_options_by_swiftclients_names() -> None:
    environ = {
        "OS_AUTH_URL": "http://a/v3",
        "OS_PROJECT_NAME": "p",
        "OS_STORAGE_URL": "http://s",
        "OS_REGION_NAME": "",
    }
    swift = load(from_environment(environ)).swift
    assert swift.os_options == {"project_name": "p", "object_storage_url": "http://s"}


@pytest.mark.parametrize(
    ("flags", "auth_url"),
    [
        ({"ipSwift": "localhost", "portSwift": "80"}, "http://localhost:80/auth/v1.0"),
        ({"ipSwift": "::1"}, "http://[::1]:8080/auth/v1.0"),
        ({"portSwift": 81}, "http://10.0.0.9:81/auth/v1.0"),
        ({"swiftAuthUrl": "https://a/b", "ipSwift": "c"}, "https://a/b"),
    ],
)
def test_the_address_of_swift_comes_from_its_flags(flags: dict[str, Any], auth_url: str) -> None:
    assert load(from_flags(flags, {"HOST_IP": "10.0.0.9"})).swift.auth_url == auth_url


def test_host_ip_is_where_the_server_listens() -> None:
    assert load(from_environment({"HOST_IP": "10.1.2.3"})).ip_self == "10.1.2.3"


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"this": {"type": "s3"}}, "there is no backend 's3'; --type takes one of swift, filesystem, memory"),
        ({"this": {"type": "filesystem"}}, "needs --storeBase"),
        ({"this": {"workers": 0}}, "workers must be between"),
        ({"this": {"workers": "many"}}, "workers must be a number, or auto"),
        ({"this": {"workers": True}}, "workers must be a number, or auto"),
        ({"this": {"timeout": "nan"}}, "timeout must be between"),
        ({"this": {"timeout": []}}, "'timeout' takes a number"),
        ({"this": {"portSelf": 70000}}, "portSelf must be between"),
        ({"this": {"workers": 257}}, "workers must be between"),
        ({"this": {"workers": "1.5"}}, "workers must be a number, or auto"),
        ({"this": {"segmentSize": "1K"}}, "segmentSize must be between 65536 and"),
        ({"this": {"rangeSize": "2000T"}}, "rangeSize must be between"),
        ({"this": {"workers": "1" * 5000}}, "workers must be a number, or auto"),
        ({"this": {"workers": "\u0663"}}, "workers must be a number, or auto"),
        ({"this": {"segmentSize": "9" * 5000}}, "segmentSize: a size is bytes"),
        ({"this": {"bwLimit": "9" * 400 + "T"}}, "bwLimit: a size is bytes"),
        ({"this": {"minRate": 10**300}}, "minRate: a size is bytes"),
        ({"this": {"segmentSize": "large"}}, "segmentSize: a size is bytes, or a number with K, M, G or T"),
        ({"this": {"bwLimit": "-1"}}, "bwLimit: a size is bytes"),
        ({"this": {"bwLimit": 1.5}}, "'bwLimit' takes int or str"),
        ({"this": {"durable": "sometimes"}}, "durable must be one of none, file, batch"),
        ({"this": []}, "must be an object"),
        ({"swift": {"auth_url": "localhost"}}, "must be a URL"),
        ({"swift": {"auth_url": "http://host:port/"}}, "must be a URL"),
        ({"swift": {"container_name": "a/b"}}, "without '/'"),
        ({"swift": {"auto_create_container": "perhaps"}}, "true or false"),
        ({"swift": {"os_options": "x"}}, "takes an object"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(document: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        load(document)


@pytest.mark.parametrize(
    ("workers", "count"), [("auto", 0), (1, 1), ("7", 7), (256, 256), ("256", 256), (None, 0)]
)
def test_workers_are_a_number_or_auto(workers: object, count: int) -> None:
    assert load({"this": {"workers": workers}}).worker_count == count
    assert load(from_flags({"workers": workers}, {})).worker_count == count


@pytest.mark.parametrize(
    ("text", "size"),
    [("65536", 65536), (65536, 65536), ("64K", 65536), ("1.5 MiB", 1572864), ("2gb", 2**31), ("1T", 2**40)],
)
def test_a_size_is_bytes_or_has_a_unit_of_1024(text: object, size: int) -> None:
    flags = {"segmentSize": text, "rangeSize": text, "bwLimit": text}
    settings = load(from_flags(flags, {}))
    sizes = (settings.segment_size, settings.range_size, settings.bw_limit)
    assert [size_of(each) for each in sizes] == [size, size, size]
    assert load(to_document(settings)) == settings


def test_unknown_settings_are_warned_of_and_those_of_2_x_are_not() -> None:
    old = {"this": {"name": "x", "args": {}, "colorize": False, "verbosity": 2, "colour": "red"}}
    settings, warnings = load_settings(old)
    assert settings.verbosity == 2
    assert warnings == ["the setting this.colour is not known and was left out"]


@pytest.mark.parametrize(
    ("document", "text"),
    [
        (
            {"server": {"enabletokenauth": True}},
            "'server.enabletokenauth' is unknown: it is called server.enableT",
        ),
        ({"server": {"token-path": "t"}}, "'server.token-path' is unknown: it is called server.tokenPath"),
        ({"server": {"fsRoots": ["b"]}}, "'server.fsRoots' is unknown: did you mean server.fsRoot?"),
        (
            {"server": {"enableTokens": 1}},
            "'server.enableTokens' is unknown: did you mean server.enableTokenAuth?",
        ),
        ({"server": {"zzz": 1}}, "'server.zzz' is unknown: remove it"),
        ({"this": {"tokenpath": "t"}}, "'this.tokenpath' is unknown: it is called server.tokenPath"),
        ({"this": {"bwlimit": "1M"}}, "'this.bwlimit' is unknown: it is called this.bwLimit"),
        (
            {"swift": {"containerName": "c"}},
            "'swift.containerName' is unknown: it is called swift.container_name",
        ),
        ({"Server": {}}, "block 'Server' is unknown: did you mean 'server'?"),
        ({"severs": {}}, "block 'severs' is unknown: did you mean 'server'?"),
        (
            {"enableTokenAuth": True},
            "'enableTokenAuth' is outside of its block: it is called server.enableTokenAuth",
        ),
        ({"s3": {}}, "block 's3' is unknown: use this, swift, filesystem, memory, server, or remove it"),
        ({"zzz": []}, "block 'zzz' is unknown"),
    ],
)
def test_a_name_that_may_be_a_mistake_for_a_setting_is_refused(document: dict[str, Any], text: str) -> None:
    Path("settings.json").write_text(json.dumps(document))
    with pytest.raises(SettingsError, match=re.escape(text)):
        load(document)
    with pytest.raises(SettingsError, match=re.escape(text)):
        ServerOptions.from_args({"str_configFileLoad": "settings.json"})


def test_a_message_cannot_set_a_misspelt_setting() -> None:
    state = StateTree(Settings())
    for path in ("/this/bwlimit", "/swift/containerName"):
        with pytest.raises(SettingsError, match="is unknown: it is called"):
            state.set(path, "1")
    state.set("/this/colour", "red")
    assert state.settings == Settings()


def test_a_name_that_a_file_has_twice_is_refused() -> None:
    Path("settings.json").write_text('{"server": {"tokenPath": "t", "enableTokenAuth": true}, "server": {}}')
    with pytest.raises(SettingsError, match="the name 'server' is there twice in one object"):
        read_settings_file(Path("settings.json"))


def test_the_well_known_credentials_are_warned_of_unless_the_host_is_this_one() -> None:
    away = {"swift": {"auth_url": "http://swift.example/auth/v1.0"}}
    assert "well-known" in load_settings(away)[1][0]
    assert load_settings({"swift": {"auth_url": "http://127.9.9.9/auth/v1.0"}})[1] == []
    assert load_settings({"swift": {**away["swift"], "key": "own"}})[1] == []


def test_no_repr_and_no_document_shows_a_secret() -> None:
    secrets = {"key": "canary-key", "os_options": {"auth_token": "canary-token", "project_name": "p"}}
    settings = load({"swift": secrets})
    shown = repr(settings) + json.dumps(to_document(settings))
    assert "canary" not in shown
    assert MASK in shown
    assert settings.secrets() == {"canary-key", "canary-token"}


def test_saved_settings_load_unchanged() -> None:
    settings = load({"this": {"workers": 3, "type": "filesystem"}, "filesystem": {"store_base": "d"}})
    assert load(to_document(settings, with_secrets=True)) == settings
    assert load(to_document(settings)) == settings  # a masked secret leaves the default


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", None])
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "settings.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"settings\.json"):
        read_settings_file(path)


@pytest.mark.parametrize(
    "flag", [flag for flag in FLAGS if flag.kind != "switch"], ids=lambda flag: flag.name
)
def test_an_empty_value_of_a_flag_is_refused(flag: Flag, capsys: pytest.CaptureFixture[str]) -> None:
    parser, given = build_parser(), [f"--{flag.name}", ""]
    if flag.name == "msg":  # a client gets a reply to an empty message, too
        assert parser.parse_args(given).msg == ""
        return
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(given)
    assert caught.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"--{flag.name}" in line


def test_a_configuration_file_has_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(b"{}".ljust(MAX_FILE))
    assert read_settings_file(path) == {}
    path.write_bytes(b"{}".ljust(MAX_FILE + 1))
    with pytest.raises(SettingsError, match=r"settings\.json': it is longer than 1048576 bytes"):
        read_settings_file(path)


def test_the_files_of_tls_have_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(b"#" * (MAX_FILE + 1))
    with pytest.raises(SettingsError, match=r"key\.pem': it is longer than 1048576 bytes"):
        ServerOptions(tls_cert=str(path), tls_key=str(path)).tls_context()


def test_a_file_of_certificates_has_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "authorities.pem"
    path.touch()
    os.truncate(path, MAX_CERTIFICATES + 1)
    with pytest.raises(Mistake, match=r"authorities\.pem' can't be read: it is longer than 16777216 bytes"):
        trusting(str(path), False, {})


def options_of(*flags: str, **server: Any) -> ServerOptions:
    Path("settings.json").write_text(json.dumps({"server": server}))
    args = vars(build_parser().parse_args(["--configFileLoad", "settings.json", *flags]))
    return ServerOptions.from_args(args)


def test_a_configuration_file_sets_the_options_of_the_server() -> None:
    block: dict[str, Any] = {"tokenPath": "tokens", "enableTokenAuth": True, "fsRoot": ["a", "b"]}
    block |= {"stateDir": "jobs", "maxUpload": "64M", "maxSpool": 5, "maxRows": 7, "repairState": True}
    block |= {"allowHost": "one", "maxStreamSeconds": 9, "logFormat": "json", "graceSeconds": None}
    options = options_of(**block)
    assert (options.token_path, options.fs_roots, options.state_dir) == ("tokens", ("a", "b"), "jobs")
    assert (options.max_upload, options.max_spool, options.max_rows) == (64 * 2**20, 5, 7)
    assert (options.allow_hosts, options.stream_seconds, options.log_format) == (("one",), 9, "json")
    assert (options.repair_state, options.grace_seconds) == (True, ServerOptions().grace_seconds)


def test_a_flag_of_the_server_wins_over_the_configuration_file() -> None:
    options = options_of("--fsRoot", "flag", "--maxRows", "3", fsRoot=["file"], maxRows=7, maxJobs=2)
    assert (options.fs_roots, options.max_rows, options.max_jobs) == (("flag",), 3, 2)


def test_every_flag_of_the_server_has_a_place_in_its_options() -> None:
    values: dict[str, Any] = {"switch": True, "texts": ["name"], "count": 5, "size": "5M", "text": "text"}
    own = {"corsOrigin": ["http://a.org"], "logFormat": "json"}
    block = {flag.key: own.get(flag.key, values[flag.kind]) for flag in SERVER_FLAGS}
    options, before = vars(options_of(**block)), vars(ServerOptions())
    assert len([name for name in before if options[name] != before[name]]) == len(SERVER_FLAGS) - 1


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"maxRows": "many"}, "'maxRows' takes a whole number"),
        ({"maxRows": -1}, "'maxRows' takes a number from 1 to 999999"),
        ({"fsRoot": [5]}, "'fsRoot' takes a list of texts"),
        ({"maxUpload": "large"}, "--maxUpload: a size is bytes"),
        ({"logFormat": "xml"}, "'logFormat' takes text or json"),
        ({"enableTokenAuth": "perhaps"}, "'enableTokenAuth' takes true or false"),
        ({"enableTokenAuth": True}, "--enableTokenAuth needs --tokenPath"),
        ({"tokenPath": "tokens"}, "--tokenPath needs --enableTokenAuth"),
        ({"tlsCert": "cert.pem"}, "--tlsCert and --tlsKey need each other"),
        ({"corsOrigin": "*"}, "--corsOrigin "),
        ({"tlsCert": "", "tlsKey": ""}, "the setting server.tlsCert is empty: set it, or remove it"),
        ({"fsRoot": []}, "the setting server.fsRoot is empty"),
        ({"fsRoot": ["a", ""]}, "the setting server.fsRoot is empty"),
    ],
)
def test_a_wrong_option_of_the_server_is_refused(block: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        options_of(**block)


@pytest.mark.parametrize(
    ("load_with", "text"),
    [
        (lambda url: load({"this": {"httpProxy": url}}), "httpProxy: "),
        (lambda url: load({"swift": {"auth_url": url}}), "swift.auth_url must be a URL"),
        (lambda url: load(from_flags({"ipSwift": url}, {})), "swift.auth_url must be a URL"),
        (lambda url: load(from_environment({"HOST_IP": url})), "swift.auth_url must be a URL"),
        (lambda url: options_of(corsOrigin=url), "--corsOrigin "),
        (lambda url: options_of(allowHost=url), "--allowHost "),
    ],
)
@pytest.mark.parametrize(
    "url", ["http://user:SEC/RET@host:1", "user:SEC://RET@host:1", "https://user:SECRET#@host:1"]
)
def test_an_error_about_an_address_has_no_password(
    load_with: Callable[[str], object], text: str, url: str
) -> None:
    with pytest.raises(SettingsError, match=text) as caught:
        load_with(url)
    assert not any(part in str(caught.value) for part in ("SEC", "RET", "user"))


def test_a_block_of_the_server_that_is_no_object_is_refused() -> None:
    Path("settings.json").write_text('{"server": []}')
    with pytest.raises(SettingsError, match="the settings block 'server' must be an object"):
        ServerOptions.from_args({"str_configFileLoad": "settings.json"})
