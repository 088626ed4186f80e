"""Ten jobs in a process that is killed in their middle, and in the next process. A job that is cancelled."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.access.principal import Principal
from pfstorage.actions import RequestContext
from pfstorage.devswift import DevSwift
from pfstorage.jobs.scheduler import JobScheduler
from tests.conftest import ROOT, read_tree, swift_options, write_tree
from tests.support.faults import Fault, Proxy, proxy_to
from tests.support.large import orphans, raw_connection, stored
from tests.support.processes import parts, wait_until

SEGMENT = 128 * 1024
JOBS = 10
FILES = {f"{number:02}.dcm": random.Random(number).randbytes(2000 + number) for number in range(12)}
FILES["05-large"] = random.Random(99).randbytes(3 * SEGMENT + 100)
FEW = {name: FILES[name] for name in sorted(FILES)[:6]}
"""The files of each of the ten jobs."""
METHOD = {"objPush": "PUT", "objPull": "GET"}

SERVER = """if True:
    import json, sys, threading
    from pfstorage import StoreHandler, open_storage
    from pfstorage.access.principal import Principal
    from pfstorage.actions import RequestContext
    from pfstorage.jobs.scheduler import JobScheduler

    state, options, messages = sys.argv[1], *map(json.loads, sys.argv[2:])
    handler = StoreHandler(open_storage(**options))
    for name in ("segmentSize", "rangeSize"):
        handler.state.set(f"/this/{name}", "128K")
    handler.state.set("/this/workers", 2)
    jobs = JobScheduler(handler.job_runner(RequestContext(Principal(is_trusted=False))), state, max_running=3)
    context = RequestContext(Principal(is_trusted=False), jobs=jobs)
    jobs.start()
    if messages:
        print(json.dumps([handler.run(each, context) for each in messages]), flush=True)
        threading.Event().wait()
    listed = handler.run({"action": "jobList"}, context)["jobs"]
    for each in listed:
        status = {"action": "jobStatus", "meta": {"job": each["job"], "wait": 60}}
        print(json.dumps(handler.run(status, context)), flush=True)
    jobs.close(10)
"""


class Server:
    """A process with jobs over one store, and the state that it leaves to the next."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    @contextlib.contextmanager
    def started(self, messages: list[dict[str, Any]]) -> Iterator[subprocess.Popen[str]]:
        """Run a process that starts jobs for *messages*, or waits for the old ones, and prints each result."""
        given = ["state", json.dumps(self.options), json.dumps(messages)]
        command = [sys.executable, "-c", SERVER, *given]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def finish(self) -> list[dict[str, Any]]:
        with self.started([]) as process:
            said, complaints = process.communicate(timeout=90)
        assert process.returncode == 0, complaints
        return [json.loads(line) for line in said.splitlines()]


@pytest.fixture
def options(swift: DevSwift) -> dict[str, Any]:
    """A container of the real Swift, and the one of its segments."""
    options = swift_options(swift, retries=3)
    with raw_connection(swift) as raw:
        raw.put_container(options["container_name"])
        raw.put_container(f"{options['container_name']}_segments")
    return options


def messages_of(action: str) -> list[dict[str, Any]]:
    metas = {
        "objPush": [
            {"putSpec": f"data/{each}", "inLocation": f"s/{each}", "mapLocationOver": f"data/{each}"}
            for each in range(JOBS)
        ],
        "objPull": [{"fromLocation": f"s/{each}", "mapLocationOver": f"out/{each}"} for each in range(JOBS)],
    }
    return [
        {"action": action, "meta": {**meta, "async": True, "jid": f"feed {number}"}}
        for number, meta in enumerate(metas[action])
    ]


def there(action: str, swift: DevSwift, container: str) -> dict[str, bytes]:
    if action == "objPull":
        return read_tree(Path("out"))
    return {key.removeprefix("s/"): content for key, content in stored(swift, container).items()}


@pytest.mark.parametrize("moment", [5, 25, 50])
@pytest.mark.parametrize("action", ["objPush", "objPull"])
def test_the_next_process_runs_the_jobs_of_a_killed_one(
    swift: DevSwift, options: dict[str, Any], action: str, moment: int
) -> None:
    trees = {f"{tree}/{name}": content for tree in range(JOBS) for name, content in FEW.items()}
    write_tree(Path("data"), trees)
    container = options["container_name"]
    if action == "objPull":
        with raw_connection(swift) as raw:
            for name, content in trees.items():
                raw.put_object(container, f"s/{name}", content)
    with proxy_to(swift.port) as proxy:
        proxy.fault(Fault("stall", side="request", seconds=0.02), METHOD[action])
        server = Server({**options, "auth_url": proxy.auth_url})
        begun = _begun_and_killed(server, proxy, action, moment)
        assert there(action, swift, container) != trees
        proxy.forget()
        over = server.finish()
        assert {each["job"] for each in over} == begun
        assert [each["state"] for each in over] == ["done"] * JOBS, over
        assert all(each["reply"]["status"] for each in over)
    assert there(action, swift, container) == trees
    assert parts() == []
    assert orphans(swift, container) == set()


