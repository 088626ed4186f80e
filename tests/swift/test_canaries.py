"""No output of a server shows a secret, and no log the name of a patient.

A server is a process over a real Swift. It is asked for everything that it does, well and badly;
then each thing that it has written or answered is searched for each canary, in each form that it could have.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from pfstorage.devswift import USER, DevSwift
from tests.conftest import swift_options
from tests.support.canaries import (
    PATIENT,
    SECRETS,
    Keeper,
    configuration,
    environment,
    found_in,
    login_url,
    write_tokens,
)
from tests.support.canary_server import (
    Scene,
    change_settings,
    change_tokens,
    fail_all_requests,
    send_each_action,
    send_secrets_in_metas,
    send_wrong_tokens,
    start_jobs,
    started,
    use_other_interfaces,
)
from tests.support.exchange import Transport

# The parts of an answer that repeat the message for its sender.
ECHO = re.compile(rb'"msg": "there is no action|"echoBack": {')


SCENES = {
    "silent, tokens in lines": (0, "text", False, False),
    "as it is left running": (1, "text", True, True),
    "as JSON, tokens in lines, key in argv": (1, "json", False, False),
    "wordy": (2, "text", True, False),
    "more than wordy, as JSON": (4, "json", True, True),
}


@pytest.fixture(scope="module", params=SCENES)
def scene(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    swift: DevSwift,
) -> Iterator[Scene]:
    """Return the outputs of a server after each kind of request."""
    verbosity, form, ini, by_tls = SCENES[request.param]
    directory = tmp_path_factory.mktemp("canaries")
    for name in ("tmp", "root", "debug"):
        (directory / name).mkdir()
    tokens = write_tokens(directory / ("tokens.cfg" if ini else "tokens"), ini=ini)
    proxy = Keeper(swift.port)
    box = swift_options(swift)["container_name"]
    flags = [
        *("--forever", "--retries", "0", "-v", str(verbosity), "--logFormat", form, "--fsRoot", "root"),
        *("--enableTokenAuth", "--tokenPath", str(tokens), "--debugToDir", "debug", "--stateDir", "state"),
        *("--configFileLoad", str(configuration(directory)), "--swiftContainer", box),
        *("--swiftAuthUrl", login_url(proxy.port), "--swiftUsername", USER),
    ]
    key = SECRETS["the Swift key"]
    environ = environment(directory, **({} if "argv" in request.param else {"SWIFT_KEY": key}))
    flags += ["--swiftKey", key] if "argv" in request.param else []
    transport = Transport()
    if by_tls:
        cert, tls_key = request.getfixturevalue("certificate")
        transport = Transport(context=ssl.create_default_context(cafile=cert))
        flags += ["--tlsCert", cert, "--tlsKey", tls_key]
    with contextlib.closing(proxy), started(directory, flags, environ, transport) as served:
        scene = Scene(directory, proxy, served, verbosity, ini)
        scene.ask("hello", as_token=SECRETS["the token to write"], askAbout="timestamp")
        for act in (send_each_action, start_jobs, use_other_interfaces, send_wrong_tokens):
            act(scene)
        send_secrets_in_metas(scene)
        change_settings(scene)
        change_tokens(scene, tokens)
        fail_all_requests(scene)
        scene.keep_files()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 0
        scene.outputs |= {name: (directory / name).read_bytes() for name in ("stdout", "stderr")}
        scene.keep_files()
        yield scene
    shutil.rmtree(directory)


def test_the_search_finds_a_canary_in_each_form() -> None:
    for secret in SECRETS.values():
        texts = [
            secret,
            quote(secret, safe=""),
            quote_plus(secret),
            json.dumps({"a": secret}),
            repr([secret]),
        ]
        texts += [base64.b64encode(f"{'x' * n}{secret}".encode()).decode() for n in range(4)]
        texts += [base64.urlsafe_b64encode(f"{'x' * n}{secret}".encode()).decode() for n in range(4)]
        for text in texts:
            assert found_in(text.encode(), {"it": secret}) == ["it"], text


def test_all_requests_of_the_scene_were_made(scene: Scene) -> None:
    records = [name for name in scene.outputs if name.startswith("content") and "/debug/" in name]
    assert len(records) > 60
    assert any("jobs.sqlite" in name for name in scene.outputs)
    assert sum(content.startswith(b"HTTP/1.1 ") for content in scene.outputs.values()) > 120
    assert scene.proxy.given
    statuses = {content[9:12] for content in scene.outputs.values() if content.startswith(b"HTTP/1.1 ")}
    assert statuses >= {
        b"200",
        b"201",
        b"202",
        b"400",
        b"401",
        b"403",
        b"404",
        b"405",
        b"409",
        b"412",
        b"500",
        b"503",
    }
    log = scene.outputs["stderr"].decode()
    assert (log == "") == (scene.verbosity == 0)
    assert ("Traceback" in log) == (scene.verbosity > 0)


def test_no_output_of_a_server_shows_a_secret(scene: Scene, certificate: tuple[str, str]) -> None:
    secrets = {**SECRETS, **{f"what Swift gave, {n}": token for n, token in enumerate(scene.proxy.given)}}
    lines = Path(certificate[1]).read_text().splitlines()[1:-1]
    secrets |= {f"line {n} of the key of TLS": line for n, line in enumerate(lines[:-1])}
    leaks = {where: found_in(content, secrets) for where, content in scene.outputs.items()}
    echo = [where for where in leaks if where.startswith("answer") and ECHO.search(scene.outputs[where])]
    leaks |= {where: [] for where in echo}  # only the sender gets it back
    assert {where: names for where, names in leaks.items() if names} == {}


def test_no_name_of_a_patient_is_in_the_log_of_a_server_that_is_left_running(scene: Scene) -> None:
    log = scene.outputs["stderr"]
    reported = found_in(log + scene.outputs["stdout"], {"the patient": PATIENT})
    assert reported == (["the patient"] if scene.verbosity > 1 else [])
