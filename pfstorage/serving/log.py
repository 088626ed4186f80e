"""The log of requests: a line for each, with the id by which it is found again."""

from __future__ import annotations

import itertools
import logging
import re
import secrets

requests = logging.getLogger("pfstorage.requests")

_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
_PROCESS = secrets.token_hex(4)
"""What the names of this process' requests begin with; they are no secret, and a random number each takes long."""
_NUMBERS = itertools.count(1)


def id_of(given: str) -> str:
    """Return what the client calls its request, or a new name for it."""
    return given if given and _ID.fullmatch(given) else f"{_PROCESS}{next(_NUMBERS):08x}"


def log_request(
    name: str,
    client: str,
    method: str,
    action: str,
    owner: str,
    status: int,
    seconds: float,
    *,
    is_whole: bool,
) -> None:
    """Write one line: what was asked, and by whom; no key and no local path, which may be a patient's name."""
    if not requests.isEnabledFor(logging.INFO):
        return
    fields: dict[str, object] = {
        "id": name,
        "client": client,
        "method": method,
        "action": action,
        "owner": owner,
        "status": int(status),
        "seconds": round(seconds, 3),
        "broken": "" if is_whole else True,
    }
    text = " ".join([f"{key}={value}" for key, value in fields.items() if value != ""])
    requests.info("%s", text, extra={"fields": fields})
