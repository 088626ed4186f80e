"""The development server is a real Swift, starts and stops cleanly, and keeps to itself."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import hmac
import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pfstorage import devswift
from pfstorage.devswift import DevSwift, DevSwiftError, running
from pfstorage.devswift.middleware import Cache

if importlib.util.find_spec("swift") is None:
    pytest.skip("needs pfstorage[devswift]", allow_module_level=True)

swiftclient = pytest.importorskip("swiftclient")

# A child that hangs must not hang the tests; no outcome depends on how long anything takes.
PATIENCE = 60
ROOT = Path(devswift.__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevSwift]:
    with running(log=tmp_path_factory.mktemp("devswift") / "requests.log") as server:
        yield server


@contextlib.contextmanager
def logged_in(server: DevSwift) -> Iterator[Any]:
    connection = swiftclient.Connection(server.auth_url, server.user, server.key, retries=0)
    try:
        yield connection
    finally:
        connection.close()


@pytest.fixture
def swift(server: DevSwift, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A logged-in client, and a container named after the test."""
    with logged_in(server) as connection:
        connection.put_container(request.node.name)
        yield connection


@pytest.fixture
def box(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


def ask(
    server: DevSwift, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(devswift.HOST, server.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()


def command(*arguments: object, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run a server that should end by itself, after *code*, if given."""
    run = f"import sys\n{code}\nfrom pfstorage.devswift import server\nsys.exit(server.main(sys.argv[1:]))"
    how = ["-c", run] if code else ["-m", "pfstorage.devswift"]
    return subprocess.run(
        [sys.executable, *how, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=PATIENCE,
    )


def assert_fails(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("devswift: ")
    assert result.stderr.count("\n") == 1
    assert [word for word in words if word not in result.stderr] == []


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((devswift.HOST, port)) == 0


@contextlib.contextmanager
def bare_server() -> Iterator[tuple[subprocess.Popen[str], DevSwift]]:
    """The server without `running`, so that a test can see all it prints and how it ends."""
    with subprocess.Popen(
        [sys.executable, "-m", "pfstorage.devswift", "--port=0"],
        stdin=subprocess.DEVNULL,  # at its end from the start, which must not stop the server
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("devswift: up at http://127.0.0.1:")
            assert "/auth/v1.0, user chris:chris1234, key testing, files in " in line
            port = int(line.split(":")[3].partition("/")[0])
            directory = Path(line.partition(" files in ")[2].rstrip("\n"))
            yield process, DevSwift(port, directory, process)
        finally:
            process.kill()


# --- Its life


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_it_with_status_0_and_no_temporary_directory(number: signal.Signals) -> None:
    with bare_server() as (process, server):
        assert server.directory.is_dir()
        process.send_signal(number)
        assert process.communicate(timeout=PATIENCE) == ("", "")
        assert process.returncode == 0
        assert not server.directory.exists()


def test_a_signal_ends_it_in_the_middle_of_requests() -> None:
    with bare_server() as (process, server), logged_in(server) as swift:
        token = swift.get_auth()[1]
        swift.put_container("c")
        idle = http.client.HTTPConnection(devswift.HOST, server.port, timeout=PATIENCE)
        stalled = socket.create_connection((devswift.HOST, server.port), timeout=PATIENCE)
        with contextlib.closing(idle), stalled:
            idle.request("GET", "/info")
            assert idle.getresponse().read()
            head = f"PUT /v1/AUTH_chris/c/o HTTP/1.1\r\nX-Auth-Token: {token}\r\n"
            stalled.sendall(f"{head}Content-Length: 9\r\nExpect: 100-continue\r\n\r\n".encode())
            assert stalled.recv(12) == b"HTTP/1.1 100"
            process.terminate()
            assert process.communicate(timeout=PATIENCE) == ("", "")
        assert process.returncode == 0
        assert not server.directory.exists()


def test_running_gives_a_server_that_stops_afterwards() -> None:
    with running() as server:
        assert server.auth_url == f"http://127.0.0.1:{server.port}/auth/v1.0"
        assert server.pid == server.process.pid
        assert ask(server, "GET", "/healthcheck") == (200, b"OK")
    assert server.process.returncode == 0
    assert not server.directory.exists()


def test_two_processes_serve_one_swift_and_end_together(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running(directory=home, processes=2) as server, logged_in(server) as swift:
        swift.put_container("c")
        swift.put_object("c", "o", b"content")
        [child] = children_of(server.pid)
        assert [row["name"] for row in swift.get_container("c")[1]] == ["o"]
    assert not Path(f"/proc/{child}").exists()
    with running(directory=home) as server, logged_in(server) as swift:
        assert swift.get_object("c", "o")[1] == b"content"


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("processes", [1, 2])
def test_running_leaves_no_server_when_its_process_is_killed(processes: int) -> None:
    code = f"""
from pfstorage.devswift import running
with running(processes={processes}) as server:
    print(server.port, server.directory, flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        port, directory = parent.stdout.readline().rstrip("\n").split(maxsplit=1)
        assert answers(int(port))
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while answers(int(port)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not answers(int(port))
    assert not Path(directory).exists()


def test_the_same_directory_has_its_objects_again_even_after_sigkill(tmp_path: Path) -> None:
    home = tmp_path / "not yet there"
    with running(directory=home) as server, logged_in(server) as swift:
        assert server.directory == home
        swift.put_container("c")
        swift.put_container("s", headers={"X-Storage-Policy": "silver"})
        swift.put_object("c", "a/é", b"first")
        swift.put_object("s", "o", b"silver")
    with running(directory=home) as server, logged_in(server) as swift:
        assert swift.get_object("c", "a/é")[1] == b"first"
        swift.put_object("c", "b", b"second")
        os.kill(server.pid, signal.SIGKILL)
        server.process.wait(PATIENCE)
    with running(directory=home) as server, logged_in(server) as swift:
        assert [swift.get_object("c", key)[1] for key in ("a/é", "b")] == [b"first", b"second"]
        assert [row["name"] for row in swift.get_container("c")[1]] == ["a/é", "b"]
        assert swift.get_object("s", "o")[1] == b"silver"


# --- What it refuses


def test_a_taken_port_is_one_line_and_status_1(server: DevSwift) -> None:
    with socket.create_server((devswift.HOST, 0)) as other:
        port = other.getsockname()[1]
        assert_fails(command("--port", port), f"127.0.0.1:{port}", "in use")
    assert_fails(command("--port", server.port), "in use")


def test_running_raises_the_error_of_the_server(server: DevSwift) -> None:
    with pytest.raises(DevSwiftError, match=f"did not start: .*127.0.0.1:{server.port}.* in use"):
        running(port=server.port).__enter__()


def test_a_directory_in_use_is_refused(server: DevSwift) -> None:
    assert_fails(command("--port", 0, "--dir", server.directory), "another", str(server.directory))


@pytest.mark.parametrize("option", ["--dir", "--log"])
def test_a_path_that_cannot_be_made_is_refused(option: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert_fails(command("--port", 0, option, file / "below"), "file/below")


@pytest.mark.parametrize("module", ["swift", "eventlet"])
def test_without_the_extra_it_names_the_package_to_install(module: str) -> None:
    result = command("--port", 0, code=f"sys.modules[{module!r}] = None")
    assert_fails(result, module, "pip install 'pfstorage[devswift]'")


def test_running_without_the_extra_names_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "swift.py").write_text("raise ModuleNotFoundError(\"No module named 'swift'\")")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DevSwiftError, match=r"'swift'; run: pip install 'pfstorage\[devswift\]'"):
        running().__enter__()


def test_a_file_system_without_xattrs_is_refused(tmp_path: Path) -> None:
    code = """
import errno, xattr
def setxattr(*_): raise OSError(errno.ENOTSUP, "Operation not supported")
xattr.setxattr = setxattr
"""
    assert_fails(command("--port", 0, "--dir", tmp_path, code=code), "xattrs", str(tmp_path), "ext4")


def test_importing_the_module_imports_neither_swift_nor_eventlet() -> None:
    code = "import sys, pfstorage.devswift; print(sys.modules.keys() & {'swift', 'eventlet'})"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE
    )
    assert (result.stdout, result.stderr) == ("set()\n", "")


# --- It is Swift


def test_info_lists_the_features_of_a_cluster(server: DevSwift) -> None:
    status, body = ask(server, "GET", "/info")
    info = json.loads(body)
    assert status == 200
    features = "bulk_delete bulk_upload container_quotas object_versioning s3api slo symlink tempauth tempurl"
    assert [name for name in features.split() if name not in info] == []
    assert [policy["name"] for policy in info["swift"]["policies"]] == ["gold", "silver"]
    assert info["swift"]["max_file_size"] == 5 * 2**30 + 2


def test_a_token_lives_for_a_day_and_is_given_again(server: DevSwift) -> None:
    answers = []
    for _ in range(2):
        connection = http.client.HTTPConnection(devswift.HOST, server.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            login = {"X-Auth-User": server.user, "X-Auth-Key": server.key}
            connection.request("GET", "/auth/v1.0", headers=login)
            answers.append(connection.getresponse())
    assert answers[0].getheader("X-Auth-Token") == answers[1].getheader("X-Auth-Token")
    assert 0 < int(answers[0].getheader("X-Auth-Token-Expires", "0")) <= 24 * 60 * 60
    assert answers[0].getheader("X-Storage-Url") == f"http://127.0.0.1:{server.port}/v1/AUTH_chris"


@pytest.mark.parametrize("headers", [{}, {"X-Auth-Token": "AUTH_tkforged"}])
def test_without_a_token_it_answers_401(server: DevSwift, headers: dict[str, str]) -> None:
    assert ask(server, "GET", "/v1/AUTH_chris", headers)[0] == 401


def test_an_object_comes_back_as_it_was_put(swift: Any, box: str) -> None:
    body = os.urandom(3 * 2**20 + 1)
    etag = swift.put_object(box, "a/../ü b", iter([body]), headers={"X-Object-Meta-Mtime": "1.5"})
    headers, got = swift.get_object(box, "a/../ü b")
    assert etag == headers["etag"] == hashlib.md5(body).hexdigest()
    assert got == body
    assert headers["x-object-meta-mtime"] == "1.5"


def test_a_body_with_the_wrong_etag_is_not_stored(swift: Any, box: str) -> None:
    with pytest.raises(swiftclient.ClientException) as error:
        swift.put_object(box, "o", b"body", etag="0" * 32)
    assert error.value.http_status == 422
    assert swift.get_container(box)[1] == []


def test_a_listing_is_complete_after_puts_at_the_same_time(server: DevSwift, box: str) -> None:
    keys = [f"{number:03}" for number in range(200)]

    def put(some: list[str]) -> None:
        with logged_in(server) as swift:
            for key in some:
                swift.put_object(box, key, key.encode())

    with logged_in(server) as swift, ThreadPoolExecutor(20) as pool:
        swift.put_container(box)
        assert list(pool.map(put, [keys[start::20] for start in range(20)])) == [None] * 20
        assert [row["name"] for row in swift.get_container(box)[1]] == keys


def test_a_static_large_object_is_its_segments(swift: Any, box: str) -> None:
    swift.put_container(f"{box}_segments", headers={"X-Storage-Policy": "silver"})
    manifest = []
    for number, body in enumerate([b"abc", b"defg"]):
        path = f"{box}_segments/{number}"
        etag = swift.put_object(*path.split("/"), body)
        manifest.append({"path": path, "etag": etag, "size_bytes": len(body)})
    swift.put_object(box, "o", json.dumps(manifest), query_string="multipart-manifest=put")
    headers, got = swift.get_object(box, "o")
    assert (got, headers["x-static-large-object"]) == (b"abcdefg", "True")
    assert swift.get_container(box)[1][0]["bytes"] == 7


def test_copies_and_symlinks_move_no_bytes(swift: Any, box: str) -> None:
    swift.put_object(box, "o", b"body")
    swift.copy_object(box, "o", f"{box}/copy")
    swift.put_object(box, "link", b"", headers={"X-Symlink-Target": f"{box}/o"})
    assert [swift.get_object(box, key)[1] for key in ("copy", "link")] == [b"body", b"body"]


def test_bulk_delete_deletes(server: DevSwift, swift: Any, box: str) -> None:
    for key in ("a", "b"):
        swift.put_object(box, key, b"")
    headers = {
        "X-Auth-Token": swift.get_auth()[1],
        "Content-Type": "text/plain",
        "Accept": "application/json",
    }
    names = f"{box}/a\n{box}/b\n{box}/none".encode()
    status, body = ask(server, "POST", "/v1/AUTH_chris?bulk-delete", headers, names)
    report = json.loads(body)
    assert (status, report["Number Deleted"], report["Number Not Found"]) == (200, 2, 1)
    assert swift.get_container(box)[1] == []


def test_a_versioned_container_keeps_overwritten_objects(swift: Any, box: str) -> None:
    swift.post_container(box, {"X-Versions-Enabled": "true"})
    for body in (b"old", b"new"):
        swift.put_object(box, "o", body)
    assert len(swift.get_container(box, query_string="versions=true")[1]) == 2


def test_a_quota_answers_413(swift: Any, box: str) -> None:
    swift.post_container(box, {"X-Container-Meta-Quota-Bytes": "3"})
    with pytest.raises(swiftclient.ClientException) as error:
        swift.put_object(box, "o", b"four")
    assert error.value.http_status == 413


def test_a_temporary_url_needs_no_token(server: DevSwift, swift: Any, box: str) -> None:
    swift.post_container(box, {"X-Container-Meta-Temp-URL-Key": "secret"})
    swift.put_object(box, "o", b"body")
    path, expires = f"/v1/AUTH_chris/{box}/o", int(time.time()) + 3600
    signature = hmac.new(b"secret", f"GET\n{expires}\n{path}".encode(), "sha256").hexdigest()
    assert ask(server, "GET", f"{path}?temp_url_sig={signature}&temp_url_expires={expires}") == (200, b"body")
    assert ask(server, "GET", path)[0] == 401


def test_s3_answers_the_same_user(server: DevSwift, swift: Any, box: str) -> None:
    swift.put_container("s3-bucket")
    swift.put_object("s3-bucket", "o", b"body")
    date = email.utils.formatdate(usegmt=True)
    to_sign = f"GET\n\n\n{date}\n/s3-bucket/o".encode()
    signature = base64.b64encode(hmac.new(server.key.encode(), to_sign, "sha1").digest()).decode()
    headers = {"Date": date, "Authorization": f"AWS {server.user}:{signature}"}
    assert ask(server, "GET", "/s3-bucket/o", headers) == (200, b"body")


# --- The log and other output


def test_the_log_has_a_line_for_each_request_as_soon_as_it_is_answered(tmp_path: Path) -> None:
    log = tmp_path / "requests.log"
    with running(log=log) as server, logged_in(server) as swift:
        assert log.read_text() == ""
        swift.put_container("c")
        swift.put_object("c", "a b", b"body")
        swift.get_container("c", prefix="a")
        assert ask(server, "GET", "/v1/AUTH_chris/c/none")[0] == 401
        assert log.read_text().splitlines() == [
            "GET /auth/v1.0 200",
            "PUT /v1/AUTH_chris/c 201",
            "PUT /v1/AUTH_chris/c/a%20b 201",
            "GET /v1/AUTH_chris/c?format=json&prefix=a 200",
            "GET /v1/AUTH_chris/c/none 401",
        ]


def test_errors_inside_swift_are_in_its_log_file() -> None:
    with bare_server() as (process, server), logged_in(server) as swift:
        swift.put_container("c")
        (database,) = (server.directory / "devices").glob("*/containers/**/*.db")
        database.unlink()
        database.mkdir()
        with pytest.raises(swiftclient.ClientException):
            swift.get_container("c")
        assert "OperationalError" in (server.directory / "swift.log").read_text()
        process.terminate()
        assert process.communicate(timeout=PATIENCE) == ("", "")


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="reads Linux's /proc")
def test_it_listens_on_the_loopback_interface_alone(server: DevSwift) -> None:
    proc = Path(f"/proc/{server.pid}")
    mine = {str(file.readlink()) for file in (proc / "fd").iterdir()}
    rows = [
        row.split()
        for table in ("tcp", "tcp6")
        for row in (proc / "net" / table).read_text().splitlines()[1:]
    ]
    listening = [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in mine]
    assert len(listening) == 4
    assert {address.partition(":")[0] for address in listening} == {"0100007F"}  # 127.0.0.1


# --- Its stand-in for memcached


def test_the_cache_forgets_a_value_when_its_time_is_over() -> None:
    now = 0.0
    cache = Cache(lambda: now)
    cache.set("for ever", 1)
    cache.set("a while", 2, time=10)
    now = 9.9
    assert cache.get("a while") == 2
    now = 10.0
    assert (cache.get("a while"), cache.get("for ever"), cache.get("never set")) == (None, 1, None)


def test_the_cache_counts_until_the_time_given_first() -> None:
    now = 0.0
    cache = Cache(lambda: now)
    assert [cache.incr("n", time=10), cache.incr("n", 5, time=10), cache.incr("n", -9)] == [1, 6, 0]
    now = 10.0
    assert cache.incr("n", 2) == 2


def test_the_cache_shares_no_value_with_its_callers() -> None:
    cache = Cache()
    value = {"a": [1]}
    cache.set("key", value)
    value["a"].append(2)
    cache.get("key")["a"].append(3)
    assert cache.get("key") == {"a": [1]}
    cache.delete("key")
    assert cache.get("key") is None
