"""The pages describe the code: tests compare the tables with it, and run the examples."""

from __future__ import annotations

import configparser
import dataclasses
import importlib
import inspect
import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree

import docutils.core
import docutils.nodes
import pytest
import yaml

from pfstorage import StoreHandler, ThreadedHTTPServer, errors, open_storage
from pfstorage._version import __version__
from pfstorage.access.permissions import LEVELS, Permissions
from pfstorage.actions import ACTIONS, Action, RequestContext
from pfstorage.actions.jobs import MAX_WAIT_SECONDS
from pfstorage.actions.service import ECHO_GROWTH
from pfstorage.cli.flags import build_parser
from pfstorage.jobs.model import JobRequest
from pfstorage.jobs.scheduler import JobScheduler
from pfstorage.keys.selection import MAX_GLOBS
from pfstorage.server import admission
from pfstorage.server.http1 import body
from pfstorage.server.http1.connection import SPEED_UP
from pfstorage.server.http1.head import MAX_HEAD
from pfstorage.server.options import ServerOptions
from pfstorage.server.server import seconds_to_end
from pfstorage.server.tokens import make_token
from pfstorage.settings import model as config
from pfstorage.settings import sources
from pfstorage.settings.flags import FLAGS, SERVER_FLAGS, VARIABLES
from pfstorage.settings.state import MAX_PATH_DEPTH
from pfstorage.wire.converters import FromTo
from pfstorage.wire.decoding import MAX_CONTAINERS, MAX_DEPTH
from pfstorage.wire.fields import MAX_ITEMS, MAX_TEXT_LENGTH, camel_case, wire_fields
from pfstorage.wire.status import STATUS_BY_ERROR, status_of
from tests.conftest import ROOT, Command, ask, running_server, serving, write_tree
from tests.support.image import instructions

DOCS = ROOT / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("*.rst"))
VOLATILE = {"seconds", "last_modified", "now", "currentWorkingDir"}
VOLATILE |= {"job", "created", "started", "finished", "bytesPerSecond"}


# The fields of the server's options, by the names of their flags.
SERVER_FIELDS = {
    name: field.name
    for field in dataclasses.fields(ServerOptions)
    for name in (camel_case(field.name), *field.metadata.get("aliases", ()))
    if name in {flag.name for flag in SERVER_FLAGS}
}


class Block(NamedTuple):
    """A code block that has a caption."""

    caption: str
    language: str
    text: str


class Page:
    """One page as Sphinx reads it, or a section of it."""

    def __init__(self, root: ElementTree.Element) -> None:
        self._root = root

    def section(self, title: str) -> Page:
        [found] = [each for each in self._root.iter("section") if _text(each.find("title")) == title]
        return Page(found)

    @property
    def titles(self) -> list[str]:
        return [_text(each.find("title")) for each in self._root.iter("section")]

    def table(self, title: str) -> list[dict[str, str]]:
        """Return the rows of the only table of that title, as dicts by the names of its columns."""
        [rows] = [
            [[_text(cell) for cell in row.iter("entry")] for row in table.iter("row")]
            for table in self._root.iter("table")
            if _text(table.find("title")) == title
        ]
        names, *others = rows
        return [dict(zip(names, cells, strict=True)) for cells in others]

    @property
    def bullets(self) -> list[str]:
        return [_text(each) for each in self._root.iter("list_item")]

    def blocks(self) -> list[Block]:
        captioned = [each for each in self._root.iter("container") if each.find("caption") is not None]
        found = [(_text(each.find("caption")), each.find("literal_block")) for each in captioned]
        return [
            Block(caption, block.get("language", ""), "".join(block.itertext())) for caption, block in found
        ]

    def all_code(self) -> Iterator[tuple[str, str]]:
        for block in self._root.iter("literal_block"):
            yield block.get("language", ""), "".join(block.itertext())


