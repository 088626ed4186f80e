"""Options for stores of the tests."""

from __future__ import annotations

import uuid
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
