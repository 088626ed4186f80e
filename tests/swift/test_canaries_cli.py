"""No output of the command line shows a secret."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from pfstorage.devswift import DevSwift
from tests.conftest import Command, swift_options, write_tree
from tests.support.canaries import PATIENT, SECRETS, Keeper, configuration, environment, found_in, login_url
from tests.support.exchange import message


@pytest.mark.parametrize("verbosity", ["0", "1", "3"])
def test_no_output_of_the_command_line_shows_a_secret(
    swift: DevSwift, command: Command, tmp_path: Path, verbosity: str
) -> None:
    (tmp_path / "tmp").mkdir()
    write_tree(tmp_path, {f"data/{PATIENT}/1.dcm": b"1"})
    proxy = f"me:{SECRETS['the password of a proxy']}@127.0.0.1:9"
    key = SECRETS["the Swift key"]
    with contextlib.closing(Keeper(swift.port)) as keeper:
        box = swift_options(swift)["container_name"]
        flags = ["--retries", "0", "-v", verbosity, "--debugToDir", "debug", "--swiftContainer", box]
        flags += ["--swiftAuthUrl", login_url(keeper.port), "--configFileLoad", str(configuration(tmp_path))]
        put = message("objPut", putSpec="data", inLocation=f"x/{PATIENT}", mapLocationOver="data")
        new = message("internalctl", var="/swift/key", set=SECRETS["a new Swift key"])
        url = f"http://me:{SECRETS['the password of a proxy']}@127.0.0.1:9"
        token = SECRETS["a token with a slip"]
        runs = [
            [*flags, "--swiftKey", key, "--msg", put],
            [*flags, "--swiftKey", key, "--msg", message("ls", path=f"x/{PATIENT}", password=key)],
            [*flags, f"--swiftKey={key}wrong", "--msg", message("ls")],
            [*flags, "--swiftKey", key, "--msg", new],
            [*flags, "--swiftKey", key, "--msg", message("internalctl", var="/", get="x")],
            [*flags, "--swiftKey", key, "--httpProxy", proxy, "--msg", message("ls")],
            [*flags, "--swiftKey", key, "--httpProxy", proxy.replace("ss", "/"), "--msg", message("ls")],
            [*flags, "--swiftKey", key, "--configFileSave", "saved.json"],
            [*flags, "--swiftKey", key, "--test"],
            [*flags, "--swiftkey", key, "--msg", put],  # which is no flag
            ["--authToken", token, "--remote", url, "--msg", put],
            ["--authToken", token, "--remote", "127.0.0.1:9", "-v", verbosity, "--msg", put],
        ]
        done = [command(*each, **environment(tmp_path)) for each in runs]
        given = keeper.given
    reported = "".join(each.stdout + each.stderr for each in done)
    kept = [path for name in ("debug", "tmp") for path in (tmp_path / name).rglob("*") if path.is_file()]
    assert len(kept) >= 6
    written = "".join(path.read_text() for path in (*kept, tmp_path / "saved.json"))
    secrets = {**SECRETS, **{f"what Swift gave, {n}": each for n, each in enumerate(given)}}
    assert found_in((reported + written).encode(), secrets) == []
    log = "".join(each.stderr for each in done)
    assert (PATIENT in log) == (verbosity == "3")


@pytest.mark.parametrize(
    ("flags", "warning"),
    [
        (["--swiftKey", "{}"], "--swiftKey in the list of processes: give @FILE, set SWIFT_KEY"),
        (["--swiftKey={}"], "--swiftKey in the list of processes: give @FILE, set SWIFT_KEY"),
        (
            ["--remote", "127.0.0.1:9", "--authToken", "{}"],
            "--authToken in the list of processes: give @FILE",
        ),
        (
            ["--httpProxy", "me:{}@127.0.0.1:9"],
            "--httpProxy in the list of processes: set this.httpProxy in the",
        ),
        (["--swiftKey", "@key"], None),
        (["--httpProxy", "127.0.0.1:9"], None),
    ],
)
def test_a_secret_in_a_flag_is_warned_of_in_one_line(
    command: Command, tmp_path: Path, flags: list[str], warning: str | None
) -> None:
    secret = SECRETS["the Swift key"]
    (tmp_path / "key").write_text(secret)
    given = [each.replace("{}", secret) for each in flags]
    said = command("--retries", "0", *given, "--msg", message("hello")).stderr.splitlines()
    warned = [line for line in said if "list of processes" in line]
    assert len(warned) == (warning is not None)
    assert all(str(warning) in line and " WARNING " in line for line in warned)
    assert secret not in "".join(said)
