"""``--debugToDir``: one JSON file for each message, with its reply and how long it took."""

from __future__ import annotations

import json
import logging
import re
import secrets as random_names
from collections.abc import Mapping, Set
from datetime import datetime
from typing import Any

from pfstorage.local import LocalTree
from pfstorage.settings.redaction import (
    MASK,
    says_secret,
    texts_named,
    without,
    without_named,
    without_password,
)
from pfstorage.wire.message import Message
from pfstorage.wire.reply import Reply

log = logging.getLogger(__name__)


def write_record(
    directory: str, name: str, message: Message | None, reply: Reply, seconds: float, secrets: Set[str]
) -> None:
    """Write what was asked and answered to a new file in *directory*, each of *secrets* masked.

    So is what the message calls a secret, or would set as one. The file is for its owner alone,
    since paths may hold names of patients; its own name has the known action *name*. That it
    can't be written is logged, and is no reason for a message to fail.
    """
    now = datetime.now()
    meta = _told(message) if message else {}
    hidden = frozenset({*secrets, *texts_named(meta)})
    action = without(message.action, hidden) if message else ""
    shown_meta = without(without_named(meta), hidden)
    content = {
        "time": now.isoformat(),
        "seconds": round(seconds, 6),
        "message": {"action": action, "meta": shown_meta} if message else None,
        "reply": without(reply.body, hidden),
    }
    label = re.sub("[^A-Za-z]", "", name)[:40] or "none"
    file_name = f"{now:%Y%m%d-%H%M%S-%f}-{label}-{random_names.token_hex(3)}.json"
    try:
        with LocalTree(directory).atomic_file((file_name,), mode=0o600) as file:
            file.write(json.dumps(content, indent=4, default=str).encode())
    except OSError as e:
        log.warning("cannot write to --debugToDir %r: %s", directory, e.strerror)


def _told(message: Message) -> Mapping[str, Any]:
    """Return the meta of *message*; what an ``internalctl`` sets as a secret stands under the name of that.

    What it replaces, and by what, is masked: it may be any of the settings.
    """
    if message.action != "internalctl":
        return message.meta
    meta: dict[str, Any] = _without_passwords(message.meta)
    named = [part for part in str(meta.get("var", "")).split("/") if says_secret(part)]
    if named and "set" in meta:
        meta["set"] = {named[0]: meta["set"]}
    if meta.get("valueReplace") is not None:
        meta |= {"var": MASK, "valueReplace": MASK}
    return meta


def _without_passwords(value: Any) -> Any:
    if isinstance(value, str):
        return without_password(value)
    if isinstance(value, Mapping):
        return {name: _without_passwords(each) for name, each in value.items()}
    return [_without_passwords(each) for each in value] if isinstance(value, list | tuple) else value
