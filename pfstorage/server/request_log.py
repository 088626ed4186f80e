"""The log of requests: a line for each, with the id by which it is found again."""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pfstorage.errors import StoppedError

requests = logging.getLogger("pfstorage.requests")

_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
_CLIENTS_FAULTS = (HTTPStatus.NOT_IMPLEMENTED, HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
_PROCESS = secrets.token_hex(4)
"""What the names of this process' requests begin with; they are no secret, and a random number each takes long."""
_NUMBERS = itertools.count(1)


def id_of(given: str) -> str:
    """Return what the client calls its request, or a new name for it."""
    return given if given and _ID.fullmatch(given) else f"{_PROCESS}{next(_NUMBERS):08x}"


def log_request(fields: Mapping[str, Any]) -> None:
    """Write one line: what was asked, by whom, and what came of it; no key and no local path may be in *fields*.

    They may be a patient's name. What failed at no fault of the client's is a warning; what was stopped since the
    client has gone is none.
    """
    status = fields["status"]
    is_failure = status >= HTTPStatus.INTERNAL_SERVER_ERROR and status not in _CLIENTS_FAULTS
    is_bad = is_failure or (fields["error"] and status < HTTPStatus.BAD_REQUEST)
    is_left = fields["broken"] and fields["error"] == StoppedError.__name__
    level = logging.WARNING if is_bad and not is_left else logging.INFO
    if requests.isEnabledFor(level):
        requests.handle(_Line(fields, level))


class _Line(logging.LogRecord):
    """The record of a request, whose text is made of its fields.

    To look up which line of which thread has made it, as the base class does, takes longer than all else.
    """

    fields: Mapping[str, object]

    _SAME = vars(logging.makeLogRecord({"name": requests.name, "levelno": logging.INFO, "levelname": "INFO"}))

    def __init__(self, fields: Mapping[str, object], level: int) -> None:
        now = time.time()
        self.__dict__ = {**self._SAME, "fields": fields, "created": now, "msecs": int(now % 1 * 1000)}
        if level != logging.INFO:
            self.levelno, self.levelname = level, logging.getLevelName(level)

    def getMessage(self) -> str:  # noqa: N802 - the name of the base class
        return " ".join(
            [f"{key}={value}" for key, value in self.fields.items() if value != "" and value is not False]
        )
