"""Use the SDKs of OpenStack: keystoneauth for a login at Keystone, swiftclient for `connect()` of 2.x.

Only this file imports them. It is imported on first use, since the import takes longer than a small message.
"""

from __future__ import annotations

import contextlib
import io
import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import swiftclient.client as swift
import urllib3

from pfstorage.backends.http.connection import HttpConnection
from pfstorage.backends.http.dialing import NetworkRoute
from pfstorage.backends.http.errors import Mistake, Refusal
from pfstorage.backends.swift.rows import NO_JSON
from pfstorage.errors import StorageError, UnavailableError
from pfstorage.settings.model import Settings

Connect = Callable[[str], contextlib.AbstractContextManager[HttpConnection]]


def log_in(settings: Settings, connect: Connect) -> tuple[str, str]:
    """Log in at Keystone as *settings* describe it; return the storage URL and a token.

    *connect* opens a connection for a URL. So the login uses the same proxies and certificates as the store, and
    sends no password along with a redirection. Raise `Refusal` or `ConnectionBroken`.
    """
    try:
        from keystoneauth1 import exceptions, session
    except ImportError:
        raise Mistake("a login at Keystone needs keystoneauth1: pip install 'pfstorage[keystone]'") from None
    options = dict(settings.swift.os_options)
    with requests.Session() as wire:
        wire.trust_env = False  # the module `routes` alone reads the environment
        wire.headers.clear()  # else the answer may be compressed
        for scheme in ("http://", "https://"):
            wire.mount(scheme, _Adapter(connect))
        client = session.Session(session=wire, redirect=False, connect_retries=0)
        plugin = _plugin(settings, options)
        try:
            access = plugin.get_access(client)
            url = access.service_catalog.url_for(
                service_type=options.get("service_type") or "object-store",
                interface=options.get("endpoint_type") or "public",
                region_name=options.get("region_name"),
            )
            if not (isinstance(url, str) and isinstance(access.auth_token, str)):
                raise TypeError("the URL and the token must be texts")
            return url, access.auth_token
        except (exceptions.InvalidResponse, *NO_JSON, LookupError) as e:
            raise Refusal(200, "without the fields of a Keystone") from e
        except exceptions.ClientException as e:
            raise Mistake(f"the login at its Keystone fails: {e}; see the variables OS_...") from e


class _Adapter(requests.adapters.HTTPAdapter):
    """An adapter that sends the requests of keystoneauth over connections of this package."""

    def __init__(self, connect: Connect) -> None:
        super().__init__()
        self._connect = connect

    def send(self, request: Any, *_: object, **__: object) -> Any:
        target = urlsplit(request.url)
        path = target._replace(scheme="", netloc="", fragment="").geturl() or "/"
        body = request.body.encode() if isinstance(request.body, str) else request.body
        with self._connect(request.url) as connection:
            headers = {name: _decoded(value) for name, value in request.headers.items()}
            answer = connection.request(request.method, path, headers, body)
            content = connection.read_all(answer)
        if answer.status >= 300:
            raise Refusal(answer.status, answer.reason, answer.fields, method=request.method, path=path)
        made = urllib3.HTTPResponse(
            io.BytesIO(content), answer.fields, answer.status, reason=answer.reason, preload_content=False
        )
        return self.build_response(request, made)


