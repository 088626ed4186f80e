"""``/healthz`` and ``/readyz``: whether this process lives, and whether its store answers."""

from __future__ import annotations

import logging
import threading
import time

from pfstorage.errors import ContainerNotFoundError, PermissionDeniedError, PfstorageError, UnavailableError
from pfstorage.handler import StoreHandler
from pfstorage.server.exchange import Answer, Request, answer_of
from pfstorage.wire.reply import Reply

log = logging.getLogger(__name__)

ASKED_EVERY = 5.0
"""Seconds for which what the store answered is taken to hold: probes are many, and need no token."""


PATIENCE = 5.0
"""Seconds for which a probe waits for the store; most probes give up after some."""


def healthz(_: Request) -> Answer:
    """Say that the process answers."""
    return answer_of(Reply({"status": True}))


class Readiness:
    """``/readyz``: asks the store of the server for a row, one look at a time, and no more often than it needs to.

    A store that keeps silent is not ready: nobody waits longer than `PATIENCE` for it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asked_at = float("-inf")
        self._is_asking = False
        self._failure = self._logged = ""

    def __call__(self, request: Request) -> Answer:
        """Say whether the store answers. What it answers is nobody's business here."""
        with self._changed:
            if not self._is_asking and time.monotonic() - self._asked_at > ASKED_EVERY:
                threading.Thread(
                    target=self._ask, args=(request.handler,), name="readyz", daemon=True
                ).start()
                self._is_asking, self._asked_at = True, time.monotonic()
            left = self._asked_at + PATIENCE - time.monotonic()
            is_known = self._changed.wait_for(lambda: not self._is_asking, max(0.0, left))
            failure = self._failure if is_known else "it keeps silent"
            self._log(failure)
        if not failure:
            return answer_of(Reply({"status": True}))
        return answer_of(
            Reply.from_error(UnavailableError("the store can't be used now; the log has the reason"))
        )

    def _ask(self, handler: StoreHandler) -> None:
        try:
            failure = _failure_of(handler)
        except Exception as e:
            log.exception("the store was not asked, for a reason that pfstorage does not know")
            failure = type(e).__name__
        with self._changed:
            self._is_asking, self._failure, self._asked_at = False, failure, time.monotonic()
            self._changed.notify_all()

    def _log(self, failure: str) -> None:
        """Tell the log of a store that does not answer, and of one that does again: once, not at each probe."""
        if failure and not self._logged:
            log.warning("not ready: %s", failure)
        elif self._logged and not failure:
            log.info("ready: the store answers again")
        self._logged = failure


def _failure_of(handler: StoreHandler) -> str:
    """Return why the store does not list its objects, an empty text if it does."""
    try:
        next(handler.storage.list("", limit=1), None)
    except ContainerNotFoundError:
        return ""  # the first push makes it
    except PfstorageError as e:
        if not e.facts.get("key"):
            return str(e)
        # its key may name a patient; and a refusal of one object is an answer of the store
        return "" if isinstance(e, PermissionDeniedError) else type(e).__name__
    return ""