def _text(element: ElementTree.Element | None) -> str:
    return "" if element is None else " ".join("".join(element.itertext()).split())


def build(builder: str, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-E", "-b", builder]
    flags = ["-d", str(target / "doctrees"), str(DOCS), str(target / builder)]
    return subprocess.run([*command, *flags], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    target = tmp_path_factory.mktemp("docs")
    built = build("xml", target)
    assert (built.returncode, built.stderr) == (0, "")
    return {name: Page(ElementTree.parse(target / "xml" / f"{name}.xml").getroot()) for name in PAGES}


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    built = build("html", tmp_path)
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    assert (tmp_path / "html" / "index.html").exists()


@pytest.mark.parametrize("page", PAGES)
def test_every_python_and_json_block_can_be_read(pages: dict[str, Page], page: str) -> None:
    for language, text in pages[page].all_code():
        if language == "python":
            compile(text, page, "exec")
        if language == "json":
            json.loads(text)


# deployment.rst


def block_of(page: Page, caption: str) -> str:
    [text] = [block.text for block in page.blocks() if block.caption == caption]
    return text


def run_block(text: str, directory: Path) -> None:
    command = ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done


def test_the_certificate_is_believed_as_the_page_says(
    pages: dict[str, Page], tmp_path: Path, command: Command
) -> None:
    run_block(block_of(pages["deployment"], "a certificate for a test"), tmp_path)
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{make_token()}\n")
    tokens.chmod(0o600)
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    options = ServerOptions(tls_cert=cert, tls_key=key, token_path=str(tokens))
    with open_storage("memory") as storage:
        storage.put("a", io.BytesIO(b"a"), 1)
        server = ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), options)
        with running_server(server):
            text = block_of(pages["deployment"], "by TLS").replace(
                "localhost:4055", f"localhost:{server.server_port}"
            )
            remote, curl = text.splitlines()
            _, *flags = shlex.split(remote)
            assert command(*flags).returncode == 0
            if shutil.which("curl"):
                run_block(curl, tmp_path)


def test_the_unit_of_systemd_is_one(pages: dict[str, Page], tmp_path: Path) -> None:
    text = block_of(pages["deployment"], "pfstorage.service")
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(text)
    assert list(unit) == ["DEFAULT", "Unit", "Service", "Install"]
    service = unit["Service"]
    command = service["ExecStart"].split()
    assert command[0] == "/usr/local/bin/pfstorage"
    options = build_parser().parse_args(command[1:])
    assert (options.server, options.b_forever, options.b_enableTokenAuth) == (True, True, True)
    assert service["ReadWritePaths"] in options.fsRoot
    assert float(service["TimeoutStopSec"]) > seconds_to_end(options.graceSeconds)
    prepared = block_of(pages["deployment"], "as root")
    directory = Path(options.tokenPath).parent
    assert f"cd {directory}\n" in prepared
    for path in (options.tokenPath, options.swiftKey[1:], options.tlsCert, options.tlsKey):
        assert Path(path).parent == directory
        assert f" {Path(path).name}" in prepared.splitlines()[-1]
    if shutil.which("systemd-analyze"):
        path = tmp_path / "pfstorage.service"
        path.write_text(text.replace("/usr/local/bin/pfstorage", "/bin/true"))
        checked = subprocess.run(
            ["systemd-analyze", "verify", path], capture_output=True, text=True, timeout=60
        )
        assert path.name not in checked.stderr, checked.stderr


@pytest.fixture
def services(pages: dict[str, Page]) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(block_of(pages["deployment"], "docker-compose.yml"))
    assert set(content) == {"services", "secrets", "volumes"}
    return content


