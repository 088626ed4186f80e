"""Short forms of calls of a storage."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from pfstorage.backends import Storage


def put(storage: Storage, key: str, content: bytes = b"content") -> str:
    return storage.put(key, io.BytesIO(content), len(content)).etag


def get(storage: Storage, key: str) -> bytes:
    sink = io.BytesIO()
    storage.get(key, sink)
    return sink.getvalue()


def keys(storage: Storage, prefix: str = "", **options: object) -> list[str]:
    return [row.key for row in storage.list(prefix, **options)]  # type: ignore[arg-type]


def put_raw(storage: Storage, keys: list[str]) -> None:
    import http.client
    from urllib.parse import quote, urlsplit

    settings = storage.settings.swift
    address = urlsplit(settings.auth_url)
    connection = http.client.HTTPConnection(address.netloc)
    connection.request(
        "GET", address.path, headers={"X-Auth-User": settings.username, "X-Auth-Key": settings.key}
    )
    login = connection.getresponse()
    login.read()
    path = urlsplit(login.headers["X-Storage-Url"]).path
    for key in keys:
        url = f"{path}/{settings.container_name}/{quote(key)}"
        connection.request("PUT", url, b"hostile", {"X-Auth-Token": login.headers["X-Auth-Token"]})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 201
    connection.close()


def verdict(reply: Mapping[str, Any]) -> tuple[bool, int, list[str], list[str], list[str]]:
    """Return status, same, changed, missing and extra of a reply or an audit."""
    return reply["status"], reply["same"], reply["changed"], reply["missing"], reply.get("extra", [])
