"""The log of requests: one line for each, without keys and local paths."""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

request_log = logging.getLogger("pfstorage.requests")

_METHODS = frozenset(("", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"))
_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
_FAILURES = (
    HTTPStatus.INTERNAL_SERVER_ERROR
)  # before Python 3.12, a look-up of it in its class calls a function
_CLIENT_FAULTS = (HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
# Generated request ids are this prefix and a number. They are not secret, and a random number for each would be slow.
_PROCESS_ID = secrets.token_hex(4)
_NUMBERS = itertools.count(1)


def request_id(given: str) -> str:
    """Return *given*, the id that the client chose, if it is valid. Otherwise return a new id."""
    return given if given and _REQUEST_ID.fullmatch(given) else f"{_PROCESS_ID}{next(_NUMBERS):08x}"


def logged_method(method: str) -> str:
    """Return *method* as the log names it: an unknown method is arbitrary text of a client."""
    return method if method in _METHODS else "other"


def log_request(fields: Mapping[str, Any], *, is_abandoned: bool) -> None:
    """Log one request. *fields* must contain neither keys nor local paths, because these may name a patient.

    A failure of the server or the store is a warning. A request that was stopped because its client left
    (*is_abandoned*) is not.
    """
    status = fields["status"]
    is_failure = status >= _FAILURES and status not in _CLIENT_FAULTS
    is_bad = is_failure or (fields["error"] and status < HTTPStatus.BAD_REQUEST)
    level = logging.WARNING if is_bad and not is_abandoned else logging.INFO
    if request_log.isEnabledFor(level):
        request_log.handle(_LogRecord(fields, level))


class _LogRecord(logging.LogRecord):
    """A log record whose text is made from *fields*.

    The constructor of the base class looks up the calling line and thread, which takes longer than everything else.
    """

    fields: Mapping[str, object]

    _COMMON = vars(
        logging.makeLogRecord({"name": request_log.name, "levelno": logging.INFO, "levelname": "INFO"})
    )

    def __init__(self, fields: Mapping[str, object], level: int) -> None:
        now = time.time()
        self.__dict__ = {**self._COMMON, "fields": fields, "created": now, "msecs": int(now % 1 * 1000)}
        if level != logging.INFO:
            self.levelno, self.levelname = level, logging.getLevelName(level)

    def getMessage(self) -> str:  # noqa: N802 - the name of the base class
        return " ".join(
            [f"{key}={value}" for key, value in self.fields.items() if value != "" and value is not False]
        )