def test_the_services_of_docker_are_the_image_and_its_store(services: dict[str, Any]) -> None:
    store, server = services["services"]["store"], services["services"]["pfstorage"]
    assert set(services["services"]) == {"store", "pfstorage"}
    assert (server["depends_on"], server["build"]) == (["store"], ".")
    assert server["environment"]["SWIFT_USERNAME"] == store["environment"]["SWIFT_USERNAME"]
    assert all(port.startswith("127.0.0.1:") for port in server["ports"])
    options = build_parser().parse_args(server["command"].split())
    assert (options.server, options.b_forever, options.ipSelf) == (True, True, "0.0.0.0")
    assert float(server["stop_grace_period"].removesuffix("s")) > seconds_to_end(options.graceSeconds)
    mounted = dict(volume.split(":")[::-1] for volume in server["volumes"])
    assert mounted.keys() == {*options.fsRoot, options.stateDir, server["environment"]["TMPDIR"]}
    made = next(words for name, words in instructions() if "--owner=1000" in words).split()
    assert mounted.keys() <= set(made)
    volumes = {name for name in mounted.values() if not name.startswith(".")}
    assert volumes | {"store"} == set(services["volumes"])


def test_the_secrets_of_docker_are_those_that_the_server_reads(
    services: dict[str, Any], pages: dict[str, Page]
) -> None:
    server, prepared = (
        services["services"]["pfstorage"],
        block_of(pages["deployment"], "next to docker-compose.yml"),
    )
    options = build_parser().parse_args(server["command"].split())
    read = {options.tokenPath, options.swiftKey[1:]}
    assert {f"/run/secrets/{name}" for name in server["secrets"]} == read
    assert set(services["secrets"]) == set(server["secrets"])
    for each in services["secrets"].values():
        assert f"> {Path(each['file']).name}" in prepared
    assert f"echo {services['services']['store']['environment']['SWIFT_KEY']} > swift_key" in prepared


def test_the_probe_of_docker_reports_whether_the_server_is_alive(services: dict[str, Any]) -> None:
    kind, program, *words = services["services"]["pfstorage"]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    assert "127.0.0.1:4055" in words[-1]
    server = ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(open_storage("memory")), ServerOptions())
    probe = [sys.executable, *words[:-1], words[-1].replace("4055", str(server.server_port))]
    with running_server(server):
        assert subprocess.run(probe, timeout=30).returncode == 0
    assert subprocess.run(probe, stderr=subprocess.DEVNULL, timeout=30).returncode != 0


def test_the_troubles_are_errors_with_their_statuses(pages: dict[str, Page]) -> None:
    rows = pages["deployment"].table("trouble")
    assert all(row["cause"] and row["what to do"] for row in rows)
    reported = [row["answer"].split() for row in rows if row["answer"]]
    assert [int(status) for status, _ in reported] == [
        status_of(getattr(errors, name)("text")) for _, name in reported
    ]


def test_the_words_of_the_troubles_are_those_of_the_code(pages: dict[str, Page]) -> None:
    text = (DOCS / "deployment.rst").read_text()
    [table] = re.findall(r"list-table:: trouble(.*?)\nRead the logs\n", text, re.DOTALL)
    words = [" ".join(each.split()) for each in re.findall(r"``([a-z][^`]*? [^`]*?)``", table)]
    code = "".join(path.read_text() for path in (ROOT / "pfstorage").glob("**/*.py"))
    assert len(words) > 8
    assert [each for each in words if each not in code] == []


def test_a_copy_of_the_jobs_of_a_running_server_is_whole(pages: dict[str, Page], tmp_path: Path) -> None:
    jobs = JobScheduler(
        StoreHandler(open_storage("memory")).job_runner(RequestContext()), str(tmp_path / "state")
    )
    order = JobRequest({"action": "objPull", "meta": {"fromLocation": "chris"}}, "pfcon", Permissions())
    job = jobs.submit(order)
    text = block_of(pages["deployment"], "a copy of the jobs")
    run_block(text.replace("/var/lib/pfstorage", str(tmp_path / "state")), tmp_path)
    jobs.close(10)
    (tmp_path / "restored").mkdir()
    copy = (tmp_path / "jobs.copy").rename(tmp_path / "restored" / "jobs.sqlite")
    assert copy.stat().st_mode & 0o077 == 0
    restored = JobScheduler(
        StoreHandler(open_storage("memory")).job_runner(RequestContext()), str(tmp_path / "restored")
    )
    assert restored._store.begin(job, 1.0)[1] == order
    restored.close(10)


