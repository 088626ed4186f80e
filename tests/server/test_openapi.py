"""The OpenAPI document describes the behaviour of the server."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.client
import json
import operator
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jsonschema_rs
import pytest
import schemathesis

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.actions import ACTIONS, Action
from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from pfstorage.errors import MethodNotAllowedError, UnknownPathError
from pfstorage.server.endpoints.schemas import kinds
from pfstorage.server.options import ServerOptions
from pfstorage.settings.model import Settings
from pfstorage.wire.fields import camel_case
from pfstorage.wire.reply import Reply
from pfstorage.wire.status import status_of
from tests.conftest import ROOT, ask, running_server, serving, swift_options, unmeasured, write_tree

OPENAPI = "/api/v1/openapi.json"
TOKEN = "a-token-that-may-write-but-not-quit"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadedHTTPServer]:
    options = ServerOptions(fs_roots=(str(tmp_path_factory.mktemp("root")),))
    with contextlib.ExitStack() as stack:
        handler = StoreHandler(stack.enter_context(open_storage(type="memory")))
        yield stack.enter_context(running_server(ThreadedHTTPServer(("127.0.0.1", 0), handler, options)))


@pytest.fixture(scope="module")
def document(server: ThreadedHTTPServer) -> Any:
    status, found = ask(server, method="GET", path=OPENAPI)
    assert status == 200
    return found


def operations(document: Any) -> dict[str, Any]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_the_document_is_openapi(document: Any) -> None:
    assert document["openapi"].startswith("3.1.")
    schemathesis.openapi.from_dict(document).validate()
    names = [operation["operationId"] for operation in operations(document).values()]
    assert len(set(names)) == len(names)


def at(document: Any, part: Any) -> Any:
    """Return *part*, or the schema that it refers to."""
    place = part.get("$ref", "#").split("/")[1:]
    return functools.reduce(operator.getitem, place, document) if place else part


def test_each_reference_exists(document: Any) -> None:
    places = re.findall(r'"(#/[^"]+)"', json.dumps(document))
    assert places
    assert all(at(document, {"$ref": place}) for place in places)


def test_the_paths_are_those_of_the_router(server: ThreadedHTTPServer, document: Any) -> None:
    routes = [route for route in server.router.routes if not route.is_bare]
    templates = {
        path: next(route for route in routes if path == route.path or path.startswith(f"{route.path}{{"))
        for path in document["paths"]
    }
    assert sorted(route.path for route in templates.values()) == sorted(route.path for route in routes)
    for path, route in templates.items():
        assert ("{" in path) is route.is_prefix
        described = document["paths"][path]
        assert [method.upper() for method in described] == list(route.methods)
        assert all((each.get("security") == []) is route.is_public for each in described.values())
        assert all(("401" in each["responses"]) is not route.is_public for each in described.values())


def message_of(document: Any, name: str) -> Any:
    messages = document["components"]["schemas"]["Message"]
    reference = {"$ref": messages["discriminator"]["mapping"][name]}
    assert reference in messages["oneOf"]
    return at(document, reference)


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_the_document_has_each_action_with_its_metas(document: Any, action: Action) -> None:
    message = message_of(document, action.name)
    assert message["properties"]["action"] == {"const": action.name}
    assert message["description"]
    meta = at(document, message["properties"]["meta"])
    wanted = {
        name: json.loads(json.dumps(field.default))
        for field in dataclasses.fields(action.meta)
        for name in (camel_case(field.name), *field.metadata.get("aliases", ()))
    }
    assert {name: schema.get("default") for name, schema in meta["properties"].items()} == wanted


def test_the_document_has_no_unknown_action(document: Any) -> None:
    assert set(document["components"]["schemas"]["Message"]["discriminator"]["mapping"]) == set(ACTIONS)


def test_an_action_that_is_added_shows_up_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class FlyMeta:
        how_high: int = 3

    class Flying(StoreHandler):
        def land_process(self, *, request: Any) -> Any:
            return {"status": True}

    monkeypatch.setitem(ACTIONS, "fly", Action("fly", FlyMeta, lambda *_: Reply({"status": True}), False))
    with open_storage(type="memory") as storage, serving(Flying(storage)) as server:
        document = ask(server, method="GET", path=OPENAPI)[1]
    assert message_of(document, "fly")["properties"]["meta"] == {"$ref": "#/components/schemas/FlyMeta"}
    meta = document["components"]["schemas"]["FlyMeta"]["properties"]
    assert meta == {"howHigh": {"type": "integer", "default": 3}}
    assert message_of(document, "land")["properties"]["meta"] == {"type": "object"}


def request_of(template: str, operation: Any) -> tuple[str, dict[str, str]]:
    """Return the path with its query, and the headers, that the examples of *operation* make."""
    path, query, headers = template, {}, {}
    for each in operation["parameters"][:-1]:
        example = each.get("example", each.get("content", {}).get("application/json", {}).get("example"))
        text = example if isinstance(example, str) else json.dumps(example)
        if each["in"] == "path":
            path = path.replace(f"{{{each['name']}}}", quote(text, safe=""))
        elif example is not None:
            (query if each["in"] == "query" else headers)[each["name"]] = text
    return path + (f"?{urlencode(query)}" if query else ""), headers


def values_of(kind: str, text: str) -> list[Any]:
    """Return the schema of a content: of the whole, or of each event."""
    if kind == "text/event-stream":
        return [{"data": event.removeprefix("data: ")} for event in text.split("\n\n")[:-1]]
    return [json.loads(text) if kind == "application/json" else text]


def is_as_documented(document: Any, operation: Any, answer: http.client.HTTPResponse) -> bool:
    response = at(document, operation["responses"][str(answer.status)])
    assert all(name in answer.headers for name in response["headers"])
    kind = (answer.headers["Content-Type"] or "").partition(";")[0]
    content = answer.read()
    if "content" in response and content:
        found = {name.partition(";")[0]: of["schema"] for name, of in response["content"].items()}
        schema = found.get(kind, found.get("*/*"))
        assert schema is not None, kind
        for value in values_of(kind, content.decode()):
            jsonschema_rs.validator_for({**schema, "components": document["components"]}).validate(value)
    return True


def test_examples_get_documented_answers(server: ThreadedHTTPServer, document: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    order = ("put", "post", "get", "head")
    found = {(path, method): each for path, of in document["paths"].items() for method, each in of.items()}
    for (path, method), operation in sorted(found.items(), key=lambda each: order.index(each[0][1])):
        target, headers = request_of(path, operation)
        for kind, of in at(document, operation.get("requestBody", {"content": {"": {}}}))["content"].items():
            examples = [each["value"] for each in of.get("examples", {}).values()] or [of.get("example")]
            for example in examples:
                body = json.dumps(example) if isinstance(example, dict) else example
                connection.request(method.upper(), target, body, {**headers, "Content-Type": kind})
                answer = connection.getresponse()
                is_example = kind != "" and example is not None
                assert answer.status < 300 or not is_example, answer.read()
                assert is_as_documented(document, operation, answer)
    connection.close()


def test_the_documented_replies_to_examples_are_real(server: ThreadedHTTPServer, document: Any) -> None:
    operation = document["paths"]["/api/v1/cmd"]["post"]
    messages = at(document, operation["requestBody"])["content"]["application/json"]["examples"]
    replies = at(document, operation["responses"]["200"])["content"]["application/json"]["examples"]
    assert replies
    for name, reply in replies.items():
        assert ask(server, messages[name]["value"]) == (200, reply["value"])


def test_links_lead_from_a_job_to_its_events_and_from_an_upload_to_its_object(
    server: ThreadedHTTPServer, document: Any
) -> None:
    of_command = document["paths"]["/api/v1/cmd"]["post"]
    body = at(document, of_command["requestBody"])
    message = body["content"]["application/json"]["examples"]["job"]["value"]
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request("PUT", "/api/v1/objects/chris/pulled.txt", b"content")
    assert connection.getresponse().read()
    status, reply = ask(server, message)
    link = at(document, of_command["responses"][str(status)])["links"]["events"]
    assert (status, link["parameters"]) == (202, {"id": "$response.body#/job"})
    path = "/api/v1/jobs/{id}/events"
    assert document["paths"][path]["get"]["operationId"] == link["operationId"]
    connection.request("GET", path.replace("{id}", reply["job"]))
    answer = connection.getresponse()
    events = values_of("text/event-stream", answer.read().decode())
    connection.close()
    [described] = document["paths"][path]["get"]["responses"]["200"]["content"].values()
    job = described["schema"]["properties"]["data"]["contentSchema"]
    validator = jsonschema_rs.validator_for({**job, "components": document["components"]})
    received = [json.loads(event["data"]) for event in events]
    assert all(validator.is_valid(each) for each in received)
    assert received[-1]["state"] == "done"
    paths = document["paths"]["/api/v1/objects/{key}"]
    link = paths["put"]["responses"]["201"]["links"]["object"]
    assert link == {
        "operationId": paths["get"]["operationId"],
        "parameters": {"key": "$request.path.key"},
    }


def test_a_response_without_content_has_no_length(server: ThreadedHTTPServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request("PUT", "/api/v1/objects/same", b"content")
    etag = connection.getresponse().headers["ETag"]
    connection.close()
    connection.request("GET", "/api/v1/objects/same", headers={"If-None-Match": etag})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Content-Length"], answer.read()) == (304, None, b"")
    connection.request("GET", "/healthz")  # by the same connection
    assert connection.getresponse().status == 200
    connection.close()


def test_the_document_needs_no_token(tmp_path: Path) -> None:
    with open_storage(type="memory") as storage, with_token(storage, tmp_path) as server:
        assert ask(server, method="GET", path=OPENAPI)[0] == 200
        assert ask(server, method="GET", path="/api/v1/objects")[0] == 401


def test_a_server_that_replies_html_says_so() -> None:
    handler = StoreHandler(settings=Settings(type="memory", http_response=True))
    with contextlib.closing(handler), serving(handler) as server:
        for is_html, kind in [(True, "text/html; charset=utf-8"), (False, "application/json")]:
            handler.state.set("/this/httpResponse", is_html)
            document = ask(server, method="GET", path=OPENAPI)[1]
            responses = document["paths"]["/api/v1/cmd"]["post"]["responses"]
            assert list(at(document, responses["200"])["content"]) == [kind]


def test_each_error_is_documented_by_its_status(document: Any) -> None:
    operation = document["paths"]["/api/v1/cmd"]["post"]
    for kind in kinds() - {UnknownPathError, MethodNotAllowedError}:
        response = at(document, operation["responses"][str(int(status_of(kind(""))))])
        error = at(document, response["content"]["application/json"]["schema"])["properties"]["error"]
        assert kind.__name__ in error["allOf"][1]["properties"]["type"]["enum"]


@contextlib.contextmanager
def with_token(storage: Storage, directory: Path) -> Iterator[ThreadedHTTPServer]:
    """Serve *storage*, the files below *directory*, and jobs, to clients with `TOKEN`."""
    tokens = directory / "tokens.cfg"
    tokens.write_text(f"[AUTH TOKENS]\nfuzz = {TOKEN}\n[TOKEN RIGHTS]\nfuzz = write\n")
    tokens.chmod(0o600)
    write_tree(directory / "root", {"a.txt": b"a", "b/c.txt": b"c"})
    roots, state = (str(directory / "root"),), str(directory / "state")
    options = ServerOptions(token_path=str(tokens), fs_roots=roots, state_dir=state)
    with running_server(ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), options)) as server:
        yield server


def command(page: str) -> list[str]:
    """Return the flags of the schemathesis that the page says to run."""
    text = (ROOT / "docs" / page).read_text().replace("\\\n", " ")
    [line] = re.findall(r"^ *schemathesis (run .*)$", text, re.MULTILINE)
    return shlex.split(line)


@pytest.mark.slow
@pytest.mark.no_cover
def test_random_requests_get_documented_answers(swift: DevSwift, tmp_path: Path) -> None:
    """Expect no 500, no dropped connection and no undocumented answer. Each run sends the same requests."""
    with open_storage(**swift_options(swift)) as storage, with_token(storage, tmp_path) as server:
        flags = [
            each.replace("http://127.0.0.1:4055", f"http://127.0.0.1:{server.server_port}").replace(
                "TOKEN", TOKEN
            )
            for each in command("server.rst")
        ]
        bounds = ["--max-examples", "8", "--generation-deterministic", "--seed", "1", "--no-color"]
        more = ["--request-timeout", "30"]
        with unmeasured():
            done = subprocess.run(
                [sys.executable, "-m", "schemathesis.cli", *flags, *bounds, *more],
                capture_output=True,
                text=True,
                cwd=tmp_path,
                timeout=300,
            )
        assert done.returncode == 0, done.stdout + done.stderr
        assert ask(server, method="GET", path="/readyz")[0] == 200