def _begun_and_killed(server: Server, proxy: Proxy, action: str, moment: int) -> set[str]:
    """Begin the ten jobs, kill the process once it has sent *moment* requests for files; return their ids."""
    with server.started(messages_of(action)) as process:
        assert process.stdout is not None
        replies = json.loads(process.stdout.readline())
        wait_until(lambda: len(proxy.made(METHOD[action])) >= moment, process)
        process.send_signal(signal.SIGKILL)
    assert all(each["status"] for each in replies)
    return {each["job"] for each in replies}


def _prepared(swift: DevSwift, container: str, action: str) -> dict[str, Any]:
    """Make the files or objects that *action* moves. Return its message."""
    write_tree(Path("data/0"), FILES)
    if action == "objPull":
        with raw_connection(swift) as raw:
            for name, content in FILES.items():
                raw.put_object(container, f"s/0/{name}", content)
    return messages_of(action)[0]


@contextlib.contextmanager
def _stalling(swift: DevSwift, options: dict[str, Any], action: str) -> Iterator[tuple[StoreHandler, Proxy]]:
    """Make a handler with two workers, whose store stalls after some files of *action*; its proxy forgets that."""
    with proxy_to(swift.port) as proxy, open_storage(**{**options, "auth_url": proxy.auth_url}) as storage:
        handler = StoreHandler(storage)
        handler.state.set("/this/workers", 2)
        proxy.fault(Fault("stall", side="request", seconds=60), METHOD[action], range(6, 100))
        yield handler, proxy


def _until_two_are_moved(jobs: JobScheduler, job: str) -> None:
    for event in jobs.events(job):
        if event["progress"]["files"] >= 2:
            break


@pytest.mark.parametrize("action", ["objPush", "objPull"])
def test_a_cancelled_job_ends_soon_and_its_message_can_continue(
    swift: DevSwift, options: dict[str, Any], action: str
) -> None:
    container = options["container_name"]
    message = _prepared(swift, container, action)
    with _stalling(swift, options, action) as (handler, proxy):
        jobs = JobScheduler(handler.job_runner(RequestContext(Principal(is_trusted=False))), "state")
        context = RequestContext(Principal(is_trusted=False), jobs=jobs)
        jobs.start()

        def ask(action: str, **meta: Any) -> dict[str, Any]:
            return handler.run({"action": action, "meta": meta}, context)

        job = handler.run(message, context)["job"]
        _until_two_are_moved(jobs, job)
        assert ask("jobCancel", job=job)["status"] is True
        over = ask("jobStatus", job=job, wait=20)
        assert (over["state"], over["reply"]["error"]["type"]) == ("cancelled", "StoppedError")
        reasons = [each["msg"] for each in ask("jobList")["jobs"]]
        assert reasons == [over["msg"]] == [over["reply"]["msg"]]
        assert reasons[0].startswith("stopped before the end: the job was cancelled")
        done = over["reply"]["objectFileList"]
        assert 2 <= len(done) <= 5
        assert ask("jobCancel", job=job)["status"] is True
        proxy.forget()
        again = handler.run({"action": action, "meta": {**message["meta"], "jid": "again"}}, context)["job"]
        over = ask("jobStatus", job=again, wait=30)
        assert over["state"] == "done", over
        assert over["reply"]["skipped"] >= len(done)
        assert ask("jobCancel", job=again)["status"] is False
        jobs.close(10)
    assert there(action, swift, container) == {f"0/{name}": content for name, content in FILES.items()}


@pytest.mark.parametrize("action", ["objPush", "objPull"])
def test_a_process_that_ends_queues_its_jobs_for_the_next(
    swift: DevSwift, options: dict[str, Any], action: str
) -> None:
    container = options["container_name"]
    message = _prepared(swift, container, action)
    with _stalling(swift, options, action) as (handler, proxy):
        jobs = JobScheduler(handler.job_runner(RequestContext(Principal(is_trusted=False))), "state")
        jobs.start()
        job = handler.run(message, RequestContext(jobs=jobs))["job"]
        _until_two_are_moved(jobs, job)
        jobs.close(10)
        proxy.forget()
        jobs = JobScheduler(handler.job_runner(RequestContext(Principal(is_trusted=False))), "state")
        assert jobs.status(job).state == "queued"
        jobs.start()
        over = jobs.status(job, 30)
        jobs.close(10)
    assert over.state == "done"
    assert over.reply is not None
    assert over.reply["skipped"] >= 2
    assert there(action, swift, container) == {f"0/{name}": content for name, content in FILES.items()}