def test_the_limits_and_their_defaults_are_those_of_the_code(pages: dict[str, Page]) -> None:
    rows = pages["server"].table("limits")
    documented = {row["flag"].removeprefix("--"): row["default"] for row in rows if row["flag"]}
    known, settings = ServerOptions(), config.to_document(config.Settings())["this"]
    defaults = {flag: getattr(known, name) for flag, name in SERVER_FIELDS.items() if flag in documented}
    defaults |= {name: settings[name] for name in documented if name not in defaults}
    assert config.size_of("16G") == defaults["maxUpload"]
    shown = {
        name: default if isinstance(default, str) else f"{default:g}" if default else "none"
        for name, default in defaults.items()
    }
    assert config.size_of("64M") == defaults["maxJobBytes"]
    assert documented == {**shown, "maxUpload": "16G", "maxJobBytes": "64M"}
    bounds = {name for name in vars(build_parser().parse_args([])) if name.startswith("max")}
    bounds |= {"jobTtl", "graceSeconds", "bwLimit", "timeout", "connectTimeout", "retries", "minRate"}
    assert documented.keys() == bounds


def test_each_limit_of_the_server_bounds_a_quantity(pages: dict[str, Page]) -> None:
    rows = pages["security"].table("bounded quantities")
    assert all(row["quantity"] for row in rows)
    reported = {row["limit"]: row["default"] for row in rows}
    assert len(reported) == len(rows)
    numbers = {name for name, default in vars(ServerOptions()).items() if type(default) in (int, float)}
    limits = {f"--{flag}" for flag, name in SERVER_FIELDS.items() if name in numbers}
    assert limits <= reported.keys()
    flags = {flag: row["default"] for row in pages["server"].table("limits") for flag in row["flag"].split()}
    assert flags == {limit: default for limit, default in reported.items() if limit.startswith("--")}
    known = ServerOptions()
    assert [int(default) for limit, default in reported.items() if not limit.startswith("--")] == [
        body.MAX_MESSAGE,
        MAX_DEPTH,
        MAX_CONTAINERS,
        MAX_TEXT_LENGTH,
        MAX_ITEMS,
        MAX_GLOBS,
        ECHO_GROWTH,
        MAX_PATH_DEPTH,
        MAX_HEAD,
        known.head_seconds,
        known.min_rate,
    ]


def test_each_right_has_its_permissions(pages: dict[str, Page]) -> None:
    rows = pages["security"].table("principals")
    for level in LEVELS:
        [row] = [row for row in rows if row["user"] == f"a token with the right {level}"]
        assert row["may"]
        assert row["may not"]
    assert len(pages["security"].section("Attacks that are not defended against").bullets) >= 8


def test_the_policy_of_security_is_about_this_version() -> None:
    text = (ROOT / "SECURITY.rst").read_text()
    tree = docutils.core.publish_doctree(text, settings_overrides={"report_level": 1, "halt_level": 2})
    assert [str(each[0].astext()) for each in tree.findall(docutils.nodes.section)] == [
        "How to report",
        "Supported versions",
        "Threat model",
    ]
    rows = [row.astext().split() for row in tree.findall(docutils.nodes.row)]
    assert [row[0] for row in rows if row[1] == "yes"] == [".".join(__version__.split(".")[:2])]
    [model] = tree.findall(docutils.nodes.enumerated_list)
    assert len(model) == 10
    [link] = [each["refuri"] for each in tree.findall(docutils.nodes.reference) if "refuri" in each]
    assert (ROOT / link).is_file()


