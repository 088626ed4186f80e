"""``--debugToDir``: one JSON file for each message, with its reply and how long it took."""

from __future__ import annotations

import json
import logging
import re
import secrets as random_names
from collections.abc import Mapping, Set
from datetime import datetime
from typing import Any

from pfstorage.config import MASK
from pfstorage.files import LocalTree
from pfstorage.message import Message
from pfstorage.reply import Reply

log = logging.getLogger(__name__)


def write_record(
    directory: str, message: Message | None, reply: Reply, seconds: float, secrets: Set[str]
) -> None:
    """Write what was asked and answered to a new file in *directory*, each of *secrets* masked.

    The file is for its owner alone, since paths may hold names of patients. That
    it can't be written is logged, and is no reason for a message to fail.
    """
    now = datetime.now()
    action = message.action if message else ""
    content = {
        "time": now.isoformat(),
        "seconds": round(seconds, 6),
        "message": {"action": action, "meta": message.meta} if message else None,
        "reply": reply.body,
    }
    label = re.sub("[^A-Za-z]", "", action)[:40] or "none"
    name = f"{now:%Y%m%d-%H%M%S-%f}-{label}-{random_names.token_hex(3)}.json"
    try:
        with LocalTree(directory).whole_file((name,), mode=0o600) as file:
            file.write(json.dumps(_masked(content, secrets), indent=4, default=str).encode())
    except OSError as e:
        log.warning("cannot write to --debugToDir %r: %s", directory, e.strerror)


def _masked(value: Any, secrets: Set[str]) -> Any:
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
        return value
    if isinstance(value, Mapping):
        return {_masked(key, secrets): _masked(each, secrets) for key, each in value.items()}
    return [_masked(each, secrets) for each in value] if isinstance(value, list | tuple) else value
