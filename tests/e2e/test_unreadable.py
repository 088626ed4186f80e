"""Unreadable files in a store and in a pushed tree: replies leave them out, and do not certify completeness."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.errors import PermissionDeniedError
from pfstorage.keys.selection import Selection
from pfstorage.local import LocalFile, find_files
from tests.conftest import ROOT, ask, serving, write_tree

NOBODY = """
import json, os, sys
from pfstorage import StoreHandler, open_storage
from pfstorage.access.principal import Principal
from pfstorage.actions import RequestContext
from pfstorage.access.permissions import Permissions
order = json.loads(sys.argv[1])
storage = open_storage(**order["storage"])
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
os.umask(0)
context = RequestContext(Principal(Permissions(prefix=order["prefix"])))
print(json.dumps([StoreHandler(storage).run(message, context) for message in order["messages"]]))
"""


@pytest.fixture
def top() -> Iterator[Path]:
    """A directory that everybody may go to: those of pytest are for its user alone."""
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory)
        top.chmod(0o755)
        yield top
        for path in ("store", "store/closed", "store/d/no", "store/lost+found", "store/names"):
            (top / path).chmod(0o755)  # or only the superuser could remove it


@pytest.fixture
def store(top: Path) -> Path:
    """A store of files with objects around a directory that nobody but the superuser may read, and lost+found."""
    write_tree(top / "store", {name: name.encode() for name in ("a", "closed/b", "d/e", "d/no/f", "z")})
    (top / "store" / "lost+found").mkdir()
    (top / "store" / "names").mkdir(mode=0o755)
    (top / "store" / "names" / "x").write_bytes(b"x")
    (top / "work").mkdir()
    (top / "work").chmod(0o777)
    (top / "store" / "closed").chmod(0)
    (top / "store" / "d" / "no").chmod(0)
    (top / "store" / "lost+found").chmod(0)
    return top / "store"


LEFT_OUT = ["closed/", "d/no/", "lost+found/"]
SHOWN = ["a", "d/e", "names/x", "z"]


def asked(
    top: Path,
    *messages: tuple[str, dict[str, Any]],
    kind: str = "filesystem",
    prefix: str = "",
    base: str = "store",
) -> list[Any]:
    """Answer *messages* in order, as a user who may not read all files."""
    order = {
        "storage": {"type": kind} | ({"store_base": base} if kind == "filesystem" else {}),
        "prefix": prefix,
        "messages": [{"action": action, "meta": meta} for action, meta in messages],
    }
    done = subprocess.run(
        [sys.executable, "-c", NOBODY, json.dumps(order)],
        capture_output=True,
        text=True,
        cwd=top,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    replies: list[Any] = json.loads(done.stdout)
    return replies


def left_out(reply: dict[str, Any]) -> list[str]:
    return sorted(warning.split("'")[1] for warning in reply.get("warnings", []))


def test_a_listing_goes_on_and_warns(store: Path, top: Path) -> None:
    everything, below, level, none, itself = asked(
        top,
        ("ls", {}),
        ("ls", {"path": "d/"}),
        ("ls", {"delimiter": "/"}),
        ("ls", {"path": "a"}),
        ("ls", {"path": "closed/"}),
    )
    assert (everything["status"], [row["name"] for row in everything["ls"]]) == (True, SHOWN)
    assert left_out(everything) == LEFT_OUT
    assert everything["warnings"][0] == "'closed/' in the store was left out: Permission denied"
    assert ([row["name"] for row in below["ls"]], left_out(below)) == (["d/e"], ["d/no/"])
    assert level["status"] is True
    assert (none["status"], left_out(none)) == (True, [])
    # the unreadable directory is the whole listing
    assert (itself["status"], itself["error"]["type"]) == (False, "PermissionDeniedError")


@pytest.mark.parametrize("action", ["ls", "objPull", "objVerify"])
def test_a_store_in_an_unreadable_directory_is_not_missing(store: Path, top: Path, action: str) -> None:
    write_tree(top / "hidden" / "store", {"a": b"a"})
    (top / "hidden").chmod(0)
    try:
        [reply] = asked(top, (action, {}), base="hidden/store")
    finally:
        (top / "hidden").chmod(0o755)
    assert reply["error"]["type"] == "PermissionDeniedError"
    assert reply["msg"] == f"the store '{top}/hidden/store': Permission denied"


def test_the_command_line_warns_after_the_rows(store: Path, top: Path) -> None:
    program = (
        NOBODY[: NOBODY.index("order =")]
        + (
            "from pfstorage.cli.main import main\n"
            "import pfstorage.backends.filesystem.store\n"  # only the superuser may be able to read Python's library
            "if os.geteuid() == 0:\n    os.setegid(65534)\n    os.seteuid(65534)\n"
            "sys.exit(main(['--type', 'filesystem', '--storeBase', 'store', '--msg', '{\"action\": \"ls\"}']))"
        )
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=top, env=environ
    )
    reply = json.loads(done.stdout)
    assert (done.returncode, list(reply)) == (0, ["ls", "warnings", "status"])
    assert ([row["name"] for row in reply["ls"]], left_out(reply)) == (SHOWN, LEFT_OUT)


def test_a_pull_takes_the_rest_and_certifies_nothing(store: Path, top: Path) -> None:
    meta = {"path": "", "mapLocationOver": "work/out"}
    pulled, audited, verified = asked(
        top, ("objPull", meta), ("objPull", {**meta, "audit": True}), ("objVerify", meta)
    )
    assert (pulled["status"], pulled["objectFileList"], left_out(pulled)) == (True, SHOWN, LEFT_OUT)
    assert (audited["status"], audited["audit"]["status"], audited["audit"]["same"]) == (False, False, 4)
    assert (verified["status"], verified["same"], left_out(verified)) == (False, 4, LEFT_OUT)
    for reply in (audited["audit"], verified):
        assert "'closed/' and 2 more" in reply["msg"]
        assert "exclude" in reply["msg"]


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [
        (["closed/**", "no", "lost+found"], []),
        (["closed", "d/no", "lost+found/**"], []),
        (["*"], []),
        (["**/**"], []),
        (["closed/*", "d/**"], ["closed/", "lost+found/"]),
        (["closed/b", "lost+found", "no"], ["closed/"]),
    ],
)
def test_excluded_objects_are_not_missed(
    store: Path, top: Path, exclude: list[str], expected: list[str]
) -> None:
    meta = {"path": "", "mapLocationOver": "work/out", "exclude": exclude}
    pulled, verified = asked(top, ("objPull", {**meta, "audit": True}), ("objVerify", meta))
    assert left_out(pulled) == left_out(verified) == expected
    if pulled["objectFileList"]:
        assert pulled["audit"]["status"] is verified["status"] is not expected


def test_objects_of_other_locations_are_not_missed(store: Path, top: Path) -> None:
    meta = {"fromLocation": "names", "mapLocationOver": "work/out"}
    pulled, verified = asked(top, ("objPull", {**meta, "audit": True}), ("objVerify", meta))
    assert (pulled["status"], verified["status"], left_out(pulled)) == (True, True, [])
    inside = {"fromLocation": "closed", "mapLocationOver": "work/out"}
    for reply in asked(top, ("objVerify", inside), ("objPull", inside)):
        assert (reply["status"], left_out(reply)) == (False, ["closed/"])


def test_a_token_for_a_part_learns_of_no_other_part(store: Path, top: Path) -> None:
    everything, level = asked(top, ("ls", {}), ("ls", {"delimiter": "/"}), prefix="d/")
    assert ([row["name"] for row in everything["ls"]], left_out(everything)) == (["d/e"], ["d/no/"])
    assert "closed" not in json.dumps([everything, level])


def test_a_push_is_not_hindered(store: Path, top: Path) -> None:
    """A push needs no listing of other objects, and asks the store for each object that the listing omits."""
    store.chmod(0o777)
    write_tree(top, {"data/b": b"b", "data/y": b"y"})
    put = {"putSpec": "data", "mapLocationOver": "data", "audit": True}
    first, again, into = asked(
        top, ("objPut", put), ("objPut", put), ("objPut", {**put, "inLocation": "closed"})
    )
    assert (first["status"], first["audit"]["status"], left_out(first)) == (True, True, [])
    assert (again["status"], again["skipped"]) == (True, 2)
    assert (into["status"], len(into["failed"])) == (False, 2)


def test_files_with_readable_names_and_unreadable_status_are_left_out(store: Path, top: Path) -> None:
    (store / "names").chmod(0o444)
    [reply] = asked(top, ("ls", {}))
    assert ([row["name"] for row in reply["ls"]], left_out(reply)) == (
        ["a", "d/e", "z"],
        sorted([*LEFT_OUT, "names/x"]),
    )


def test_a_store_that_may_not_be_read_at_all_is_an_error(store: Path, top: Path) -> None:
    store.chmod(0)
    for reply in asked(top, ("ls", {}), ("objVerify", {"path": "", "mapLocationOver": "work"})):
        assert (reply["status"], reply["error"]["type"]) == (False, "PermissionDeniedError")


def test_a_caller_that_ignores_warnings_gets_an_error(store: Path, top: Path) -> None:
    """No program may take an incomplete listing for complete."""
    program = """
