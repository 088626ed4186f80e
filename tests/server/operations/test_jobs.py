"""Jobs of a server: their events, and the next server after a kill."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import signal
import time
from pathlib import Path

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer
from pfstorage.jobs import scheduler
from pfstorage.server.options import ServerOptions
from tests.conftest import ask, running_server, write_tree
from tests.support.exchange import answered, server_process
from tests.support.held import Held
from tests.support.operations import STORE, get


def test_a_job_is_taken_on_at_once_and_its_events_lead_to_its_reply(
    server: ThreadedHTTPServer, tmp_path: Path
) -> None:
    write_tree(tmp_path, {"data/a": b"12345"})
    meta = {"putSpec": "data", "inLocation": "x", "mapLocationOver": "data", "async": True, "jid": "feed-12"}
    status, reply = answered(server.server_port, "objPut", **meta)
    assert (status, reply["status"]) == (202, True)
    assert answered(server.server_port, "objPut", **meta)[1]["job"] == reply["job"]
    status, headers, text = get(server, f"/api/v1/jobs/{reply['job']}/events")
    assert (status, headers["Content-Type"]) == (200, "text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line]
    assert events[-1]["state"] == "done"
    assert events[-1]["reply"]["objectFileList"] == ["x/a"]
    assert get(server, "/api/v1/jobs/none/events")[0] == 404
    assert get(server, "/api/v1/jobs/none")[0] == 404


@pytest.mark.parametrize(
    ("permissions", "end", "status"),
    [("write chris/x/other/", "", 403), (None, "", 401), ("write chris/x/", " expires=2020-01-01", 401)],
    ids=["narrowed", "revoked", "expired"],
)
def test_events_end_with_the_right_to_see_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, permissions: str | None, end: str, status: int
) -> None:
    monkeypatch.setattr(scheduler, "HEARTBEAT", 0.02)
    token, path = "w-0123456789abcdef", tmp_path / "tokens.cfg"

    def write(permissions: str | None, end: str = "") -> None:
        names = {"boss": "admin", **({"ann": permissions} if permissions else {})}
        tokens = "".join(f"{name} = {token + end if name == 'ann' else token[::-1]}\n" for name in names)
        grants = "".join(f"{name} = {grant}\n" for name, grant in names.items())
        path.write_text(f"[AUTH TOKENS]\n{tokens}[TOKEN RIGHTS]\n{grants}")
        path.chmod(0o600)

    write("write chris/x/")
    storage = Held()
    storage.put("chris/x/patient", io.BytesIO(b"12345"), 5)
    options = ServerOptions(token_path=str(path))
    server = ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), options)
    bearer = {"Authorization": f"Bearer {token}"}
    pull = {"path": "chris/x", "mapLocationOver": "out", "async": True}
    with running_server(server):
        job = ask(server, {"action": "objPull", "meta": pull}, **bearer)[1]["job"]
        assert storage.asked.acquire(timeout=60)
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", f"/api/v1/jobs/{job}/events", headers=bearer)
            events = connection.getresponse()
            assert events.readline().startswith(b"data: ")
            write(permissions, end)
            with pytest.raises(http.client.IncompleteRead):
                sum(len(events.read(200)) for _ in range(1000))  # they would come for ever
        assert get(server, f"/api/v1/jobs/{job}/events", **bearer)[0] == status
        storage.release.set()


def test_a_killed_server_goes_on_with_its_jobs(tmp_path: Path) -> None:
    trees = {f"data{n}/{i}": bytes([n, i]) * 5000 for n in range(10) for i in range(30)}
    write_tree(tmp_path, trees)
    flags = (*STORE, "--forever", "--stateDir", "state", "--bwLimit", "2M")
    with server_process(tmp_path, *flags) as served:
        for n in range(10):
            meta = {
                "putSpec": f"data{n}",
                "inLocation": f"x{n}",
                "mapLocationOver": f"data{n}",
                "async": True,
            }
            assert answered(served.port, "objPut", **meta, jid=f"job-{n}")[0] == 202
        time.sleep(0.3)
        served.process.kill()
        served.ends()
    with server_process(tmp_path, *flags) as served:
        for n in range(10):
            _, reply = answered(served.port, "jobStatus", jid=f"job-{n}", wait=60)
            assert (reply["state"], reply["reply"]["status"]) == ("done", True)
        _, listed = answered(served.port, "ls")
        assert len(listed["ls"]) == len(trees)
        for n in range(10):
            meta = {"fromLocation": f"x{n}", "mapLocationOver": f"data{n}"}
            assert answered(served.port, "objVerify", **meta)[1]["same"] == 30
        served.process.send_signal(signal.SIGTERM)
        assert served.ends()[0] == 0
