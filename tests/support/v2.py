"""Arguments of 2.x."""

from __future__ import annotations

from typing import Any

from pfstorage.devswift import DevSwift


def old_args(swift: DevSwift, **more: Any) -> dict[str, Any]:
    """The result of ``vars`` for the parsed flags of 2.x."""
    return {
        "msg": "",
        "str_action": "",
        "str_args": "",
        "httpProxy": "",
        "b_forever": False,
        "b_httpResponse": False,
        "ipSelf": "127.0.0.1",
        "portSelf": 4055,
        "ipSwift": "127.0.0.1",
        "portSwift": str(swift.port),
        "b_version": False,
        "b_test": False,
        "str_configFileLoad": "",
        "str_configFileSave": "",
        "str_debugToDir": "",
        "verbosity": "0",
        "desc": False,
        "synopsis": False,
        "str_type": "swift",
        "server": False,
        **more,
    }
