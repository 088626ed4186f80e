"""Input text may have a byte order mark or an encoding of Windows, and secrets lose their final line end."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.errors import SettingsError
from pfstorage.server.tokens import TokenFile
from pfstorage.settings.loading import load_settings
from pfstorage.settings.sources import from_environment, from_flags, read_settings_file
from pfstorage.settings.values import read_secret
from pfstorage.wire.decoding import decoded
from pfstorage.wire.message import Message
from tests.conftest import Command, make_certificate, serving, write_tree
from tests.support.exchange import answer, post, request

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
STORE = ("--type", "filesystem", "--storeBase", "store")
LS = '{"action": "ls", "meta": {"path": "s/"}}'
KEY = "sécret-ключ"
TOKEN = "a-token-of-more-than-16-characters"
ENDS = ("", "\n", "\r\n")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_text_is_the_same_in_each_encoding(encoding: str) -> None:
    for text in ("", "{}", "[1]", LS, "1", "a secret"):
        assert decoded(text.encode(encoding)) == text


def test_bytes_in_no_known_encoding_are_an_error() -> None:
    for data in (b"\xe9t\xe9 in latin-1", codecs.BOM_UTF16_LE + b"a"):
        with pytest.raises(UnicodeDecodeError):
            decoded(data)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_way_to_pass_a_message_to_the_command_line_accepts_it(
    command: Command, tmp_path: Path, encoding: str
) -> None:
    write_tree(tmp_path, {"store/s/é": b"x", "message": LS.encode(encoding)})
    settings = {"this": {"type": "filesystem"}, "filesystem": {"store_base": "store"}}
    (tmp_path / "settings").write_bytes(json.dumps(settings).encode(encoding))
    program = [sys.executable, "-m", "pfstorage", *STORE, "--msg", "-"]
    stdin = subprocess.run(program, input=LS.encode(encoding), stdout=subprocess.PIPE, env={**os.environ})
    replies = [
        command(*STORE, "--msg", "@message").stdout,
        command("--configFileLoad", "settings", "--msg", LS).stdout,
        command(*STORE, "--msg", "\ufeff" + LS).stdout,
        command(*STORE, "--action", "ls", "--args", '\ufeff{"path": "s/"}').stdout,
        stdin.stdout.decode(),
    ]
    assert [json.loads(reply)["ls"] for reply in replies] == [[{"name": "s/é"}]] * 5


def test_text_in_no_known_encoding_is_one_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b'{"action": "\xe9"}')
    for flags in (
        ("--msg", "@file"),
        ("--configFileLoad", "file", "--test"),
        ("--swiftKey", "@file", "--test"),
    ):
        done = command(*flags)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert "UTF-8" in done.stdout + done.stderr or "not JSON" in done.stderr


def key_of(*documents: Any) -> str:
    return str(load_settings(*documents)[0].swift.key)


@pytest.mark.parametrize("end", ENDS, ids=repr)
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "mark"])
def test_a_secret_is_the_same_from_each_source(tmp_path: Path, mark: str, end: str) -> None:
    given = mark + KEY + end
    (tmp_path / "key").write_text(given, newline="")
    (tmp_path / "conf").write_text(json.dumps({"swift": {"key": given}}))
    assert read_secret("--swiftKey", "@key") == read_secret("--swiftKey", given) == KEY
    assert key_of(read_settings_file(tmp_path / "conf")) == KEY
    assert key_of(from_flags({"swiftKey": given}, {})) == KEY
    for name in ("SWIFT_KEY", "ST_KEY", "OS_PASSWORD"):
        assert key_of(from_environment({name: given, "SWIFT_AUTH_URL": ""})) == KEY
    secrets = load_settings(from_environment({"OS_AUTH_TOKEN": given, "OS_STORAGE_URL": f"http://h{end}"}))[0]
    assert secrets.swift.os_options == {"auth_token": KEY, "object_storage_url": "http://h"}
    with open_storage("swift", key=given) as storage:
        assert storage.settings.swift.key == KEY
        handler = StoreHandler(storage)
        handler.run({"action": "internalctl", "meta": {"var": "/swift/key", "set": given}})
        assert handler.settings.swift.key == KEY


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ENDS[1:], ids=repr)
def test_a_file_of_a_secret_is_taken_in_each_encoding(tmp_path: Path, encoding: str, end: str) -> None:
    (tmp_path / "key").write_bytes(f"{KEY}{end}".encode(encoding))
    assert read_secret("--authToken", "@key") == KEY


@pytest.mark.parametrize("end", ENDS[1:], ids=repr)
@pytest.mark.parametrize("name", ["tokens", "t.cfg"])
def test_a_file_of_tokens_is_taken_with_a_mark_and_refused_in_utf_16(
    tmp_path: Path, end: str, name: str
) -> None:
    head = f"[AUTH TOKENS]{end}ann = " if name == "t.cfg" else f"# ours{end}"
    (tmp_path / name).touch(0o600)
    (tmp_path / name).write_bytes(f"{head}{TOKEN}{end}".encode("utf-8-sig"))
    assert TokenFile(str(tmp_path / name)).grant(f"Bearer {TOKEN}").permissions.allows("write")
    (tmp_path / name).write_bytes(f"{head}{TOKEN}{end}".encode("utf-16"))
    with pytest.raises(SettingsError, match="it is not UTF-8"):
        TokenFile(str(tmp_path / name))


def test_other_variables_lose_their_line_end_as_well() -> None:
    environ = {
        "SWIFT_AUTH_URL": "http://h/auth\r\n",
        "SWIFT_USERNAME": "ann\n",
        "SWIFT_CONTAINER_NAME": "c\n",
    }
    swift = load_settings(from_environment(environ))[0].swift
    assert (swift.auth_url, swift.username, swift.container_name) == ("http://h/auth", "ann", "c")
    written = {
        "swift": {"auth_url": "http://h/auth\n", "container_name": "c\r\n"},
        "this": {"httpProxy": "u:p@h:80\r\n"},
    }
    settings = load_settings(written)[0]
    assert (settings.swift.auth_url, settings.http_proxy) == ("http://h/auth", "u:p@h:80")
    assert settings.swift.container_name == "c"
    assert from_environment({"HOST_IP": "\ufeff\n"}) == from_environment({})


def test_a_server_takes_a_mark_and_says_that_utf_16_is_none() -> None:
    with open_storage("memory") as storage, serving(StoreHandler(storage)) as server:
        text = '{"action": "hello", "meta": {"askAbout": "echoBack", "echoBack": "é=ü"}}'
        assert answer(server.server_port, post(text.encode("utf-8-sig"))).json["status"] is True
        refused = answer(server.server_port, post(text.encode("utf-16")))
        assert (refused.status, refused.json["msg"]) == (400, "the message is not UTF-8: byte 0")


def test_a_server_takes_a_mark_in_a_form_and_in_a_query() -> None:
    with open_storage("memory") as storage, serving(StoreHandler(storage)) as server:
        text = '\ufeff{"action": "hello", "meta": {"askAbout": "timestamp"}}'
        boundary, line = "b", "\r\n"
        parts = (
            f"--{boundary}",
            'Content-Disposition: form-data; name="d_msg"',
            "",
            text,
            f"--{boundary}--",
            "",
        )
        body = line.join(parts).encode()
        form = post(body, f"Content-Type: multipart/form-data; boundary={boundary}")
        meta = quote('\ufeff{"askAbout": "timestamp"}')
        query = request("GET", f"/api/v1/cmd?action=hello&meta={meta}")
        for sent in (form, query, post("\ufeffaction=hello&meta[askAbout]=timestamp")):
            assert answer(server.server_port, sent).json["status"] is True


def test_python_takes_bytes_and_a_mark() -> None:
    for source in (LS.encode("utf-16"), LS.encode("utf-8-sig"), "\ufeff" + LS):
        assert Message.parse(source).meta == {"path": "s/"}


def test_a_certificate_with_a_mark_is_an_error_that_says_so(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    for path in (cert, key):
        text = Path(path).read_text()
        for encoding in ("utf-8-sig", "utf-16"):
            Path(path).write_text(text, encoding=encoding)
            program = [
                sys.executable,
                "-m",
                "pfstorage",
                "--server",
                "--type",
                "memory",
                "--tlsCert",
                cert,
                "--tlsKey",
                key,
            ]
            done = subprocess.run(program, capture_output=True, text=True)
            assert done.returncode == 2
            assert f"{path!r} begins with a byte order mark" in done.stderr
        Path(path).write_text(text)


def test_a_message_comes_whole_from_a_stdin_that_does_not_block(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    program = [sys.executable, "-m", "pfstorage", "--type", "memory", "--msg", "-"]
    with subprocess.Popen(program, stdin=reader, stdout=subprocess.PIPE) as process:
        os.close(reader)
        with contextlib.closing(os.fdopen(writer, "wb", buffering=0)) as sink:
            names = [f"{number:06}" for number in range(50_000)]
            text = json.dumps(
                {"action": "objPut", "meta": {"fileList": names, "dryRun": True, "reply": "summary"}}
            )
            for start in range(0, len(text), 100_000):
                sink.write(text[start : start + 100_000].encode())
        said, _ = process.communicate(timeout=60)
    assert json.loads(said)["failedCount"] == 50_000
