"""Content types: the first bytes and one table determine them, on every host and for each way to upload."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import mimetypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import swiftclient

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.backends import Storage
from pfstorage.backends.content_types import BY_SUFFIX
from pfstorage.backends.contract import Attributes
from pfstorage.devswift import DevSwift
from tests.conftest import read_tree, run, serving, swift_options, write_tree
from tests.support.exchange import form_of, send
from tests.support.local import refuse

DICOM = bytes(128) + b"DICM" + b"x" * 1000
GZIP = gzip.compress(b"x" * 1000, mtime=0)
UID = "1.2.840.113619.2.5.1762583153.215519.978957063.1"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)

EXPECTED = [
    (UID, DICOM, "application/dicom"),
    ("brain.9", DICOM, "application/dicom"),
    ("scan.txt", DICOM, "application/dicom"),
    ("no-suffix", DICOM, "application/dicom"),
    ("a.pdf", DICOM, "application/pdf"),
    ("a.dcm", b"no preamble", "application/dicom"),
    ("A.DCM", b"", "application/dicom"),
    (UID, b"no DICOM", "application/octet-stream"),
    ("a.dcm.gz", GZIP, "application/gzip"),
    ("a.dcm.gz", b"", "application/gzip"),
    ("a.nii.gz", GZIP, "application/gzip"),
    ("a.mgz", GZIP, "application/gzip"),
    ("a.dcm", GZIP, "application/gzip"),
    ("no-suffix", GZIP, "application/gzip"),
    *((f"a.{each}", b"x", "application/octet-stream") for each in ("hdr", "img", "nii", "mgh", "nrrd", "mha", "1")),
    ("a.bval", b"0 1000", "text/plain"),
    ("a.bvec", b"0 1 0", "text/plain"),
    ("a.json", b"{}", "application/json"),
    ("a.csv", b"a,b", "text/csv"),
    ("a.tsv", b"a\tb", "text/tab-separated-values"),
    ("a.png", PNG, "image/png"),
    ("no-suffix", PNG, "image/png"),
    (".json", b"{}", "application/octet-stream"),
    ("json", b"{}", "application/octet-stream"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def other_host(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host with other tables of types."""
    for suffix in (".nii", ".hdr", ".img", ".1", ".8", ".9", ".json", ".mgz"):
        mimetypes.add_type("x-host/own", suffix)
    yield
    mimetypes.init()


@pytest.fixture
def server(storage: Storage) -> Iterator[ThreadedHTTPServer]:
    with serving(StoreHandler(storage)) as server:
        yield server


def by_form(server: ThreadedHTTPServer, key: str, content: bytes, kind: str | None = None) -> None:
    form = form_of(key, content, kind)
    status, _, text = send(
        server, "POST", "/api/v1/cmd", form, Content_Type="multipart/form-data; boundary=limit"
    )
    assert (status, json.loads(text)["status"]) == (200, True), text


def by_put(server: ThreadedHTTPServer, key: str, content: bytes, kind: str | None = None) -> None:
    headers = {} if kind is None else {"Content_Type": kind}
    status, _, text = send(server, "PUT", f"/api/v1/objects/{quote(key)}", content, **headers)
    assert status == 201, text


def by_push(storage: Storage, key: str, content: bytes) -> None:
    write_tree(Path("data"), {key: content})
    assert run(storage, "objPush", putSpec="data", mapLocationOver="data")["status"]


@pytest.mark.parametrize(("key", "content", "kind"), EXPECTED)
def test_a_type_is_the_same_for_each_way_to_upload_an_object(
    server: ThreadedHTTPServer, storage: Storage, key: str, content: bytes, kind: str
) -> None:
    ways: list[Callable[[], None]] = [
        lambda: by_form(server, key, content),
        lambda: by_put(server, key, content),
        lambda: by_push(storage, key, content),
    ]
    for way in ways:
        way()
        assert storage.head(key).content_type == kind
        assert [row.content_type for row in storage.list(key)] == [kind]
        assert send(server, "GET", f"/api/v1/objects/{quote(key)}")[1]["Content-Type"] == kind
        storage.delete(key)


