"""``/healthz`` and ``/readyz``: report whether this process lives, and whether its store answers."""

from __future__ import annotations

import logging
import threading
import time

from pfstorage.errors import ContainerNotFoundError, PermissionDeniedError, PfstorageError, UnavailableError
from pfstorage.handler import StoreHandler
from pfstorage.server.exchange import Request, to_response
from pfstorage.server.http1.sending import Response
from pfstorage.wire.reply import Reply

log = logging.getLogger(__name__)

# Seconds for which the last answer of the store is reused. Probes are frequent, and need no token.
CACHE_SECONDS = 5.0
# Seconds for which a probe waits for the store. Most probes give up after some seconds themselves.
PROBE_SECONDS = 5.0


def healthz(_: Request) -> Response:
    """Answer that the process lives."""
    return to_response(Reply({"status": True}))


class Readiness:
    """The endpoint ``/readyz``: it lists one row of the store, once at a time, at most once in `CACHE_SECONDS`.

    A store that does not answer within `PROBE_SECONDS` is not ready.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asked_at = float("-inf")
        self._is_asking = False
        self._failure = self._logged = ""

    def __call__(self, request: Request) -> Response:
        """Answer 200 if the store answers, else 503. The reason is only logged, because a probe needs no token."""
        with self._changed:
            if not self._is_asking and time.monotonic() - self._asked_at > CACHE_SECONDS:
                handler = request.services.handler
                threading.Thread(target=self._ask, args=(handler,), name="readyz", daemon=True).start()
                self._is_asking, self._asked_at = True, time.monotonic()
            left = self._asked_at + PROBE_SECONDS - time.monotonic()
            is_known = self._changed.wait_for(lambda: not self._is_asking, max(0.0, left))
            failure = self._failure if is_known else f"the store does not answer in {PROBE_SECONDS:g} s"
            self._log(failure)
        if not failure:
            return to_response(Reply({"status": True}))
        return to_response(
            Reply.from_error(UnavailableError("the store can't be used now: see the log of the server"))
        )

    def _ask(self, handler: StoreHandler) -> None:
        try:
            failure = _store_failure(handler)
        except Exception as e:
            log.exception("the check of the store failed unexpectedly")
            failure = type(e).__name__
        with self._changed:
            self._is_asking, self._failure, self._asked_at = False, failure, time.monotonic()
            self._changed.notify_all()

    def _log(self, failure: str) -> None:
        """Log when the store fails, and when it answers again, instead of at each probe."""
        if failure and not self._logged:
            log.warning("not ready: %s", failure)
        elif self._logged and not failure:
            log.info("ready: the store answers again")
        self._logged = failure


def _store_failure(handler: StoreHandler) -> str:
    """Return the reason why the store does not list its objects, or "" if it does."""
    try:
        next(handler.storage.list("", limit=1), None)
    except ContainerNotFoundError:
        return ""  # the first upload creates it
    except PfstorageError as e:
        if not e.facts.get("key"):
            return str(e)
        # The key may name a patient. A store that refuses access to one object does answer.
        return "" if isinstance(e, PermissionDeniedError) else type(e).__name__
    return ""
