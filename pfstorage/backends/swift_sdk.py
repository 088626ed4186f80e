"""python-swiftclient, which only this file imports, and what it speaks HTTP with.

It is imported when it is first needed: it takes longer to import than a message
takes that needs no more than Swift's own login, listings, GET and PUT.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import requests
import swiftclient.client as swift
import urllib3

from pfstorage.backends.http_connection import ConnectionBroken, Refusal, Route
from pfstorage.config import Settings


def connect(url: str, route: Route, cacert: str) -> tuple[Any, Any]:
    """Return a connection as swiftclient's functions take it: with the URL, parsed."""
    timeouts = (route.connect_timeout, route.timeout)
    made: tuple[Any, Any] = swift.http_connection(url, cacert=cacert or None, timeout=timeouts)
    session, options = made[1].request_session, made[1].requests_args
    options.update(proxies={"http": route.proxy, "https": route.proxy} if route.proxy else {})
    session.trust_env = False  # the environment is looked at once, by `find_route`
    return made


def call(name: str, url: str, token: str, connection: tuple[Any, Any], *args: Any, **kwargs: Any) -> Any:
    """Return what swiftclient's function *name* returns. Raise `Refusal` or `ConnectionBroken`."""
    with _errors():
        return getattr(swift, name)(url, token, *args, http_conn=connection, **kwargs)


def log_in(settings: Settings) -> tuple[str, str]:
    """Log in as the settings say; return the storage URL and a token. Raise `Refusal` or `ConnectionBroken`."""
    block = settings.swift
    with _errors():
        url, token = swift.get_auth(
            block.auth_url,
            block.username,
            block.key,
            auth_version=block.auth_version,
            os_options=dict(block.os_options),
            cacert=block.cacert or None,
            timeout=settings.timeout,
        )
    return url, token


def find_route(url: str, settings: Settings) -> Route:
    """Find how to reach *url*: what the settings and the environment say of proxies and certificates.

    Raise `ConnectionBroken` if the certificates can't be read.
    """
    proxy = settings.http_proxy and f"http://{settings.http_proxy.removeprefix('http://')}"
    given = {"http": proxy, "https": proxy} if proxy else {}
    with requests.Session() as session:
        found = session.merge_environment_settings(url, given, True, settings.swift.cacert or None, None)
    chosen = requests.utils.select_proxy(url, found["proxies"]) or ""
    if chosen and "://" not in chosen:
        chosen = f"http://{chosen}"
    if chosen and not _is_address(chosen):
        raise ConnectionBroken("the address of its proxy can't be read", connecting=True)
    context = None
    if url.startswith("https:"):
        bundle = (
            found["verify"] if isinstance(found["verify"], str) else requests.utils.DEFAULT_CA_BUNDLE_PATH
        )
        try:
            context = ssl.create_default_context(cafile=bundle)
        except OSError as e:
            raise ConnectionBroken(f"the certificates in {bundle!r} can't be read", connecting=True) from e
    return Route(url, chosen, settings.connect_timeout, settings.timeout, context)


def _is_address(url: str) -> bool:
    try:
        found = urlsplit(url)
        return bool(found.hostname) and found.port != 0
    except ValueError:
        return False


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except swift.ClientException as e:
        headers = {str(name).lower(): str(value) for name, value in (e.http_response_headers or {}).items()}
        raise Refusal(e.http_status, e.http_reason if e.http_status else e.msg, headers) from e
    except (requests.RequestException, urllib3.exceptions.HTTPError) as e:
        reason, connecting = _reason(e)
        raise ConnectionBroken(reason, connecting=connecting) from e


def _reason(e: Exception) -> tuple[str, bool]:
    """Return why there was no answer, in few words, and whether there was no connection at all."""
    inner: object = e
    if isinstance(e, requests.RequestException):  # which wraps what urllib3 raised
        inner = getattr(e.args[0], "reason", e.args[0]) if e.args else e
    if isinstance(inner, urllib3.exceptions.ProtocolError) and len(inner.args) > 1:
        inner = inner.args[1]
    if isinstance(inner, urllib3.exceptions.ProxyError):
        return "its proxy does not (see --httpProxy, or the variables http_proxy and no_proxy)", True
    if isinstance(inner, urllib3.exceptions.NameResolutionError):
        return "its name is not known", True
    if isinstance(inner, urllib3.exceptions.NewConnectionError):
        return "nothing listens there", True
    if isinstance(inner, urllib3.exceptions.ConnectTimeoutError):
        return "no connection in time", True
    if isinstance(inner, urllib3.exceptions.TimeoutError):
        return "it fell silent", False
    return f"the connection broke ({type(inner).__name__})", False


def sdk_connection(settings: Settings) -> Any:
    """Return a `swiftclient.Connection` for *settings*, for callers who want the SDK itself."""
    block = settings.swift
    return swift.Connection(
        authurl=block.auth_url,
        user=block.username,
        key=block.key,
        auth_version=block.auth_version,
        os_options=dict(block.os_options),
        cacert=block.cacert or None,
        timeout=settings.timeout,
    )
