"""Map the refusal of a request to an error, by its status and by the request.

A status has no meaning without its request. The 404 of a login means a wrong path, and that of a container a missing
container. The 404 of an ingress whose store restarts means nothing for any object. Swift and Ceph RGW name a
transaction in each answer (``X-Trans-Id``). A server in front of them does not, and is recognized by that.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Literal
from urllib.parse import unquote, urlsplit

from pfstorage.backends.errors import (
    OverloadedError,
    PreconditionFailedError,
    ProxyAnswerError,
    ProxyDeniedError,
    ProxyLoginError,
    RangeNotSatisfiableError,
    SegmentsMissingError,
)
from pfstorage.backends.http.errors import Refusal
from pfstorage.backends.times import parse_http_date
from pfstorage.errors import (
    ConflictError,
    ContainerNotFoundError,
    Fact,
    IntegrityError,
    MisconfiguredError,
    NoSpaceError,
    NotFoundError,
    ObjectTooLargeError,
    PermissionDeniedError,
    RejectedError,
    StorageError,
    UnauthenticatedError,
    UnavailableError,
)

RequestKind = Literal["info", "account", "container", "object"]

# 498 is the rate limit of Swift itself. 499 means that the client has left.
_TEMPORARY = {408, 425, 429, 498, 499}
# Statuses with the same meaning from any server: they are about the request or its caller.
_COMMON_STATUSES = {400, 401, 403, 407, 409, 411, 413, 414, 417, 431, 451, 497, 507, *_TEMPORARY}

_OVERLOAD = {429, 498, 503}


class NotListingError(RejectedError, is_public=False):
    """The answer to a request for a listing is no listing."""

    max_retries = 1  # a proxy may have cut it


class BadRequestError(RejectedError, is_public=False):
    """The store could not read the request (400)."""

    max_retries = 1


class PageTooLongError(RejectedError, is_public=False):
    """The request asked for a longer page of a listing than the store allows (412)."""


_ERROR_BY_STATUS: dict[int, type[StorageError]] = {
    400: BadRequestError,
    401: UnauthenticatedError,
    403: PermissionDeniedError,
    416: RangeNotSatisfiableError,
    507: NoSpaceError,
}
# The schemes in WWW-Authenticate of other servers. Swift and Keystone use ``Swift`` and ``Keystone``.
_PROXY_SCHEMES = {"basic", "bearer", "digest", "negotiate", "ntlm"}


@dataclass(frozen=True)
class RequestSubject:
    """The subject of a request: its *method*, and the *key* or *container* at *address*."""

    address: str
    kind: RequestKind
    method: str = ""
    container: str = ""
    key: str = ""


def subject_of(e: Refusal, address: str, storage_url: str, key: str = "") -> RequestSubject:
    """Describe the refused request *e* by its path. *key* is the key of the caller, not quoted."""
    base = urlsplit(storage_url).path.rstrip("/")
    path = e.path.partition("?")[0]
    if not path:
        return RequestSubject(address, "object" if key else "account", e.method, "", key)
    if not path.startswith(base):
        return RequestSubject(address, "info", e.method)
    container, _, rest = path[len(base) :].strip("/").partition("/")
    kind: RequestKind = "object" if rest else "container" if container else "account"
    return RequestSubject(address, kind, e.method, unquote(container), key if rest else "")


def is_signed(headers: Mapping[str, str]) -> bool:
    """Return whether an answer names its transaction, as each answer of Swift and of Ceph RGW does."""
    return "x-trans-id" in headers or "x-openstack-request-id" in headers


def error_from_answer(e: Refusal, about: RequestSubject, is_own: Callable[[], bool]) -> StorageError:
    """Return the error for the refusal *e*. *is_own* returns whether the store itself sent it."""
    facts = _facts(e, about.address, about.key)
    what = f" about {about.key!r}" if about.key else ""
    text = f"the store at {about.address} answered {e.status} {e.reason}{what}{_words_of_store(e)}"
    if e.status < 300:
        return ProxyAnswerError(f"{text}: {STRANGER}", **facts, stranger=True)
    if e.status < 400 or _is_of_proxy(e):
        return _setting_error(e, text, facts)
    if (e.status >= 500 and e.status != 507) or e.status in _TEMPORARY:
        return _unavailable(e, text, facts)
    if about.kind == "info":
        return RejectedError(text, **facts)
    if (e.status == 403 or e.status not in _COMMON_STATUSES) and not is_own():
        facts["stranger"] = True
        kind = ProxyDeniedError if e.status == 403 else ProxyAnswerError
        return kind(f"{text}: {STRANGER}", **facts)
    return _own_refusal(e, about, text, facts)


def _own_refusal(e: Refusal, about: RequestSubject, text: str, facts: dict[str, Fact]) -> StorageError:
    if e.status == 404:
        return _not_found(about, text, facts)
    if e.status == 409:
        return _conflict(about, text, facts)
    if e.status == 413:
        return _too_large_or_full(e, text, facts)
    if e.status == 412:
        kind = PreconditionFailedError if about.kind == "object" else PageTooLongError
        return kind(text, **facts)
    if e.status == 422 and (about.kind, about.method) == ("object", "PUT"):
        return IntegrityError(text, **facts)
    return _ERROR_BY_STATUS.get(e.status, RejectedError)(text, **facts)


STRANGER = "the answer has no X-Trans-Id, so a proxy or an ingress gave it, not the store"


def _conflict(about: RequestSubject, text: str, facts: dict[str, Fact]) -> StorageError:
    """Distinguish a broken large object from two writers of one name, a temporary conflict.

    Swift's middleware slo answers 409 to a GET of a large object whose first segment is missing or has changed.
    """
    if about.method in ("GET", "HEAD"):
        return SegmentsMissingError(f"{text}: one of its segments is missing or has changed", **facts)
    return ConflictError(text, **facts)


def _too_large_or_full(e: Refusal, text: str, facts: dict[str, Fact]) -> StorageError:
    """Distinguish an object that is too large from a full account or container, by the text of the store."""
    words = e.words.lower()
    if "too large" in words and "quota" not in words:
        return ObjectTooLargeError(f"{text}: use smaller segments (--segmentSize)", **facts)
    return NoSpaceError(text, **facts)


def _not_found(about: RequestSubject, text: str, facts: dict[str, Fact]) -> StorageError:
    if about.kind == "object" and about.method != "PUT":
        return NotFoundError(f"there is no object {about.key!r}", **facts)
    if about.kind == "account" or (about.kind, about.method) == ("container", "PUT"):
        return MisconfiguredError(
            f"{text}: there is no such account; see OS_STORAGE_URL, --swiftUsername", **facts
        )
    return no_container(about.container, about.address, facts)


def no_container(
    container: str, address: str, facts: Mapping[str, Fact] | None = None
) -> ContainerNotFoundError:
    """Return the error for the missing *container*."""
    text = f"there is no container {container!r} at {address}; a push creates it"
    return ContainerNotFoundError(text, **{**(facts or {}), "container": container})


def error_from_login(e: Refusal, address: str, url: str, user: str) -> StorageError:
    """Return the error for the refused login *e* of *user* at *url*. The URL contains no password."""
    facts = _facts(e, address)
    text = f"the login at {url} answered {e.status} {e.reason}{_words_of_store(e)}"
    if e.status < 400:
        return MisconfiguredError(f"{text}{_redirection(e)}; see --swiftAuthUrl, SWIFT_AUTH_URL", **facts)
    if e.status >= 500 or e.status in _TEMPORARY:
        return _unavailable(e, text, facts)
    if _is_of_proxy(e):
        return _setting_error(e, text, facts)
    if e.status == 401 or (e.status == 403 and is_signed(e.headers)):
        text = f"cannot log in: the store at {address} does not accept the key of {user!r}"
        return UnauthenticatedError(
            f"{text}: see --swiftUsername and --swiftKey (SWIFT_USERNAME, SWIFT_KEY, OS_*)", **facts
        )
    if is_signed(e.headers) or e.status in _COMMON_STATUSES - {403, 409}:
        return MisconfiguredError(
            f"{text}: this is not the address of a login; see --swiftAuthUrl, SWIFT_AUTH_URL", **facts
        )
    return UnavailableError(
        f"{text}: {STRANGER}. The store may be restarting, or the address is wrong: see --swiftAuthUrl, SWIFT_AUTH_URL",
        **facts,
    )


def _unavailable(e: Refusal, text: str, facts: dict[str, Fact]) -> UnavailableError:
    return (OverloadedError if e.status in _OVERLOAD else UnavailableError)(text, **facts)


def _setting_error(e: Refusal, text: str, facts: dict[str, Fact]) -> MisconfiguredError:
    """Return the error for a redirection, or for a proxy that requires its own login."""
    if e.status < 400:
        return MisconfiguredError(f"{text}{_redirection(e)}", **facts)
    # 401 may be about this request alone, but a forward proxy that answers 407 passes none on
    return (ProxyLoginError if e.status == 401 else MisconfiguredError)(f"{text}{OF_PROXY}", **facts)


OF_PROXY = ": a proxy in front of the store asks for its own login; see --httpProxy USER:PASSWORD@HOST:PORT"


def _is_of_proxy(e: Refusal) -> bool:
    scheme = e.headers.get("www-authenticate", "").partition(" ")[0].lower()
    return e.status == 407 or (e.status == 401 and scheme in _PROXY_SCHEMES)


def _facts(e: Refusal, address: str, key: str = "") -> dict[str, Fact]:
    facts: dict[str, Fact] = {"address": address, "status": e.status}
    if key:
        facts["key"] = key
    if "x-trans-id" in e.headers:
        facts["transaction"] = e.headers["x-trans-id"]
    wait = _seconds_to_wait(e.headers)
    if wait is not None:
        facts["retry_after"] = wait
    return facts


def _seconds_to_wait(headers: Mapping[str, str]) -> int | None:
    """Return the seconds that Retry-After asks for (RFC 9110, 10.2.3), None without a valid value.

    A date is relative to the Date of the answer, since the clock of the store may differ. A past date is not valid.

    >>> _seconds_to_wait({"retry-after": "7"}), _seconds_to_wait({"retry-after": "soon"})
    (7, None)
    >>> dates = {"date": "Fri, 31 Dec 1999 23:59:50 GMT", "retry-after": "Sat, 01 Jan 2000 00:00:02 GMT"}
    >>> _seconds_to_wait(dates)
    12
    """
    value = headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    moment = parse_http_date(value)
    if not moment:
        return None
    now = parse_http_date(headers.get("date", "")) or datetime.now(timezone.utc)
    seconds = math.ceil((moment - now).total_seconds())
    return seconds if seconds > 0 else None


# Statuses whose body has details: the error in the request, or the limit that it reached.
_DETAILED = {400, 409, 413, 507}


def _words_of_store(e: Refusal) -> str:
    return f" ({e.words})" if e.status in _DETAILED and e.words else ""


def _redirection(e: Refusal) -> str:
    """Describe the target of a redirection. pfstorage follows none, since a token is for the configured host only."""
    try:
        target = urlsplit(e.headers.get("location", ""))
        place = f"{target.scheme}://{target.hostname}" + (f":{target.port}" if target.port else "")
        return f", a redirection to {place}: use the final address" if target.hostname else ""
    except ValueError:
        return ""
