"""``/healthz`` and ``/readyz``: whether this process lives, and whether its store answers."""

from __future__ import annotations

import threading
import time

from pfstorage.errors import ContainerNotFoundError, PfstorageError, UnavailableError
from pfstorage.handler import StoreHandler
from pfstorage.reply import Reply
from pfstorage.serving.exchange import Answer, Request, answer_of

ASKED_EVERY = 5.0
"""Seconds for which what the store answered is taken to hold: probes are many, and need no token."""


def healthz(_: Request) -> Answer:
    """Say that the process answers."""
    return answer_of(Reply({"status": True}))


class Readiness:
    """``/readyz``: asks the store of the server for a row, and no more often than it needs to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._is_ready = False

    def __call__(self, request: Request) -> Answer:
        """Say whether the store answers. What it answers is nobody's business here."""
        with self._lock:  # the others wait for the answer, too, and do not ask as well
            if time.monotonic() - self._asked_at > ASKED_EVERY:
                self._is_ready = _answers(request.handler)
                self._asked_at = time.monotonic()
            is_ready = self._is_ready
        if is_ready:
            return answer_of(Reply({"status": True}))
        return answer_of(Reply.of_error(UnavailableError("the store does not answer")))


def _answers(handler: StoreHandler) -> bool:
    try:
        next(handler.storage.list("", limit=1), None)
    except ContainerNotFoundError:
        return True
    except PfstorageError:
        return False
    return True
