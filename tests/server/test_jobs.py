"""Jobs over HTTP."""

from __future__ import annotations

import contextlib
import json

from pfstorage import StoreHandler
from pfstorage.actions import RequestContext
from pfstorage.backends.memory import MemoryStorage
from pfstorage.settings.model import Settings
from tests.conftest import ask, client, serving


def test_each_interface_returns_the_whole_of_a_long_job_reply() -> None:
    storage = MemoryStorage(Settings(type="memory"))
    message = {"action": "objPut", "meta": {"fileList": [f"missing/{number:05}" for number in range(3000)]}}
    with contextlib.closing(StoreHandler(storage)) as handler, serving(handler) as server:
        expected = ask(server, message)[1]
        assert len(expected["failed"]) == 3000
        message["meta"]["async"] = True
        job = ask(server, message)[1]["job"]
        by_http = ask(server, {"action": "jobStatus", "meta": {"job": job, "wait": 30}})[1]
        with contextlib.closing(client(server.server_port)) as connection:
            connection.request("GET", f"/api/v1/jobs/{job}/events")
            *_, last = connection.getresponse().read().decode().strip().split("\n\n")
        context = RequestContext(jobs=server._jobs)
        by_python = handler.run({"action": "jobStatus", "meta": {"job": job}}, context)
        assert type(by_python["reply"]) is dict
        for received in (by_http, by_python, json.loads(last.removeprefix("data: "))):
            assert {**received["reply"], "seconds": 0} == {**expected, "seconds": 0}