import os
from pfstorage import open_storage
storage = open_storage(type="filesystem", store_base="store")
if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)
for row in storage.list():
    print(row.key)
"""
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=top, env=environ
    )
    assert (done.stdout, done.returncode) == ("a\n", 1)
    assert PermissionDeniedError.__name__ in done.stderr


def test_a_page_of_objects_over_http_goes_on_and_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here, patched functions refuse the access, since this process may run as the superuser."""
    scandir = os.scandir

    def scan(directory: Any) -> Any:
        if isinstance(directory, int) and os.readlink(f"/proc/self/fd/{directory}").endswith("/closed"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(directory)

    write_tree(tmp_path / "store", dict.fromkeys(("a", "closed/b", "z"), b""))
    monkeypatch.setattr(os, "scandir", scan)
    with (
        open_storage(type="filesystem", store_base="store") as storage,
        serving(StoreHandler(storage)) as server,
    ):
        status, page = ask(server, method="GET", path="/api/v1/objects")
        assert (status, [row["name"] for row in page["objects"]]) == (200, ["a", "z"])
        assert page["warnings"] == ["'closed/' in the store was left out: Permission denied"]
        status, page = ask(server, method="GET", path="/api/v1/objects?prefix=a")
        assert (status, "warnings" in page) == (200, False)
        status, page = ask(server, method="GET", path="/api/v1/objects?prefix=closed/")
        assert (status, page["error"]["type"]) == (403, "PermissionDeniedError")
        reply = ask(server, {"action": "ls", "meta": {}})[1]
        assert (reply["status"], left_out(reply)) == (True, ["closed/"])


# a tree that is pushed


@pytest.fixture
def tree(store: Path) -> Path:
    """The same directory, with a pipe and links."""
    for parent in ("", "d/"):
        os.mkfifo(store / f"{parent}pipe")
        (store / f"{parent}broken").symlink_to("nowhere")
        (store / f"{parent}empty").mkdir()
    return store


def pushed(top: Path, **meta: Any) -> dict[str, Any]:
    [reply] = asked(top, ("objPut", {"putSpec": "store", "mapLocationOver": "store", **meta}), kind="memory")
    assert isinstance(reply, dict)
    return reply


def failed(reply: dict[str, Any]) -> list[str]:
    return sorted(row["local"] for row in reply.get("failed", []))


def test_a_directory_that_may_not_be_read_fails_but_for_that_of_the_system(tree: Path, top: Path) -> None:
    reply = pushed(top)
    assert (reply["status"], reply["objectFileList"]) == (False, SHOWN)
    assert failed(reply) == ["store/closed", "store/d/no"]
    names = ("broken", "d/broken", "d/empty", "d/pipe", "empty", "lost+found", "pipe")
    assert left_out(reply) == [f"store/{name}" for name in names]


@pytest.mark.parametrize(
    "exclude",
    [
        ["closed", "no", "lost+found", "pipe", "broken", "empty"],
        ["closed/**", "d/no/**", "lost+found/**", "**/pipe", "**/broken", "**/empty/**"],
        ["[!a-z]", "closed", "d/no", "lost*", "p*", "b*", "em*"],
    ],
)
def test_excluded_directories_are_neither_read_nor_reported(
    tree: Path, top: Path, exclude: list[str]
) -> None:
    reply = pushed(top, exclude=exclude, audit=True)
    assert (reply["status"], reply["objectFileList"], reply["audit"]["status"]) == (True, SHOWN, True)
    assert (failed(reply), left_out(reply)) == ([], [])


def test_partly_excluded_directories_are_reported(tree: Path, top: Path) -> None:
    reply = pushed(top, exclude=["closed/*", "d/*", "d/pipe/x", "lost+found/x"])
    assert failed(reply) == ["store/closed"]
    assert left_out(reply) == [f"store/{name}" for name in ("broken", "empty", "lost+found", "pipe")]


def test_an_excluded_name_hides_no_files_below_a_directory(tmp_path: Path) -> None:
    """A glob without a slash is matched with the names of files: so it was, and is."""
    write_tree(tmp_path, {"data/x.dcm/a": b"a", "data/b.dcm": b"b", "data/tmp/c/d": b"d"})
    excludes = Selection(exclude=("*.dcm", "tmp/**")).excludes
    found = [
        file for file in find_files("data", warn=print, excludes=excludes) if isinstance(file, LocalFile)
    ]
    assert [file.rest for file in found] == ["x.dcm/a"]


def test_an_excluded_directory_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path, {"data/tmp/a": b"a", "data/b": b"b", "data/d/tmp/c": b"c"})
    opened: list[str] = []
    scandir = os.scandir

    def note(path: Any) -> Any:
        opened.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", note)
    list(find_files("data", warn=print, excludes=Selection(exclude=("**/tmp/**",)).excludes))
    assert opened == ["data", "data/d"]


def test_the_root_itself_is_never_left_out(tmp_path: Path) -> None:
    write_tree(tmp_path, {"tmp/a": b"a"})
    selection = Selection(exclude=("tmp",))
    [file] = find_files("tmp", warn=print, excludes=selection.excludes)
    assert isinstance(file, LocalFile)
    assert file.rest == "a"


def test_a_directory_without_a_place_in_the_listing_is_reported_once(store: Path, top: Path) -> None:
    [reply] = asked(
        top, ("objPull", {"path": "", "mapLocationOver": "work/out", "audit": True, "sure": True})
    )
    assert left_out(reply) == LEFT_OUT