@pytest.mark.parametrize("way", [by_form, by_put])
@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("text/x-own; charset=utf-8", "text/x-own; charset=utf-8"),
        ("text/plain", "text/plain"),
        ("application/octet-stream", "application/dicom"),
        ("Binary/Octet-Stream", "application/dicom"),
        ("application/x-www-form-urlencoded", "application/dicom"),
        ("", "application/dicom"),
    ],
)
def test_a_specific_type_from_the_sender_is_kept(
    server: ThreadedHTTPServer,
    storage: Storage,
    way: Callable[[ThreadedHTTPServer, str, bytes, str], None],
    said: str,
    kind: str,
) -> None:
    way(server, "a.bin", DICOM, said)
    assert storage.head("a.bin").content_type == kind


@pytest.mark.parametrize("content", [DICOM, b"no DICOM"])
def test_a_store_that_keeps_no_types_reports_the_type_of_the_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    for name in ("setxattr", "getxattr"):
        monkeypatch.setattr(os, name, refuse(errno.ENOTSUP))
    with open_storage("filesystem", store_base=str(tmp_path)) as storage:
        received = storage.put(UID, io.BytesIO(content), len(content), Attributes("text/x-own"))
        assert received.content_type == storage.head(UID).content_type
        assert [row.content_type for row in storage.list()] == [received.content_type]


def test_a_file_that_another_program_puts_into_a_store_of_files_is_looked_into(tmp_path: Path) -> None:
    with open_storage("filesystem", store_base=str(tmp_path / "store")) as storage:
        write_tree(tmp_path / "store", {UID: DICOM, "b.nii": b"x", "c": GZIP})
        for _ in range(2):
            kinds = {row.key: row.content_type for row in storage.list()}
            assert kinds == {
                UID: "application/dicom",
                "b.nii": "application/octet-stream",
                "c": "application/gzip",
            }


def test_no_type_of_the_table_is_one_that_others_would_run() -> None:
    assert all("/" in kind and suffix == suffix.lower() for suffix, kind in BY_SUFFIX.items())


@pytest.mark.parametrize("encoding", ["gzip", "br, gzip", "x-own"])
def test_an_encoded_body_is_refused_before_it_comes(
    server: ThreadedHTTPServer, storage: Storage, encoding: str
) -> None:
    status, _, text = send(server, "PUT", "/api/v1/objects/a", GZIP, Content_Encoding=encoding)
    assert (status, json.loads(text)["status"]) == (415, False)
    assert send(server, "GET", "/api/v1/objects/a")[0] == 404
    assert send(server, "PUT", "/api/v1/objects/a", GZIP, Content_Encoding="identity")[0] == 201


def test_encoded_objects_are_served_with_their_encoding_and_pulled_unchanged(
    swift: DevSwift, tmp_path: Path
) -> None:
    with open_storage(**swift_options(swift)) as storage, serving(StoreHandler(storage)) as server:
        storage.put("x/other", io.BytesIO(b""), 0)
        raw = swiftclient.Connection(swift.auth_url, swift.user, swift.key)
        with contextlib.closing(raw):
            raw.put_object(
                storage.settings.swift.container_name,
                "x/a.json",
                GZIP,
                content_type="application/json",
                headers={"Content-Encoding": "gzip"},
            )
        for method in ("GET", "HEAD"):
            status, headers, content = send(server, method, "/api/v1/objects/x/a.json")
            assert (status, headers["Content-Encoding"]) == (200, "gzip")
            assert content == (GZIP if method == "GET" else b"")
        assert "Content-Encoding" not in send(server, "GET", "/api/v1/objects/x/other")[1]
        assert run(storage, "objPull", path="x", fromLocation="x", mapLocationOver="out")["status"]
        assert read_tree(tmp_path / "out")["a.json"] == GZIP