def _decoded(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _plugin(settings: Settings, options: Mapping[str, Any]) -> Any:
    """Return the login plugin of keystoneauth for the options and the defaults of swiftclient."""
    from keystoneauth1.identity import v2, v3

    block = settings.swift
    version = block.auth_version
    if version not in ("2", "2.0", "3", "3.0"):
        raise Mistake(f"swift.auth_version {version!r} is none of 1, 2 and 3: see OS_IDENTITY_API_VERSION")
    url = block.auth_url
    if not re.fullmatch(r"v[23](\.0)?", urlsplit(url).path.rstrip("/").rpartition("/")[2]):
        url = urljoin(f"{url.rstrip('/')}/", "v3" if version.startswith("3") else "v2.0")
    kind = options.get("auth_type")
    if kind == "v3applicationcredential":
        credential, secret = (
            str(options.get(f"application_credential_{each}") or "") for each in ("id", "secret")
        )
        return v3.ApplicationCredential(
            url, application_credential_id=credential, application_credential_secret=secret
        )
    if kind not in (None, "password", "v2password", "v3password"):
        raise Mistake(f"OS_AUTH_TYPE {kind!r} is none of password and v3applicationcredential")
    tenant, colon, user = block.username.partition(":")
    username = user if colon else block.username
    name = options.get("project_name") or (tenant if colon else options.get("tenant_name"))
    number = options.get("project_id") or options.get("tenant_id")
    if not (name or number):
        raise Mistake("a login at Keystone needs a project: give OS_PROJECT_NAME or OS_PROJECT_ID")
    token = options.get("auth_token")
    if version.startswith("2"):
        scope: dict[str, Any] = {"tenant_name": name, "tenant_id": number}
        return v2.Token(url, token, **scope) if token else v2.Password(url, username, block.key, **scope)
    scope = {"project_name": name, "project_id": number, **_domain("project", options, number)}
    if token:
        return v3.Token(url, token, **scope)
    who: dict[str, Any] = {"username": username, "user_id": options.get("user_id")}
    return v3.Password(url, password=block.key, **who, **_domain("user", options, who["user_id"]), **scope)


def _domain(of: str, options: Mapping[str, Any], number: object) -> dict[str, Any]:
    """Return the domain of a user or a project. A name without a domain belongs to the domain ``default``."""
    found = {name: options.get(name) for name in (f"{of}_domain_id", f"{of}_domain_name")}
    if not number and not any(found.values()):
        return {f"{of}_domain_id": "default"}
    return found


class SdkConnection(swift.Connection):  # type: ignore[misc]
    """A connection of swiftclient that logs in by *log_in*, and sends each request along the route of *find_route*.

    swiftclient itself supports only the proxies of the environment, no certificates of ``SSL_CERT_FILE``, and no
    login with an application credential.
    """

    def __init__(
        self,
        settings: Settings,
        log_in: Callable[[], tuple[str, str]],
        find_route: Callable[[str], NetworkRoute],
    ) -> None:
        block = settings.swift
        super().__init__(
            authurl=block.auth_url,
            user=block.username,
            key=block.key,
            auth_version=block.auth_version,
            os_options=dict(block.os_options),
            cacert=block.cacert or None,
            insecure=settings.insecure,
            timeout=settings.timeout,
        )
        self._log_in = log_in
        self._find_route = find_route

    def get_auth(self) -> tuple[str, str]:
        """Log in. Raise the errors of swiftclient, since it retries by their types."""
        try:
            self.url, self.token = self._log_in()
        except StorageError as e:
            status = e.__cause__.status if isinstance(e.__cause__, Refusal) else None
            if isinstance(e, UnavailableError) and status is None:
                raise ConnectionError(str(e)) from e
            raise swift.ClientException(str(e), http_status=status) from e
        return self.url, self.token

    def http_connection(self, url: str | None = None) -> Any:
        parsed, connection = super().http_connection(url)
        target = urlsplit(url or self.url)
        try:
            route = self._find_route(f"{target.scheme}://{target.netloc}")
        except Mistake as e:
            raise swift.ClientException(f"the store at {target.netloc} can't be used: {e.reason}") from e
        connection.requests_args["verify"] = not self.insecure  # the context below has the certificates
        wire = connection.request_session
        wire.trust_env = False
        wire.proxies = {target.scheme: route.proxy} if route.proxy else {}
        if route.context:
            wire.mount("https://", _Trusting(route.context))
        return parsed, connection


class _Trusting(requests.adapters.HTTPAdapter):
    """An adapter that trusts the certificates of *context* only."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **more)

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=self._context, **more)

    def cert_verify(self, *_: object, **__: object) -> None:
        """Add no certificates of requests."""
