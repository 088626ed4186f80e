"""Fixtures that all tests share: a real Swift, a storage of each backend, servers on free ports, DICOM files."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift, running
from pfstorage.server.options import ServerOptions
from tests.support.browser import chromium
from tests.support.clone import clone
from tests.support.exchange import TOKEN, Transport, client, transports
from tests.support.faults import Proxy, proxy_to
from tests.support.jobs import job_client, worker
from tests.support.keystone import keystone
from tests.support.local import small_storage
from tests.support.peer import connect, peer_certificate, serve_peers, tls, trusts
from tests.support.stores import empty_account, swift_options
from tests.support.tls import authority, fronted, no_certificates_of_the_machine
from tests.support.tokens import token_file
from tests.support.trees import linked, read_tree, write_tree

ROOT = Path(__file__).resolve().parent.parent
# a busy machine is no failure; .ci/run selects "thorough"
hypothesis.settings.register_profile("quick", deadline=None, max_examples=10)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=100)
hypothesis.settings.load_profile("quick")
# Each folder is a marker. After so many seconds a test fails with the stacks of all threads.
# The bounds are for hangs: a slow machine keeps them.
TIMEOUTS = {"unit": 300, "contract": 600, "swift": 900, "server": 900, "e2e": 900}
SLOW_TIMEOUT = 3600
BACKENDS = ("swift", "filesystem", "memory")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the name of its folder, bound its time, and let slow tests begin first."""
    for item in items:
        layer = next((layer for layer in TIMEOUTS if f"tests/{layer}/" in item.nodeid), "")
        layer = layer or (
            "e2e" if item.nodeid.startswith("tests/") else "unit"
        )  # or a doctest of the package
        item.add_marker(layer)
        item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT if _is_slow(item) else TIMEOUTS[layer]))
    items.sort(key=_is_slow, reverse=True)  # a slow test that begins last leaves the other processes idle


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None or item.get_closest_marker("huge") is not None


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove settings of the machine from the environment, and work in the directory of the test."""
    for name in os.environ:
        if name.startswith(("SWIFT_", "ST_", "OS_", "HOST_IP")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def levels_of_logs() -> Iterator[None]:
    """Restore the log levels that a test changed."""
    before = {name: logging.getLogger(name).level for name in (None, "pfstorage")}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(autouse=True, scope="session")
def signals_are_not_ignored() -> Iterator[None]:
    """Handle signals: under ``nohup`` or in the background, programs that the tests start would ignore them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)}
    for number, handler in before.items():
        if handler == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)  # a child then has the default action
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def swift() -> Iterator[DevSwift]:
    """A real OpenStack Swift on a free port, one for each test process."""
    with unmeasured(), running() as server:
        yield server


@pytest.fixture(scope="module")
def own_swift() -> Iterator[DevSwift]:
    """A Swift for the tests of one module."""
    with unmeasured(), running() as server:
        yield server


@pytest.fixture
def own_account(own_swift: DevSwift) -> Iterator[DevSwift]:
    """An empty account of the Swift of the module: a sweep reads all that is in the account."""
    with empty_account(own_swift) as swift:
        yield swift


@contextlib.contextmanager
def unmeasured() -> Iterator[None]:
    """Start no coverage in new processes: other programs are far slower with it. test_devswift.py measures devswift."""
    names = [name for name in os.environ if name.startswith("COVERAGE_PROCESS")]
    before = {name: os.environ.pop(name) for name in names}
    yield
    os.environ.update(before)


@pytest.fixture
def proxy(swift: DevSwift) -> Iterator[Proxy]:
    """A proxy before the Swift of the test, which can make its requests fail."""
    with proxy_to(swift.port) as proxy:
        yield proxy


def open_backend(backend: str, request: pytest.FixtureRequest, tmp_path: Path, **more: Any) -> Storage:
    """Open an empty storage of *backend*; its container does not exist yet."""
    if backend == "swift":
        return open_storage(**swift_options(request.getfixturevalue("swift"), **more))
    if backend == "filesystem":
        return open_storage(type="filesystem", store_base=str(tmp_path / "store"), **more)
    return open_storage(type="memory", **more)


@pytest.fixture(params=BACKENDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """Open an empty storage of each backend in turn: its tests are the contract of all backends."""
    with open_backend(request.param, request, tmp_path) as storage:
        yield storage


@pytest.fixture
def swift_storage(swift: DevSwift) -> Iterator[Storage]:
    """An empty container of the real Swift."""
    with open_storage(**swift_options(swift)) as storage:
        yield storage


@pytest.fixture(scope="session")
def dicom_files() -> Path:
    """Return the directory of real DICOM files of pydicom, some in subdirectories."""
    import pydicom.data

    return Path(pydicom.data.__file__).parent / "test_files"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Make a self-signed certificate for localhost, and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


def make_certificate(directory: Path) -> tuple[str, str]:
    cert, key = str(directory / "cert.pem"), str(directory / "key.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


@pytest.fixture(scope="module", params=["plain", "by TLS with a token"])
def transport(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Transport]:
    """Choose how to reach the servers of `serving` and `server_process`: openly, or by TLS with a token."""
    made = Transport()
    if request.param != "plain":
        cert, key = request.getfixturevalue("certificate")
        tokens = tmp_path_factory.mktemp("transport") / "tokens.cfg"
        tokens.touch(0o600)
        tokens.write_text(f"[AUTH TOKENS]\ndoor = {TOKEN}\n[TOKEN RIGHTS]\ndoor = admin\n")
        options = {"tls_cert": cert, "tls_key": key, "token_path": str(tokens)}
        flags = ("--tlsCert", cert, "--tlsKey", key, "--enableTokenAuth", "--tokenPath", str(tokens))
        made = Transport(options, flags, ssl.create_default_context(cafile=cert))
    transports.append(made)
    yield made
    transports.remove(made)


@contextlib.contextmanager
def serving(handler: StoreHandler, **options: Any) -> Iterator[ThreadedHTTPServer]:
    """Serve *handler* on a free port of the loopback interface, in a thread, with the last transport."""
    made = ThreadedHTTPServer(("127.0.0.1", 0), handler, ServerOptions(**transports[-1].options, **options))
    made.server_port = transports[-1].port(made.server_port)
    with running_server(made) as server:
        yield server


@contextlib.contextmanager
def running_server(server: ThreadedHTTPServer) -> Iterator[ThreadedHTTPServer]:
    """Run *server* in a thread, and close it at the end."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(
    server: ThreadedHTTPServer,
    body: Any = None,
    method: str = "POST",
    path: str = "/api/v1/cmd",
    **headers: str,
) -> tuple[int, Any]:
    """Send one request; return the status and the decoded JSON. *body* that is no text or bytes is sent as JSON."""
    connection = client(server.server_port)
    content = body if isinstance(body, str | bytes | None) else json.dumps(body)
    with contextlib.closing(connection):
        connection.request(
            method, path, content, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Return a function that runs ``pfstorage`` with flags as a process, in the test's directory."""

    def run(*flags: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pfstorage", *flags],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
            timeout=120,
        )

    return run


def run(
    storage: Storage, action: str, settings: Mapping[str, Any] | None = None, **meta: Any
) -> dict[str, Any]:
    """Answer one message from *storage*, with the common *settings* changed."""
    with contextlib.closing(StoreHandler(storage)) as handler:
        for name, value in (settings or {}).items():
            handler.state.set(f"/this/{name}", value)
        return handler.run({"action": action, "meta": meta})
