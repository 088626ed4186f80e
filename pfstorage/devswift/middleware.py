"""Configure the four servers, and provide the middleware that Swift itself lacks."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfstorage.devswift import HOST, KEY, READER, USER

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# The order of Swift's etc/proxy-server.conf-sample, with s3api right before the auth middleware,
# as s3api's documentation asks. proxy-logging is left out: its log would go nowhere.
PIPELINE = (
    "request_log catch_errors gatekeeper healthcheck cache listing_formats bulk tempurl s3api "
    "tempauth copy container_quotas slo dlo versioned_writes symlink"
)
FILTERS = {
    "request_log": "paste.filter_app_factory = pfstorage.devswift.middleware:with_request_log",
    "cache": "paste.filter_app_factory = pfstorage.devswift.middleware:with_cache",
    "tempauth": (
        f"use = egg:swift#tempauth\nuser_{USER.replace(':', '_')} = {KEY} .admin\n"
        f"user_{READER.replace(':', '_')} = {KEY}"
    ),
    "versioned_writes": (
        "use = egg:swift#versioned_writes\nallow_versioned_writes = true\nallow_object_versioning = true"
    ),
}

# For all four servers. When a busy server answers late, a cluster asks another replica or leaves the update of a
# listing to a daemon. This server has neither: so it waits, and never excludes its only device (error_suppression).
# It accepts a PUT also if the developer's disk is 99% full.
SETTINGS = {
    "account_autocreate": "true",
    "mount_check": "false",
    "conn_timeout": "60",
    "node_timeout": "60",
    "container_update_timeout": "60",
    "error_suppression_interval": "0",
    "fallocate_reserve": "0",
    "log_requests": "false",
    "log_level": "ERROR",
    "log_custom_handlers": "pfstorage.devswift.middleware.log_to_file",
    "log_udp_host": HOST,  # otherwise Swift looks for /dev/log; because of log_to_file, nothing is sent
}


def paste_config(kind: str) -> str:
    """Return the configuration of one server, without SETTINGS and the paths."""
    filters = PIPELINE.split() if kind == "proxy" else []
    lines = ["[pipeline:main]", f"pipeline = {' '.join([*filters, f'{kind}-server'])}"]
    lines += [f"[app:{kind}-server]", f"use = egg:swift#{kind}"]
    for name in filters:
        lines += [f"[filter:{name}]", FILTERS.get(name, f"use = egg:swift#{name}")]
    return "\n".join(lines)


class Cache:
    """The methods of memcached that Swift uses (`swift.common.memcached.MemcacheRing`), on a dict.

    Values are stored as JSON, as there: no caller shares a mutable value with the cache. *clock* returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._items: dict[str, tuple[str, float]] = {}

    def get(self, key: str, raise_on_error: bool = False) -> Any:
        """Return the value of *key*, or None if there is none or it has expired."""
        text, expires = self._items.get(key, ("null", float("inf")))
        if expires <= self._clock():
            self.delete(key)
            return None
        return json.loads(text)

    def set(self, key: str, value: Any, serialize: bool = True, time: float = 0, **_: object) -> None:
        """Keep *value* for *time* seconds, or forever if that is 0, as memcached does."""
        self._items[key] = (json.dumps(value), self._clock() + time if time else float("inf"))

    def incr(self, key: str, delta: int = 1, time: float = 0) -> int:
        """Add *delta* to a number, which is never below 0. *time* applies to a new key."""
        if self.get(key) is None:
            self.set(key, 0, time=time)
        text, expires = self._items[key]
        value = max(0, int(json.loads(text)) + delta)
        self._items[key] = (json.dumps(value), expires)
        return value

    def delete(self, key: str, server_key: str | None = None) -> None:
        self._items.pop(key, None)


def with_cache(app: WSGIApplication, global_conf: dict[str, str], **_: str) -> WSGIApplication:
    """Replace Swift's memcache middleware (a ``paste.filter_app_factory``)."""
    cache = Cache()

    def cached(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ["swift.cache"] = cache
        return app(environ, start_response)

    return cached


def with_request_log(app: WSGIApplication, global_conf: dict[str, str], **_: str) -> WSGIApplication:
    """Append ``METHOD path?query status`` to a file for each request (a ``paste.filter_app_factory``).

    The line is written before the first byte of the response, so that a client with a response finds its line.
    eventlet writes its own log after the last byte.
    """
    log = Path(global_conf["request_log"])

    def logged(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        query = f"?{environ['QUERY_STRING']}" if environ.get("QUERY_STRING") else ""
        request = f"{environ['REQUEST_METHOD']} {environ['RAW_PATH_INFO']}{query}"

        def start(status: str, *rest: Any) -> Any:
            with log.open("a", encoding="utf-8") as lines:
                lines.write(f"{request} {status.split(maxsplit=1)[0]}\n")
            return start_response(status, *rest)

        return app(environ, start)

    return logged


def log_to_file(conf: dict[str, str], *rest: Any) -> None:
    """Make one of Swift's loggers write only to ``swift.log`` (for ``log_custom_handlers``).

    Swift calls it with ``(conf, name, log_to_console, log_route, fmt, logger, adapted_logger)``.
    """
    logger: logging.Logger = rest[-2]
    handler = logging.FileHandler(Path(conf["swift_dir"], "swift.log"), encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(server)s: %(message)s"))
    logger.handlers[:] = [handler]