def test_the_bounds_without_a_flag_are_those_of_the_code(pages: dict[str, Page]) -> None:
    texts = {row["quantity"]: row["default"] for row in pages["server"].table("limits") if not row["flag"]}
    known = ServerOptions()
    assert texts["a JSON message, or the fields of a form"] == f"{body.MAX_MESSAGE >> 20} MiB"
    assert texts["the head of a request"].startswith(f"{known.head_seconds:g} s, ")
    assert texts["the first byte of a connection, and the TLS handshake"] == f"{known.head_seconds:g} s"
    slowest = f"{known.min_rate / 1024:g} KiB per second"
    assert (
        texts["a body"] == f"{slowest}; silent for {known.head_seconds:g} s, later {known.idle_seconds:g} s"
    )
    assert texts["the reader of a response"].startswith(f"{slowest}; silent for {known.idle_seconds:g} s; ")
    wanted = f"{known.min_rate * SPEED_UP / 1024:g} KiB per second, and {known.head_seconds:g} s"
    assert texts["the reader of a response"].endswith(wanted)
    assert texts["a kept connection without a request"] == f"{known.idle_seconds:g} s"
    assert texts["requests that follow a job, by its events or by wait"] == "half of --maxConnections"


def test_the_settings_of_nginx_fit_those_of_the_server() -> None:
    text = (DOCS / "deployment.rst").read_text().partition("code-block:: nginx")[2].partition("\n- ")[0]
    found = dict(re.findall(r"^ +([a-z_]+) (.*);$", text, re.MULTILINE))
    known, settings = ServerOptions(), config.Settings()
    seconds = {name: float(value[:-1]) for name, value in found.items() if name.endswith("_timeout")}
    assert seconds["keepalive_timeout"] < known.idle_seconds
    assert (
        seconds["proxy_read_timeout"]
        >= (1 + settings.retries) * settings.timeout + 3.5 + admission.WAIT_SECONDS
    )
    assert seconds["proxy_read_timeout"] > MAX_WAIT_SECONDS
    assert seconds["client_body_timeout"] >= known.idle_seconds
    assert found["proxy_pass"] == "http://pfstorage"
    assert (found["proxy_http_version"], found["client_max_body_size"]) == ("1.1", "0")
    assert (found["proxy_buffering"], found["proxy_request_buffering"]) == ("off", "off")
    assert 'proxy_set_header Connection "";' in text


# messages.rst


def names_of(row_or_title: str) -> list[str]:
    return row_or_title.split(", ")


def section_of(page: Page, action: str) -> Page:
    [title] = [title for title in page.titles if action in names_of(title)]
    return page.section(title)


def test_the_actions_are_those_of_the_registry(pages: dict[str, Page]) -> None:
    rows = pages["messages"].table("actions")
    documented = {name: row["by GET"] for row in rows for name in names_of(row["action"])}
    assert documented == {name: "yes" if each.read_only else "no" for name, each in ACTIONS.items()}


TYPES = {
    str: "text",
    str | None: "text",
    str | bool: "text",  # 2.x clients say false for no text
    int | None: "whole number",
    float: "number",
    bool: "true or false",
    tuple[str, ...]: "list of texts",
    tuple[FromTo, ...] | None: "list of texts, or of objects",
    object: "any",
}


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_the_metas_of_an_action_are_those_that_it_reads(pages: dict[str, Page], action: Action) -> None:
    rows = section_of(pages["messages"], action.name).table("metas")
    documented = {row["meta"]: (row["also"], row["type"], json.loads(row["default"])) for row in rows}
    assert documented == {
        field.names[0]: (
            ", ".join(field.names[1:]),
            TYPES[field.hint],
            json.loads(json.dumps(field.default)),
        )
        for field in wire_fields(action.meta)
    }
    assert all(row["meaning"] for row in rows)


