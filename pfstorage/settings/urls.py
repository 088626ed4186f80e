"""The URLs that settings name: which are valid, and which proxies pfstorage can speak to."""

from __future__ import annotations

import functools
import ipaddress
import re
from urllib.parse import urlsplit

# The name of a scheme (RFC 3986, 3.1).
_SCHEME = re.compile("[A-Za-z][A-Za-z0-9+.-]*")


def is_url(text: str) -> bool:
    """Return whether *text* is a URL of http or https with a host.

    >>> is_url("https://[::1]:8080/v1"), is_url("http://host:0"), is_url("host/v1"), is_url("http://a b/")
    (True, False, False, False)
    """
    try:
        url = urlsplit(text)
        is_whole = "@" not in url.path + url.query + url.fragment  # a "/" in a password would move it there
        is_plain = not re.search(r"[\s\x00-\x1f\x7f]", text.strip())
        return (
            url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and is_whole and is_plain
        )
    except ValueError:  # the port is not a number
        return False


def proxy_url(text: str) -> str:
    """Return the URL of the HTTP proxy *text*, which may lack the scheme; "" is no proxy.

    Raise `ValueError` for another scheme: pfstorage would send secrets to it in plain text.

    The text of the error has no part of a password.

    >>> proxy_url("proxy:3128"), proxy_url(" HTTP://me:pw@[::1]:3128\\n")
    ('http://proxy:3128', 'http://me:pw@[::1]:3128')
    """
    scheme, found, rest = text.strip().partition("://")
    if found and scheme.lower() != "http":
        shown = (
            f", not {scheme[:20]!r}" if _SCHEME.fullmatch(scheme) else ""
        )  # otherwise it may be a password
        raise ValueError(
            f"pfstorage speaks plain HTTP to a proxy{shown}: give the HOST:PORT of an HTTP proxy"
        )
    url = f"http://{rest if found else scheme}"
    if not (rest or scheme):
        return ""
    if not is_url(url):
        raise ValueError("it must be HOST:PORT, or a URL; write a '/' in its password as %2F")
    return url


def server_url(text: str) -> str:
    """Return the URL for messages of the pfstorage server *text*, which is ``HOST:PORT`` or a URL.

    Raise `ValueError`. Its text has no part of *text*, which may contain a password.

    >>> server_url("localhost:4055"), server_url("https://store.example/pfstorage")
    ('http://localhost:4055/api/v1/cmd', 'https://store.example/pfstorage')
    """
    scheme, found, rest = text.strip().partition("://")
    url = f"{scheme.lower()}://{rest}" if found else f"http://{scheme}"
    if not is_url(url) or urlsplit(url).netloc.endswith(":"):
        raise ValueError(
            "it takes HOST:PORT, such as 127.0.0.1:4055 or [::1]:4055, or a URL with http or https; write '/', '?',"
            " '#' and '@' in its password as %2F, %3F, %23 and %40"
        )
    return url if urlsplit(url).path else urlsplit(url)._replace(path="/api/v1/cmd").geturl()


@functools.lru_cache(8)
def is_loopback(host: str) -> bool:
    """Return whether *host*, a name or an address, can only be this machine.

    >>> is_loopback("localhost"), is_loopback("127.0.0.9"), is_loopback("::1"), is_loopback("10.0.0.1")
    (True, True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
