"""A process of a race: it runs one message for each line of JSON, and prints the reply as another line."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

from pfstorage import StoreHandler, open_storage
from pfstorage.errors import NotFoundError


def race(options: dict[str, Any]) -> None:
    """Work on the storage with *options*: each line is the key to delete, or a message."""
    with open_storage(**options) as storage, contextlib.closing(StoreHandler(storage)) as handler:
        for line in sys.stdin:
            command = json.loads(line)
            if isinstance(command, str):
                reply: dict[str, Any] = {"status": True}
                with contextlib.suppress(NotFoundError):  # another was quicker
                    storage.delete(command)
            else:
                reply = handler.run(command)
            print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    race(json.loads(sys.argv[1]))