def test_the_keys_of_sysinfo_are_those_of_the_reply(pages: dict[str, Page]) -> None:
    reply = StoreHandler(open_storage("memory")).run({"action": "hello", "meta": {"askAbout": "sysinfo"}})
    documented = [row["key"] for row in pages["messages"].table("sysinfo")]
    assert documented == list(reply["d_ret"]["sysinfo"])


@pytest.fixture
def handler(pages: dict[str, Page], tmp_path: Path) -> StoreHandler:
    """A dispatcher for the examples: the page's files in the current directory, and an empty store."""
    files = pages["messages"].table("files")
    write_tree(tmp_path, {row["file"]: row["content"].encode() for row in files})
    return StoreHandler(open_storage("filesystem", store_base="./store"))


def examples(page: Page) -> list[tuple[str, str]]:
    """Return the blocks ``request`` with the block ``reply`` that follows each."""
    blocks = page.blocks()
    pairs = [pair for pair in itertools.pairwise(blocks) if pair[0].caption == "request"]
    assert all(reply.caption == "reply" for _, reply in pairs)
    return [(request.text, reply.text) for request, reply in pairs]


def fixed(reply: Any) -> Any:
    """Return *reply* with the keys, but without the values, of fields that differ between two runs."""
    if isinstance(reply, dict):
        return {key: "..." if key in VOLATILE else fixed(value) for key, value in reply.items()}
    return [fixed(each) for each in reply] if isinstance(reply, list) else reply


def test_every_action_has_an_example(pages: dict[str, Page]) -> None:
    shown = {json.loads(request)["action"] for request, _ in examples(pages["messages"])}
    assert shown == set(ACTIONS)


def test_the_examples_give_the_replies_that_are_shown(pages: dict[str, Page], handler: StoreHandler) -> None:
    jobs = JobScheduler(handler.job_runner(RequestContext()), "state")
    jobs.start()
    for request, reply in examples(pages["messages"]):
        answer = handler.answer(request, RequestContext(jobs=jobs)).to_json()
        assert list(json.loads(answer)) == list(json.loads(reply)), request
        assert fixed(json.loads(answer)) == fixed(json.loads(reply)), request
    jobs.close(10)


def test_the_forms_over_http_give_the_reply_that_is_shown(
    pages: dict[str, Page], handler: StoreHandler
) -> None:
    first, *_ = examples(pages["messages"])
    handler.run(first[0])
    blocks = pages["messages"].section("Over HTTP").blocks()
    shown = next(json.loads(block.text) for block in blocks if block.caption == "reply")
    forms = [block for block in blocks if block.caption in ("POST", "GET")]
    assert len(forms) == 7
    with serving(handler) as server:
        for block in forms:
            if block.caption == "POST":
                assert ask(server, block.text) == (200, shown), block.text
            else:
                path = quote(block.text, safe="/?&=")
                assert ask(server, method="GET", path=path) == (200, shown), block.text


def multipart_of(command: str, directory: Path) -> tuple[bytes, str]:
    """Return the body and the Content-Type of a request of ``curl --form``."""
    words = shlex.split(command)
    fields = [value.partition("=") for flag, value in itertools.pairwise(words) if flag == "--form"]
    boundary, body = uuid.uuid4().hex, b""
    for name, _, value in fields:
        is_file = value.startswith("@")
        content = (directory / value[1:]).read_bytes() if is_file else value.encode()
        suffix = f'; filename="{Path(value[1:]).name}"' if is_file else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{suffix}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def test_the_upload_gives_the_reply_that_is_shown(
    pages: dict[str, Page], handler: StoreHandler, tmp_path: Path
) -> None:
    command, reply = pages["messages"].section("With a file").blocks()
    assert command.caption == "multipart"
    body, kind = multipart_of(command.text, tmp_path)
    with serving(handler) as server:
        status, answer = ask(server, body, Content_Type=kind)
    assert (status, fixed(answer)) == (200, fixed(json.loads(reply.text)))


