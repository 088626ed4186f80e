"""What a Swift takes: how large an object may be, of how many segments, and how long its name."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pfstorage.backends.swift.network import Connection
from pfstorage.backends.swift.rows import NO_JSON
from pfstorage.backends.swift.session import SwiftSession
from pfstorage.errors import StorageError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Those of a cluster, in bytes but for the *segments* of a manifest. The defaults are Swift's own."""

    file_size: int = 5 * 1024**3
    segments: int = 1000
    key: int = 1024
    container: int = 256


def asked_limits(session: SwiftSession) -> Limits:
    """Ask the cluster for its limits. It has Swift's defaults for what it does not tell: an operator may hide them."""

    def get_info(connection: Connection, url: str, _: str) -> Any:
        before, _, _ = urlsplit(url).path.rpartition("/v1")  # Ceph has all below /swift
        answer = session.send(connection, "GET", f"{before}/info", {})
        return json.loads(connection.http.read_all(answer))

    try:
        told = session.call(get_info)
        return Limits(
            _told(told, "swift", "max_file_size", Limits.file_size),
            _told(told, "slo", "max_manifest_segments", Limits.segments),
            _told(told, "swift", "max_object_name_length", Limits.key),
            _told(told, "swift", "max_container_name_length", Limits.container),
        )
    except (StorageError, *NO_JSON) as e:
        log.debug("the cluster does not tell its limits: %s", e)
        return Limits()


def _told(told: Mapping[str, Mapping[str, Any]], part: str, name: str, default: int) -> int:
    limit = told.get(part, {}).get(name, default)
    if type(limit) is not int or limit <= 0:
        raise TypeError(f"{name} is no limit")
    return limit
