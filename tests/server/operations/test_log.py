"""The log of a server: one line for each request."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from pfstorage import ThreadedHTTPServer
from tests.conftest import write_tree
from tests.support.exchange import answer, exchange, message, post, request, server_process
from tests.support.operations import CMD, STORE, get


def test_each_request_is_a_line_without_a_name(tmp_path: Path) -> None:
    write_tree(tmp_path, {"data/DOE^JANE.dcm": b"1"})
    meta = {"putSpec": "data", "inLocation": "DOE-JANE", "mapLocationOver": "data"}
    with server_process(tmp_path, *STORE, "--forever", "--logFormat", "json") as served:
        some = message("objPut", fileList=["data/DOE^JANE.dcm", "data/none"], inLocation="DOE-JANE")
        quit_ = message("quit", ctl={"serverCmd": "fly"})
        # a connection each, to its end, which comes after the line: so they are in this order
        for body in (message("objPut", **meta), message("ls", path="DOE-JANE"), "{", some, quit_):
            assert answer(served.port, post(body, "X-Request-Id: abc/1")).headers["x-request-id"] == "abc/1"
        for method, path in (("GET", "/DOE-JANE"), ("DOE-JANE", CMD), ("PATCH", CMD)):
            exchange(served.port, request(method, path))
        assert exchange(served.port, b"DOE JANE HTTP/2.0\r\n\r\n").startswith(b"HTTP/1.1 505 ")
        served.process.send_signal(signal.SIGTERM)
        status, said = served.ends()
    assert status == 0
    assert "DOE" not in said
    lines = [json.loads(line) for line in said.splitlines()]
    shown = [(each["action"], each["status"]) for each in lines if "action" in each]
    assert shown == [
        ("objPut", 200),
        ("ls", 200),
        ("/api/v1/cmd", 400),
        ("objPut", 200),
        ("quit", 400),
        ("", 404),
        ("/api/v1/cmd", 405),
        ("/api/v1/cmd", 405),
        ("", 505),
    ]
    assert [each["method"] for each in lines if "action" in each] == ["POST"] * 5 + [
        "GET",
        "other",
        "PATCH",
        "",
    ]
    assert [each["id"] for each in lines if "action" in each][:5] == ["abc/1"] * 5
    errors = [(each["error"], each["level"]) for each in lines if "action" in each]
    assert errors == [
        ("", "INFO"),
        ("", "INFO"),
        ("MessageError", "INFO"),
        ("LocalFileError", "WARNING"),  # half of the files
        ("MessageError", "INFO"),
        ("UnknownPathError", "INFO"),
        ("MethodNotAllowedError", "INFO"),
        ("MethodNotAllowedError", "INFO"),
        ("MessageError", "INFO"),
    ]


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "a\tb", "\xe4"])
def test_an_id_that_could_confuse_the_log_is_not_taken_over(server: ThreadedHTTPServer, name: str) -> None:
    _, headers, _ = get(server, "/healthz", **{"X-Request-Id": name})
    assert headers["X-Request-Id"] != name
    assert len(headers["X-Request-Id"]) == 16