def test_the_order_to_quit_gives_the_reply_that_is_shown(
    pages: dict[str, Page], handler: StoreHandler
) -> None:
    order, reply = pages["messages"].section("The order to quit").blocks()
    with serving(handler) as server:
        assert ask(server, order.text) == (200, json.loads(reply.text))


def test_the_errors_and_their_statuses_are_those_of_the_code(pages: dict[str, Page]) -> None:
    kinds = {
        name: each
        for name, each in vars(errors).items()
        if inspect.isclass(each) and issubclass(each, errors.PfstorageError)
    }
    rows = {row["type"]: row for row in pages["messages"].table("errors")}
    assert {name: int(row["HTTP"]) for name, row in rows.items()} == {
        name: status_of(kind("text")) for name, kind in kinds.items()
    }
    assert {kind.__name__: status for kind, status in STATUS_BY_ERROR.items()}.items() <= {
        name: int(row["HTTP"]) for name, row in rows.items()
    }.items()
    assert {name: int(row["exit"]) for name, row in rows.items()} == {
        name: 2 if issubclass(kind, errors.MessageError) else 1 for name, kind in kinds.items()
    }


# flags.rst


def test_the_flags_are_those_of_the_parser(pages: dict[str, Page]) -> None:
    rows = pages["flags"].table("flags")
    documented = {row["flag"]: (row["value"], row["setting"]) for row in rows}
    settings = {flag.dest: flag.setting for flag in FLAGS}
    assert documented == {
        ", ".join(sorted(flag.option_strings, key=len)): (
            str(flag.metavar or ""),
            settings.get(flag.dest, ""),
        )
        for flag in build_parser()._actions
    }
    assert all(row["meaning"] for row in rows)


def test_the_settings_and_their_defaults_are_those_of_the_code(pages: dict[str, Page]) -> None:
    rows = pages["flags"].table("settings")
    documented = {row["setting"]: json.loads(row["default"]) for row in rows}
    document = config.to_document(config.Settings(), with_secrets=True)
    assert documented == {
        f"{block}.{name}": value for block, values in document.items() for name, value in values.items()
    }


OPENSTACK = {"OS_USERNAME": "chris", "OS_PASSWORD": "testing"}


def test_the_variables_are_those_that_are_read(pages: dict[str, Page]) -> None:
    rows = pages["flags"].table("environment")
    documented = {row["variable"]: tuple(sorted(row["setting"].split(", "))) for row in rows}
    assert documented == {name: tuple(sorted(places)) for name, places in VARIABLES.items()}
    assert len(rows) == len(documented)


def test_each_variable_changes_the_settings_that_are_named(pages: dict[str, Page]) -> None:
    before = sources.from_environment(OPENSTACK)
    for row in pages["flags"].table("environment"):
        after = sources.from_environment({**OPENSTACK, row["variable"]: "other"})
        for name in row["setting"].split(", "):
            block, _, key = name.partition(".")
            assert before[block].get(key) != after[block].get(key), row


# backends.rst


def apply(diff: str, text: str) -> str:
    """Apply *diff* to *text*, which must contain its kept and removed lines once, in a row."""
    lines = diff.splitlines()
    old = "".join(line[1:] + "\n" for line in lines if line[:1] != "+")
    new = "".join(line[1:] + "\n" for line in lines if line[:1] != "-")
    assert text.count(old) == 1, f"the code has not once: {old}"
    return text.replace(old, new)


@pytest.fixture
def tree_with_example(pages: dict[str, Page], tmp_path: Path) -> Path:
    """A copy of the code and the contract, with the backend of the page added as the page says."""
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pfstorage", tree / "pfstorage", ignore=ignored)
    shutil.copytree(ROOT / "tests" / "support", tree / "tests" / "support", ignore=ignored)
    (tree / "tests" / "contract").mkdir()
    files = ("__init__.py", "conftest.py", "contract/__init__.py", "contract/test_storage.py")
    for path in (ROOT / "pyproject.toml", *(ROOT / "tests" / name for name in files)):
        shutil.copy(path, tree / path.relative_to(ROOT))
    for block in pages["backends"].blocks():
        path = tree / block.caption
        path.write_text(
            apply(block.text, path.read_text()) if block.language == "diff" else block.text + "\n"
        )
    return tree


