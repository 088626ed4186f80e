"""Ask a Swift for its limits: the size of an object, the number of segments, the length of names."""

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
class SwiftLimits:
    """The limits of a cluster in bytes, and the number of *segments* in a manifest. The defaults are those of Swift."""

    file_size: int = 5 * 1024**3
    segments: int = 1000
    key: int = 1024
    container: int = 256


def fetch_limits(session: SwiftSession) -> SwiftLimits:
    """Return the limits of the cluster, with the defaults of Swift for a limit that an operator hides."""

    def get_info(connection: Connection, url: str, _: str) -> Any:
        before, _, _ = urlsplit(url).path.rpartition("/v1")  # the paths of Ceph begin with /swift
        answer = session.send(connection, "GET", f"{before}/info", {})
        return json.loads(connection.http.read_all(answer))

    try:
        info = session.call(get_info)
        return SwiftLimits(
            _limit(info, "swift", "max_file_size", SwiftLimits.file_size),
            _limit(info, "slo", "max_manifest_segments", SwiftLimits.segments),
            _limit(info, "swift", "max_object_name_length", SwiftLimits.key),
            _limit(info, "swift", "max_container_name_length", SwiftLimits.container),
        )
    except (StorageError, *NO_JSON) as e:
        log.debug("the cluster does not publish its limits: %s", e)
        return SwiftLimits()


def _limit(info: Mapping[str, Mapping[str, Any]], part: str, name: str, default: int) -> int:
    limit = info.get(part, {}).get(name, default)
    if type(limit) is not int or limit <= 0:
        raise TypeError(f"{name} is no positive number")
    return limit
