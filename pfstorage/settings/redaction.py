"""Mask secrets in logs, records and settings.

pfstorage does not search replies for secrets: a sender could guess a secret, and the mask would confirm the guess.
Instead, replies are made without secrets. Masks are for texts that the sender does not see, the log and the records of
``--debugToDir``, and for the settings that ``internalctl`` shows.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote

from pfstorage.wire.decoding import without_mark

MASK = "********"

_SECRET_NAME = re.compile(
    r"(swift|api)?key|osoptions|.*(password|passwd|secret|token|authorization|credentials?)"
)

# The end of the text before the "//" of a URL: a scheme with its colon, at the start of the text or of a word.
_SCHEME_END = re.compile(r"(^|[\s'\"(<])([a-z][a-z0-9+.-]*:)?$", re.IGNORECASE)


class Secret(str):
    """A text whose ``repr`` is `MASK`, also within a container and in a traceback that shows values."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(MASK)


def without_line_end(text: str) -> str:
    """Return the secret *text* without a final line end and without a byte order mark.

    Editors and ``echo`` write a line end after a secret.

    >>> without_line_end("\ufeffsecret\\r\\n"), without_line_end(" in between\\n is one ")
    ('secret', ' in between\\n is one ')
    """
    return without_mark(text).rstrip("\r\n")


def says_secret(name: str) -> bool:
    """Return whether a value with this *name* is most likely a secret.

    >>> says_secret("authToken"), says_secret("OS_PASSWORD"), says_secret("tokenPath"), says_secret("path")
    (True, True, False, False)
    """
    return _SECRET_NAME.fullmatch(re.sub("[^a-z]", "", name.lower())) is not None


def without_password(text: str) -> str:
    """Mask the user and the password of *text*, which is a URL with or without scheme, or a sentence with a URL.

    >>> without_password("http://me:secr@t@host/auth"), without_password("me:secret@proxy:3128")
    ('http://********@host/auth', '********@proxy:3128')
    >>> without_password("me:sec://ret@proxy:3128"), without_password("no answer of 'http://me:secret@host'")
    ('********@proxy:3128', "no answer of 'http://********@host'")
    """
    before, user, host = _url_parts(text)
    return f"{before}{MASK}@{host}" if user else text


def passwords_of(url: str) -> set[str]:
    """Return the password in *url*, as written and decoded. Without a password, the user counts as one.

    >>> sorted(passwords_of("http://me:a%20b@host")), passwords_of("http://host")
    (['a b', 'a%20b'], set())
    """
    _, user, _ = _url_parts(url)
    written = user.partition(":")[2] or user
    return {written, unquote(written)} - {""}


def _url_parts(url: str) -> tuple[str, str, str]:
    """Split *url* into the part before the user and password, these two, and the part behind their ``@``.

    The last ``@`` counts: the author of the URL may have forgotten to escape a "/" or an "@" of the password.
    """
    scheme, slashes, rest = url.partition("//")
    if not _SCHEME_END.search(scheme):  # the slashes belong to the password
        scheme, slashes, rest = "", "", ""
    user, _, host = rest.rpartition("@") if slashes else url.rpartition("@")
    return (scheme + slashes if slashes else ""), user, host


def without(value: Any, secrets: frozenset[str]) -> Any:
    """Mask each of *secrets* everywhere in *value*, a text or decoded JSON.

    A secret is found as it is, and as a URL, JSON or Python's ``repr`` writes it.

    >>> without({"url": "/?token=a%26b", "n": 1}, frozenset({"a&b"}))
    {'url': '/?token=********', 'n': 1}
    """
    if isinstance(value, str):
        return _pattern(secrets).sub(MASK, value) if secrets else value
    if isinstance(value, Mapping):
        return {without(name, secrets): without(each, secrets) for name, each in value.items()}
    return [without(each, secrets) for each in value] if isinstance(value, list | tuple) else value


@functools.lru_cache(maxsize=8)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str]:
    forms = {form for secret in secrets for form in _forms(secret)}
    return re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))


def _forms(secret: str) -> set[str]:
    plain = str(secret)
    quoted = {quote(plain, errors="replace"), quote(plain, safe="", errors="replace")}
    as_json = {json.dumps(plain)[1:-1], json.dumps(plain, ensure_ascii=False)[1:-1]}
    return {plain, quote_plus(plain, errors="replace"), repr(plain)[1:-1]} | quoted | as_json


def without_named(value: Any) -> Any:
    """Mask the members of *value*, decoded JSON, whose names say that they are secrets.

    >>> without_named({"path": "a", "login": {"password": "p", "keys": ["x"]}})
    {'path': 'a', 'login': {'password': '********', 'keys': ['x']}}
    """
    if isinstance(value, Mapping):
        return {name: MASK if _is_named(name, each) else without_named(each) for name, each in value.items()}
    return [without_named(each) for each in value] if isinstance(value, list | tuple) else value


def texts_named(value: Any) -> Iterator[str]:
    """Yield the texts that `without_named` masks in *value*."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _texts_in(each) if _is_named(name, each) else texts_named(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from texts_named(each)


def _is_named(name: object, value: object) -> bool:
    return says_secret(str(name)) and value not in ("", None, True, False) and value != {}


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _texts_in(each)
    elif value not in ("", None):
        yield str(value)