def test_the_example_backend_keeps_the_contract(tree_with_example: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "sqlite"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    run = subprocess.run(
        [*command, "tests/contract/test_storage.py"],
        cwd=tree_with_example,
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-4000:]
    assert int(re.search(r"(\d+) passed", run.stdout)[1]) > 50


def test_the_example_backend_answers_messages(tree_with_example: Path) -> None:
    write_tree(tree_with_example, {"data/a.dcm": b"content"})
    put = {"putSpec": "data", "inLocation": "chris", "mapLocationOver": "data"}
    messages = [
        {"action": "objPut", "meta": put},
        {"action": "ls", "meta": {"path": "chris", "retSpec": ["name", "bytes"]}},
        {"action": "objPull", "meta": {"fromLocation": "chris", "mapLocationOver": "back"}},
    ]
    replies = []
    for message in messages:
        command = [sys.executable, "-m", "pfstorage", "--type", "sqlite", "--msg", json.dumps(message)]
        run = subprocess.run(command, cwd=tree_with_example, capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, run.stderr
        replies.append(json.loads(run.stdout))
    assert replies[1]["ls"] == [{"name": "chris/a.dcm", "bytes": 7}]
    assert (tree_with_example / "back" / "a.dcm").read_bytes() == b"content"


# architecture.rst, contributing.rst, the changelog


def test_the_layers_are_those_that_are_checked(pages: dict[str, Page]) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    layers, _ = re.findall(r"^layers = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    checked = re.sub(r'pfstorage\.|[ ]{4}"|",$', "", layers, flags=re.MULTILINE)
    assert checked.strip() in [code for _, code in pages["architecture"].all_code()]


KINDS = {"feature", "fix", "change", "removal"}


def test_each_fragment_of_the_changelog_is_a_list_of_lines() -> None:
    for path in (ROOT / "changelog.d").glob("*.rst"):
        assert path.stem.rpartition(".")[2] in KINDS, path
        assert all(line.startswith("- ") and line.endswith(".") for line in path.read_text().splitlines())


def test_the_changelog_has_this_version(pages: dict[str, Page]) -> None:
    assert any(title.startswith(f"{__version__} (") for title in pages["changelog"].titles)


def test_the_types_in_the_log_that_no_reply_has_are_listed() -> None:
    for module in ("errors", "swift.errors", "swift.objects"):
        importlib.import_module(f"pfstorage.backends.{module}")
    kinds = [errors.PfstorageError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    inner = {
        kind.__name__: kind.reported_as for kind in kinds if kind.__module__.startswith("pfstorage.backends")
    }
    text = (DOCS / "server.rst").read_text()
    [paragraph] = [each for each in text.split("\n\n") if "``error`` may be more specific" in each]
    for name, public in inner.items():
        after = paragraph.partition(f"``{name}``")[2]
        named = [each for each in re.findall(r"``(\w+)``", after) if each in set(inner.values())]
        assert named[:1] == [public], name


def test_the_upload_of_a_directory_takes_every_name(tmp_path: Path) -> None:
    text = (DOCS / "server.rst").read_text()
    [loop] = [each for each in text.split("\n\n") if "find . -type f" in each]
    files = {"a": b"a", "d/with blanks/ü #?%": b"b", "line\nbreak ": b"c", "back\\slash": b"d"}
    write_tree(tmp_path / "study", files)
    with open_storage("memory") as storage, serving(StoreHandler(storage)) as server:
        script = loop.replace(":4055", f":{server.server_port}")
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "TOKEN": ""},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert {row.key for row in storage.list()} == {f"chris/study/{name}" for name in files}
