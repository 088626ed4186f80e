"""The command line: its flags, its exit statuses, and its stdout, which has only the reply."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Command, write_tree
from tests.support.waiting import ENDS

STORE = ("--type", "filesystem", "--storeBase", "store")
LS = '{"action": "ls", "meta": {"path": ""}}'


@pytest.fixture
def filled(command: Command, tmp_path: Path) -> Command:
    """The command, in a directory with a store that holds ``s/a.txt``."""
    write_tree(tmp_path, {"store/s/a.txt": b"content"})
    return command


def test_stdout_is_the_reply_and_nothing_else(filled: Command) -> None:
    for verbosity in ("0", "1", "2"):
        done = filled(*STORE, "--msg", LS, "--verbosity", verbosity)
        assert json.loads(done.stdout) == {"status": True, "ls": [{"name": "s/a.txt"}]}
        assert done.stdout == json.dumps(json.loads(done.stdout), indent=4) + "\n"
        assert done.returncode == 0


def test_verbosity_decides_the_lines_on_stderr(filled: Command) -> None:
    said = [filled(*STORE, "--msg", LS, "-v", level).stderr for level in ("0", "1", "2")]
    assert said[0] == ""
    assert "ls: done" in said[1]
    meta = '{"fromLocation": "s", "mapLocationOver": "out"}'
    received = filled(*STORE, "--action", "objPull", "--args", meta, "-v", "2").stderr
    assert "'s/a.txt', 'out/a.txt': 7 bytes" in received


def test_stderr_names_no_file_at_low_verbosity(filled: Command) -> None:
    meta = '{"fromLocation": "s", "mapLocationOver": "out/patient-name"}'
    assert "a.txt" not in filled(*STORE, "--action", "objPull", "--args", meta).stderr
    assert "patient" not in filled(*STORE, "--action", "objPull", "--args", meta).stderr


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        ((*STORE, "--msg", LS), 0),
        ((*STORE, "--msg", '{"action": "ls", "meta": {"path": "nothing"}}'), 1),
        ((*STORE, "--msg", '{"action": "objStat", "meta": {"obj": "nothing"}}'), 1),
        (("--type", "filesystem", "--storeBase", "missing", "--msg", LS), 1),
        ((*STORE, "--msg", "not json"), 2),
        ((*STORE, "--msg", "[]"), 2),
        ((*STORE, "--msg", '{"action": "fly"}'), 2),
        ((*STORE, "--msg", '{"action": "ls", "meta": {"path": 5}}'), 2),
        ((*STORE, "--action", "ls", "--args", "{"), 2),
        ((*STORE, "--args", "{}"), 2),
        ((*STORE,), 2),
        (("--type", "s3", "--msg", LS), 2),
        (("--type", "filesystem", "--msg", LS), 2),
        ((*STORE, "--workers", "0", "--msg", LS), 2),
        ((*STORE, "--workers", "x", "--msg", LS), 2),
        ((*STORE, "--workers", "auto", "--msg", LS), 0),
        ((*STORE, "--durable", "batch", "--bwLimit", "50M", "--segmentSize", "2g", "--msg", LS), 0),
        ((*STORE, "--durable", "sometimes", "--msg", LS), 2),
        ((*STORE, "--bwLimit", "fast", "--msg", LS), 2),
        ((*STORE, "--segmentSize", "1K", "--msg", LS), 2),
        (
            (
                *STORE,
                "--action",
                "objVerify",
                "--args",
                '{"fromLocation": "s", "mapLocationOver": "store/s"}',
            ),
            0,
        ),
        ((*STORE, "--action", "objVerify", "--args", '{"fromLocation": "s", "mapLocationOver": "out"}'), 1),
        ((*STORE, "--action", "objPull", "--args", '{"path": "s", "overwrite": "sometimes"}'), 2),
        ((*STORE, "--flag", "--msg", LS), 2),
        ((*STORE, "--msg", "@missing.json"), 2),
        (("--configFileLoad", "missing.json", "--msg", LS), 2),
        (("--version",), 0),
        (("--desc",), 0),
        (("-x",), 0),
        (("--synopsis",), 0),
        (("-y",), 0),
        (("--help",), 0),
        (("--test", "--type", "memory"), 0),
    ],
)
def test_the_exit_status_shows_the_outcome(filled: Command, flags: tuple[str, ...], status: int) -> None:
    done = filled(*flags)
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    if status == 2 and not done.stdout:
        assert done.stderr.strip()


def test_a_message_may_come_in_four_ways(filled: Command, tmp_path: Path) -> None:
    (tmp_path / "message.json").write_text(LS)
    replies = [
        filled(*STORE, "--msg", LS),
        filled(*STORE, "--msg", "@message.json"),
        filled(*STORE, "--msg", "-", stdin=LS),
        filled(*STORE, "--action", "ls", "--args", '{"path": ""}'),
        filled(*STORE, "--action", "ls"),
    ]
    assert {reply.stdout for reply in replies} == {replies[0].stdout}
    assert json.loads(replies[0].stdout)["ls"] == [{"name": "s/a.txt"}]


@pytest.mark.parametrize(
    "start", [[sys.executable, "-m", "pfstorage"], [str(ROOT / "bin" / "pfstorage")]], ids=["module", "bin"]
)
def test_it_starts_from_a_checkout(start: list[str], tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {**os.environ, "PYTHONPATH": str(ROOT) if "-m" in start else "", "PATH": path}
    done = subprocess.run([*start, "--version"], capture_output=True, text=True, env=environ, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Version: 3.0.0\n", "")


def test_the_synopsis_is_short_and_the_description_names_every_action_with_every_meta(
    command: Command,
) -> None:
    from pfstorage.actions import ACTIONS
    from pfstorage.wire.fields import known_names

    short, long = command("--synopsis").stdout, command("--desc").stdout
    assert short.strip() in long
    for name, action in ACTIONS.items():
        assert name in long
        assert all(meta in long for meta in known_names(action.meta)), name


def test_test_asks_hello_through_the_dispatcher(command: Command) -> None:
    reply = json.loads(command("--test", "--type", "memory").stdout)
    assert reply["status"] is True
    sysinfo = reply["d_ret"]["sysinfo"]
    assert (len(sysinfo["uname"]), len(sysinfo["loadavg"])) == (6, 3)
    assert sysinfo["hostname"]


def test_settings_are_saved_without_secrets_and_for_the_owner_alone(command: Command, tmp_path: Path) -> None:
    flags = ("--swiftKey", "canary", "--workers", "3", "--configFileSave", "s.json")
    assert command(*flags).returncode == 0
    saved = json.loads((tmp_path / "s.json").read_text())
    assert saved["this"]["workers"] == 3
    assert saved["swift"]["key"] == "********"
    assert stat.S_IMODE((tmp_path / "s.json").stat().st_mode) == 0o600
    assert command(*flags, "--saveSecrets").returncode == 0
    assert json.loads((tmp_path / "s.json").read_text())["swift"]["key"] == "canary"


def test_the_options_of_the_server_are_saved_with_the_settings(command: Command, tmp_path: Path) -> None:
    flags = ("--fsRoot", "a", "--fsRoot", "b", "--maxRows", "5", "--configFileSave", "first.json")
    assert command(*flags).returncode == 0
    assert command("--configFileLoad", "first.json", "--configFileSave", "second.json").returncode == 0
    saved = [json.loads((tmp_path / name).read_text()) for name in ("first.json", "second.json")]
    assert saved[0]["server"] == {"fsRoot": ["a", "b"], "maxRows": 5}
    assert saved[0] == saved[1]


def test_saved_settings_are_loaded_and_flags_win(filled: Command) -> None:
    filled(*STORE, "--configFileSave", "s.json", "--verbosity", "0")
    done = filled("--configFileLoad", "s.json", "--msg", LS)
    assert json.loads(done.stdout)["ls"] == [{"name": "s/a.txt"}]
    assert done.stderr == ""
    assert "ls: done" in filled("--configFileLoad", "s.json", "--msg", LS, "-v", "1").stderr


@pytest.mark.parametrize(
    "text", ['{"server": {"enabletokenauth": true}}', '{"Server": {"enableTokenAuth": true}}']
)
def test_a_misspelt_name_about_the_server_starts_nothing(command: Command, tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text)
    for flags in (("--server", "--portSelf", "0"), ("--action", "hello")):
        done = command("--type", "memory", "--configFileLoad", "s.json", *flags)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert "'server'" in done.stderr or "server.enableTokenAuth" in done.stderr


def test_the_key_may_stay_out_of_the_process_list(command: Command, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-a-file\n")
    command("--swiftKey", "@key", "--configFileSave", "s.json", "--saveSecrets")
    assert json.loads((tmp_path / "s.json").read_text())["swift"]["key"] == "from-a-file"


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ([], "there is nothing to do"),
        (["--typo", "x"], "unrecognized arguments: --typo ...; --help"),
        (["--msg", "@nix"], "--msg: 'nix': No such file"),
        (["--portSwift", "99999", "--msg", LS], "see --swiftAuthUrl"),
    ],
)
def test_a_wrong_flag_is_reported_in_one_line(command: Command, flags: list[str], why: str) -> None:
    done = command(*flags)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert why in done.stderr


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the secret is empty"),
        (None, "No such file"),
        ("secret\nX-Request-Id: mine", "a secret is one line without control characters"),
    ],
)
@pytest.mark.parametrize("flag", ["--swiftKey", "--authToken"])
def test_a_file_without_its_key_is_no_reason_to_take_another(
    command: Command, tmp_path: Path, flag: str, text: str | None, why: str
) -> None:
    if text is not None:
        (tmp_path / "key").write_text(text + " \n")
    done = command(flag, "@key", "--msg", LS)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert f"{flag}: " in done.stderr
    assert why in done.stderr
    assert "secret\n" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ("--configFileLoad /dev/zero --action ls", "is longer than 1048576 bytes"),
        ("--swiftKey @/dev/zero --action ls", "is longer than 134217728 bytes"),
        ("--server --portSelf 0 --tlsCert /dev/zero --tlsKey /dev/zero", "is longer than 1048576 bytes"),
        ("--server --portSelf 0 --enableTokenAuth --tokenPath /dev/zero", "is not a token file"),
    ],
)
def test_a_file_without_end_is_refused(tmp_path: Path, flags: str, why: str) -> None:
    program = f"ulimit -v 4000000; exec {sys.executable} -m pfstorage --type memory {flags}"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environ, timeout=60
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert why in done.stderr


def test_debug_to_dir_keeps_each_message_and_no_secret(command: Command, tmp_path: Path) -> None:
    message = '{"action": "internalctl", "meta": {"var": "/swift/key", "set": "canary-new"}}'
    command("--swiftKey", "canary-old", "--debugToDir", "debug/here", "--msg", message)
    command(*STORE, "--debugToDir", "debug/here", "--msg", "not json")
    first, second = sorted((tmp_path / "debug" / "here").iterdir())
    record = json.loads(first.read_text())
    assert record["message"]["action"] == "internalctl"
    assert record["reply"]["status"] is True
    assert record["seconds"] >= 0
    assert "canary" not in first.read_text()
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert json.loads(second.read_text())["reply"]["error"]["type"] == "MessageError"


def test_a_directory_for_debugging_that_cannot_be_written_fails_no_message(
    filled: Command, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = filled(*STORE, "--debugToDir", "file/below", "--msg", LS)
    assert done.returncode == 0
    assert "--debugToDir" in done.stderr


def test_a_reader_that_goes_away_is_no_traceback(filled: Command, tmp_path: Path) -> None:
    write_tree(tmp_path / "store", {f"many/{number:05}": b"" for number in range(3000)})
    program = f"{sys.executable} -m pfstorage {' '.join(STORE)} --action ls | head -c 10"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, shell=True, capture_output=True, text=True, cwd=tmp_path, env=environ)
    assert "Traceback" not in done.stderr
    assert len(done.stdout) == 10


def test_a_store_that_is_down_is_named_on_one_line(command: Command) -> None:
    done = command("--ipSwift", "127.0.0.1", "--portSwift", "9", "--msg", LS)
    assert done.returncode == 1
    reply = json.loads(done.stdout)
    assert reply["msg"] == "the store at 127.0.0.1:9 does not answer: nothing listens there"
    assert reply["error"]["type"] == "UnavailableError"


CANARIES = {"SWIFT_KEY": "canary-key", "OS_PASSWORD": "canary-password", "OS_AUTH_TOKEN": "canary-token"}


@pytest.mark.parametrize(
    "message", ['{"action": "internalctl", "meta": {"var": "/", "get": "x"}}', LS, "{bad"]
)
def test_no_output_holds_a_secret(command: Command, message: str) -> None:
    done = command("--portSwift", "9", "--retries", "0", "-v", "2", "--msg", message, **CANARIES)
    assert "canary" not in done.stdout + done.stderr


def test_a_reply_that_cannot_be_written_is_one_line(filled: Command, tmp_path: Path) -> None:
    program = f"{sys.executable} -m pfstorage {' '.join(STORE)} --action ls > /dev/full"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, shell=True, capture_output=True, text=True, cwd=tmp_path, env=environ)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "pfstorage: cannot write the reply: No space left on device"


@pytest.mark.parametrize(
    "flags",
    [
        ("--msg", LS, "--action", "ls"),
        ("--msg", LS, "--server"),
        ("--test", "--server"),
        ("--remote", "127.0.0.1:9", "--storeBase", "x", "--msg", LS),
        ("--remote", "127.0.0.1:9", "--server"),
        ("--remote", "", "--msg", LS),
    ],
)
def test_flags_that_contradict_each_other_are_refused(command: Command, flags: tuple[str, ...]) -> None:
    done = command(*flags)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:abc",
        "127.0.0.1:99999",
        "127.0.0.1:",
        "::1",
        "::1:4055",
        "http://[::1",
        "http://user:SEC/RET@127.0.0.1:4055",
        "http://user:SECRET#x@127.0.0.1:4055",
        "user:SEC://RET@127.0.0.1:4055",
        "ftp://127.0.0.1",
    ],
)
def test_an_address_that_is_none_is_one_line_without_its_password(command: Command, address: str) -> None:
    done = command("--remote", address, "--action", "hello")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "--remote: " in done.stderr
    assert "127.0.0.1:4055 or [::1]:4055, or a URL with http or https" in done.stderr
    assert not any(text in done.stderr for text in ("SEC", "RET", "user"))


@pytest.mark.parametrize("kind", [(), ("--type", "swift"), ("--type", "memory")])
def test_the_directory_of_a_store_is_refused_with_another_store(
    command: Command, kind: tuple[str, ...]
) -> None:
    for more in (("--msg", LS), ("--server", "--portSelf", "0"), ("--configFileSave", "s.json")):
        done = command("--storeBase", "store", *kind, *more)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert "--storeBase goes with --type filesystem" in done.stderr
        assert "add --type filesystem" in done.stderr


def test_the_directory_of_a_store_may_replace_that_of_the_configuration(
    filled: Command, tmp_path: Path
) -> None:
    (tmp_path / "s.json").write_text('{"this": {"type": "filesystem"}, "filesystem": {"store_base": "x"}}')
    done = filled("--configFileLoad", "s.json", "--storeBase", "store", "--msg", LS, "-v", "1")
    assert json.loads(done.stdout)["ls"] == [{"name": "s/a.txt"}]
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "warning"),
    [
        (("--authToken", "@token"), "--authToken has no effect without --remote"),
        (
            ("--tlsCert", "c", "--fsRoot", "d", "--stateDir", "e", "--portSelf", "1"),
            "--portSelf, --tlsCert, --fsRoot and --stateDir have no effect without --server or --configFileSave",
        ),
        (("--tokenPath", "f"), "--tokenPath has no effect without --server, --configFileSave or --makeToken"),
        (("--forever",), "--forever has no effect without --server"),
        (("--swiftContainer", "c"), "the store of --type memory does not use --swiftContainer"),
        (("--logFormat", "text", "--workers", "3"), None),
        (("--fsRoot", "a", "--swiftContainer", "c", "--configFileSave", "s.json"), None),
    ],
)
def test_flags_without_effect_are_named_in_one_line(
    command: Command, tmp_path: Path, flags: tuple[str, ...], warning: str | None
) -> None:
    (tmp_path / "token").write_text("0123456789abcdef")
    done = command("--type", "memory", "--test", *flags)
    warnings = [line.partition(" WARNING ")[2] for line in done.stderr.splitlines() if "WARNING" in line]
    assert (done.returncode, warnings) == (0, [warning] if warning else [])


def test_the_settings_of_a_transfer_have_no_effect_on_a_server(command: Command) -> None:
    flags = ("--workers", "3", "--caCert", __file__, "--authToken", "@/dev/stdin", "--forever")
    done = command("--remote", "127.0.0.1:9", "--action", "ls", *flags, stdin="0123456789abcdef")
    warnings = [line.partition(" WARNING ")[2] for line in done.stderr.splitlines() if "WARNING" in line]
    assert warnings == [
        "--forever has no effect without --server",
        "--workers has no effect with --remote",
    ]


@pytest.mark.parametrize("text", ["", "{bad"])
def test_a_malformed_message_is_answered_in_json_for_each_flag(command: Command, text: str) -> None:
    for flags in (("--msg", text), ("--action", "ls", "--args", text or "[")):
        done = command("--type", "memory", *flags)
        assert done.returncode == 2
        assert json.loads(done.stdout)["status"] is False


@pytest.mark.parametrize(("number", "status"), ENDS)
def test_a_signal_in_a_pull_leaves_nothing_unfinished(tmp_path: Path, number: int, status: int) -> None:
    write_tree(tmp_path / "store", {f"{at:04}": b"x" * 200_000 for at in range(600)})
    slowly = ("--bwLimit", "10M")  # so that the signal comes before the end
    flags = [*STORE, *slowly, "--action", "objPull", "--args", '{"path": "", "mapLocationOver": "out"}']
    with subprocess.Popen(
        [sys.executable, "-m", "pfstorage", *flags],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        while len(list(tmp_path.glob("out/*"))) < 20 and process.poll() is None:
            pass
        process.send_signal(number)
        _, received = process.communicate(timeout=60)
    assert process.returncode == status
    assert b"Traceback" not in received
    assert not list((tmp_path / "out").glob(".pfstorage-*"))
    assert {path.stat().st_size for path in (tmp_path / "out").iterdir()} == {200_000}


@pytest.mark.parametrize(
    ("redirection", "status"), [("2>&-", 0), (">&-", 1), ("<&-", 0), ("<&- --msg -", 2), ("2>&- >&-", 1)]
)
def test_a_closed_standard_stream_is_no_traceback(
    filled: Command, tmp_path: Path, redirection: str, status: int
) -> None:
    source = "" if "--msg" in redirection else "--action ls"
    program = f"{sys.executable} -m pfstorage {' '.join(STORE)} {source} {redirection}"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environ)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    if status == 0:
        assert json.loads(done.stdout)["status"] is True


def test_a_password_in_an_address_is_not_shown(command: Command, tmp_path: Path) -> None:
    flags = ("--swiftAuthUrl", "http://u:canary@127.0.0.1:9/auth", "--httpProxy", "u:canary@127.0.0.1:9")
    received = [
        command(*flags, "--configFileSave", "s.json"),
        command(*flags, "--action", "internalctl", "--args", '{"var": "/", "get": "x"}'),
        command(*flags, "--retries", "0", "--debugToDir", "d", "-v", "2", "--action", "ls"),
    ]
    written = "".join(path.read_text() for path in [tmp_path / "s.json", *(tmp_path / "d").iterdir()])
    assert "canary" not in written + "".join(done.stdout + done.stderr for done in received)
    assert (
        json.loads((tmp_path / "s.json").read_text())["swift"]["auth_url"]
        == "http://********@127.0.0.1:9/auth"
    )


@pytest.mark.parametrize("path", ["a\\u0000b", "a\\ud800b"])
def test_a_path_that_can_be_none_is_one_line(filled: Command, path: str) -> None:
    put = filled(*STORE, "--action", "objPut", "--args", f'{{"putSpec": "{path}"}}')
    pull = filled(*STORE, "--action", "objPull", "--args", f'{{"path": "", "mapLocationOver": "{path}"}}')
    for done in (put, pull):
        assert done.returncode == 1
        assert "unexpected" not in done.stdout + done.stderr
        assert json.loads(done.stdout)["error"]["type"] in ("LocalFileError", "InvalidKeyError")


def test_a_name_that_the_system_cannot_write_fails_alone(filled: Command, tmp_path: Path) -> None:
    write_tree(tmp_path, {"store/s/ü.txt": b"x"})
    environ = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = filled(
        *STORE, "--action", "objPull", "--args", '{"path": "s", "mapLocationOver": "out"}', **environ
    )
    assert "s/a.txt" in json.loads(done.stdout)["objectFileList"]
    assert "unexpected" not in done.stdout
