"""Options for stores of the tests."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from typing import Any

from pfstorage.devswift import DevSwift


def swift_options(swift: DevSwift, **more: Any) -> dict[str, Any]:
    """Return options for `open_storage`: a new container for each call, and quick retries."""
    return {
        "type": "swift",
        "auth_url": swift.auth_url,
        "container_name": uuid.uuid4().hex,
        "retries": 1,
        **more,
    }


@contextlib.contextmanager
def empty_account(swift: DevSwift) -> Iterator[DevSwift]:
    """Yield *swift*, whose account is empty, and restore the empty account after the block.

    A sweep reads all containers of the account. The database of an account has the list of its containers, and the
    account server opens it for each request. The containers themselves remain: no test uses their names again.
    """
    import swiftclient  # its import takes long, and most tests do not need it

    accounts = swift.directory / "devices" / "device" / "accounts"
    empty = swift.directory / "empty-accounts"
    if not empty.exists():
        connection = swiftclient.Connection(swift.auth_url, swift.user, swift.key)
        with contextlib.closing(connection):
            connection.post_account({})  # creates the database
            assert connection.get_account()[1] == []
        shutil.copytree(accounts, empty)
    try:
        yield swift
    finally:
        shutil.rmtree(accounts)
        shutil.copytree(empty, accounts)
