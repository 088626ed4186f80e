"""Choose the proxy and the certificates for a store, from the settings and the environment."""

from __future__ import annotations

import codecs
import ipaddress
import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pfstorage.backends.http.dialing import NetworkRoute
from pfstorage.backends.http.errors import TALKING, Mistake
from pfstorage.runtime.unexpected import is_out_of_descriptors
from pfstorage.settings.model import Settings, size_of
from pfstorage.settings.urls import proxy_url
from pfstorage.settings.values import read_file
from pfstorage.wire.decoding import decoded

# Bytes of a file of certificates. The authorities of a system take 300 KB.
MAX_CERTIFICATES = 16 * 1024**2
# Variables with a file of certificates: that of OpenSSL, then those of requests, which 2.x used.
_BUNDLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def find_route(origin: str, settings: Settings, environ: Mapping[str, str]) -> NetworkRoute:
    """Return the route to *origin*, ``SCHEME://HOST:PORT``. Raise `Mistake` for a setting that cannot work.

    Raise `ConnectionBroken` if the files of certificates can't be read now.
    """
    proxy = find_proxy(origin, settings.http_proxy, environ)
    is_tls = urlsplit(origin).scheme == "https"
    with TALKING:
        context = trusting(settings.swift.cacert, settings.insecure, environ) if is_tls else None
    min_rate = size_of(settings.min_rate)
    return NetworkRoute(origin, proxy, settings.connect_timeout, settings.timeout, context, min_rate)


def find_proxy(origin: str, setting: str, environ: Mapping[str, str]) -> str:
    """Return the URL of the proxy for *origin*, or "" without one. Raise `Mistake` for an unsupported scheme.

    Without *setting*, use the variables that curl uses, those in lower case first.
    """
    target = urlsplit(origin)
    source, found = "--httpProxy", setting
    for name in (f"{target.scheme}_proxy", "all_proxy"):
        if not found:
            source, found = _variable(name, environ)
    if not found:
        return ""
    port = target.port or (443 if target.scheme == "https" else 80)
    if not setting and is_exempt(target.hostname or "", port, _variable("no_proxy", environ)[1]):
        return ""
    try:
        return proxy_url(found)
    except ValueError as e:
        beside = "" if setting else ", or name the store in no_proxy"
        raise Mistake(f"{source}: {e}{beside}") from None


def _variable(name: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the spelling of the variable *name* in *environ*, and its value. Lower case takes precedence."""
    spelled = name if name in environ else next((each for each in environ if each.lower() == name), name)
    return spelled, environ.get(spelled, "").strip()


def is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Return whether *no_proxy*, a list of names, addresses and networks, with or without ports, contains *host*.

    >>> is_exempt("fd00::7", 8080, "10.0.0.0/8, fd00::/8"), is_exempt("10.1.2.3", 80, "10.0.0.0/8:8080")
    (True, False)
    >>> is_exempt("swift.example.org", 8080, ".example.org:8080"), is_exempt("badexample.org", 80, "example.org")
    (True, False)
    >>> is_exempt("::1", 8080, "[::1]:8080"), is_exempt("::1", 8080, "[::1]:80"), is_exempt("a", 80, " * ")
    (True, False, True)
    >>> is_exempt("a", 80, "a:" + "9" * 5000)
    False
    """
    entries = re.split(r"[\s,]+", no_proxy.lower())
    return any(_has(entry, host.lower().rstrip("."), port) for entry in entries if entry)


def _has(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    found = re.fullmatch(
        r"\[(?P<v6>[^]]*)](?P<bits>/\d+)?(:(?P<port6>\d{1,5}))?|(?P<name>[^:]*):(?P<port>\d{1,5})", entry
    )
    name, wanted = entry, None
    if found:
        name = found["name"] or f"{found['v6'] or ''}{found['bits'] or ''}"
        wanted = found["port"] or found["port6"]
    if wanted and int(wanted) != port:
        return False
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = name.removeprefix("*").strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ipaddress.ip_network(name.partition("%")[0], strict=False)
    except ValueError:
        return False


def trusting(cacert: str, insecure: bool, environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return the context that verifies a store's certificate. Raise `Mistake` for a file without certificates."""
    if insecure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    named = {"--caCert": cacert, **{name: environ.get(name, "") for name in _BUNDLES}}
    for source, path in named.items():
        if path:
            return _trusting_file(source, path)
    import certifi  # as requests does: a small image has no certificates of the system

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def certificates_text(path: str) -> str:
    """Return the text of the file of certificates *path* if OpenSSL can't read the file itself, else "".

    OpenSSL silently skips a certificate after a byte order mark, and reads a device such as /dev/zero without end. A
    pipe can be read only once. Raise `OSError`, or `ValueError` for an invalid encoding and for a file that is too
    long.
    """
    if not os.path.exists(path) or os.path.isdir(path):
        return ""
    data = read_file(path, MAX_CERTIFICATES)
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = decoded(data)
    else:
        text = "" if os.path.isfile(path) else data.decode("latin-1")
    return text.encode(
        "ascii", "replace"
    ).decode()  # ssl requires ASCII, but comments may have other characters


def _trusting_file(source: str, path: str) -> ssl.SSLContext:
    try:
        if Path(path).is_dir():
            return ssl.create_default_context(capath=path)
        text = certificates_text(path)
        return ssl.create_default_context(cafile=None if text else path, cadata=text or None)
    except ssl.SSLError as e:
        raise Mistake(f"{source}: {path!r} holds no certificates (PEM): {e.reason or e}") from e
    except (OSError, ValueError) as e:
        if is_out_of_descriptors(e):
            raise
        raise Mistake(f"{source}: {path!r} can't be read: {getattr(e, 'strerror', None) or e}") from e
