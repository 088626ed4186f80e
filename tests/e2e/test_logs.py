"""The logs of programs."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from tests.support.exchange import ROOT, answer, message, post, server_process


def test_unconditional_output_follows_earlier_log_lines() -> None:
    code = (
        "import logging, os; from pfstorage.logs import console\n"
        "console.set_up_logging(1, in_batches=True)\n"
        "logging.getLogger('pfstorage').info('first')\n"
        "console.print_line('second'); console.write_log(); os._exit(0)"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, timeout=60
    )
    assert re.fullmatch(r".* INFO first\npfstorage: second\n", done.stderr)


def test_a_log_of_json_has_no_other_line_not_even_the_first(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pfstorage", "--server", "--type", "memory", "--ipSelf", "127.0.0.1"]
    taken = socket.create_server(("127.0.0.1", 0))
    with taken:
        flags = ["--portSelf", str(taken.getsockname()[1]), "--logFormat", "json"]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([*command, *flags], capture_output=True, text=True, env=environ, timeout=60)
    assert done.returncode == 1
    [line] = map(json.loads, done.stderr.splitlines())
    assert (line["level"], line["message"][:24]) == ("ERROR", "cannot listen on 127.0.0")


def test_the_last_lines_are_there_when_the_server_has_ended(tmp_path: Path) -> None:
    with server_process(tmp_path, "--type", "memory", "--forever") as served:
        for text in (message("hello", askAbout="timestamp"), message("quit", ctl={"serverCmd": "quit"})):
            assert answer(served.port, post(text)).status == 200
        status, said = served.ends()
    assert status == 0
    assert re.findall(r"action=(\S+)", said) == ["hello", "quit"]
