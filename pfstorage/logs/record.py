"""Write a record of each message (``--debugToDir``): a JSON file with the message, its reply and its duration."""

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
    """Write *message* and its *reply* to a new file in *directory*, secrets masked.

    Secrets are *secrets*, and the values that the message names or sets as secrets. Only the owner can read the file,
    because paths may contain names of patients. The known action *name* is part of the file's name. An error of the
    file is logged: it must not fail the message.
    """
    now = datetime.now()
    meta = _maskable(message) if message else {}
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


def _maskable(message: Message) -> Mapping[str, Any]:
    """Return the meta of *message* in a form whose secrets can be found by their names.

    The value that an ``internalctl`` sets is put under the name of the setting. Both values of a replacement are
    masked, because they may be those of any setting.
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
