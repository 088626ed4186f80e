"""Secrets and the name of a patient that no output may show (canaries), and the search for them."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from urllib.parse import quote, quote_plus

from pfstorage.devswift import KEY
from tests.support.faults import Exchange, Fault, Proxy

# A part of names and keys. No line of the log at verbosity 0 and 1 has it.
PATIENT = "DOE^JANE-canary"

SECRETS = {
    "the Swift key": 'swift key"&+%<canary-01',
    "a new Swift key": 'new/key\\+&"canary-02',
    "a Swift key that could not be set": "unset/key+&canary-03",
    "a Swift key that was not allowed": "forbidden key&canary-04",
    "a Swift key to be replaced, with a slip": "mistaken key&canary-05",
    "the password in the address of the login": "url-p%40ss-canary-06",
    "the password in an address that was set": "set-p@ss-canary-07",
    "the password of a proxy": "proxy-p%26ss-canary-08",
    "the password of a proxy in the environment": "proxy-canary-09",
    "an option in the configuration": "option/canary-10",
    "a key in the configuration": "config-key&canary-11",
    "another key in the environment": "ST-key-canary-12",
    "a password in the environment": "OS-password-canary-13",
    "a token in the environment": "OS-token-canary-14",
    "the token for all": "admin+token/canary-15",
    "the token to write": "write+token/canary-16",
    "the token that was revoked": "revoked+token/canary-17",
    "a token with a slip": "admin+tokem/canary-18",
    "a token in the query": "query+token&canary-19",
    "a password of Basic": "basic+password&canary-20",
    "a password of the wrong type in a meta": "typed+password&canary-21",
    "a token of an unknown name in a meta": "unknown+token&canary-22",
    "a password in a form": "form+password&canary-23",
    "a secret of a job": "job+secret&canary-24",
    "a secret next to the settings": "beside+secret&canary-25",
    "the token of a cookie": "cookie+token&canary-26",
}


def forms(secret: str) -> set[bytes]:
    """Return the forms of *secret* to search: the plain one, and those of URLs, JSON, Python and base64."""
    plain = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}
    plain |= {json.dumps(each)[1:-1] for each in plain}
    found = {each.encode() for each in plain}
    for start in range(3):  # earlier bytes move it within the groups of base64
        coded = base64.b64encode(b"x" * start + secret.encode())
        coded = coded[4 if start else 0 : -4]
        found |= {coded, coded.replace(b"+", b"-").replace(b"/", b"_")}
    return found


def found_in(content: bytes, secrets: dict[str, str]) -> list[str]:
    return [name for name, secret in secrets.items() if any(form in content for form in forms(secret))]


class Keeper(Proxy):
    """A proxy to a Swift with a canary as its key. It keeps the tokens that the Swift grants."""

    def note(self, exchange: Exchange) -> list[Fault]:
        given = exchange.headers.get("X-Auth-Key")
        if given is not None and given in (SECRETS["the Swift key"], SECRETS["a new Swift key"]):
            exchange.headers.replace_header("X-Auth-Key", KEY)
        return super().note(exchange)

    @property
    def given(self) -> set[str]:
        return {*self._tokens, *self._tokens.values()}


def login_url(port: int) -> str:
    return f"http://me:{SECRETS['the password in the address of the login']}@127.0.0.1:{port}/auth/v1.0"


def write_tokens(path: Path, *, ini: bool) -> Path:
    admin, write, revoked = (
        SECRETS[f"the token {which}"] for which in ("for all", "to write", "that was revoked")
    )
    path.touch(0o600)
    known = f"sha256:{hashlib.sha256(write.encode()).hexdigest()}"  # the token that was sent is masked all the same
    lines = f"boss = {admin}\nwriter = {known}\nrevoked = {revoked}\n"
    permissions = "boss = admin\nwriter = write\nrevoked = read\n"
    path.write_text(
        f"[AUTH TOKENS]\n{lines}[TOKEN RIGHTS]\n{permissions}" if ini else f"{admin}\n{write}\n{revoked}\n"
    )
    return path


def environment(directory: Path, **more: str) -> dict[str, str]:
    proxy = f"http://me:{SECRETS['the password of a proxy in the environment']}@127.0.0.1:9"
    return {
        "TMPDIR": str(directory / "tmp"),
        "http_proxy": proxy,
        "https_proxy": proxy,
        "no_proxy": "127.0.0.1",
        "ST_KEY": SECRETS["another key in the environment"],
        "OS_PASSWORD": SECRETS["a password in the environment"],
        "OS_AUTH_TOKEN": SECRETS["a token in the environment"],
        **more,
    }


def configuration(directory: Path) -> Path:
    options = {"auth_token": SECRETS["an option in the configuration"], "project_name": "p"}
    path = directory / "settings.json"
    path.touch(0o600)
    path.write_text(
        json.dumps({"swift": {"key": SECRETS["a key in the configuration"], "os_options": options}})
    )
    return path
