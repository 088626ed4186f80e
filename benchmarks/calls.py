"""Count the calls of package functions for one ``objPull`` by the command line: ``python -m benchmarks.calls``.

The store is a directory with one object. Only the main thread is counted, for the second pull of a process: its
modules are imported, and its caches are filled. Print the number of calls, then the functions with the most calls.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType

import pfstorage
from pfstorage.cli.main import main

PACKAGE = os.path.dirname(pfstorage.__file__)
SHOWN = 40
MESSAGE = '{"action": "objPull", "meta": {"fromLocation": "data", "mapLocationOver": "out"}}'


def count_calls(directory: Path) -> Counter[str]:
    """Pull one file in *directory*. Return the number of calls by function."""
    (directory / "store" / "data").mkdir(parents=True)
    (directory / "store" / "data" / "object").write_bytes(b"content")
    os.chdir(directory)
    arguments = ["--type", "filesystem", "--storeBase", "store", "--verbosity", "0", "--msg", MESSAGE]
    main(arguments)
    shutil.rmtree("out")
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE):
            file = os.path.relpath(code.co_filename, PACKAGE)
            calls[f"{file}:{getattr(code, 'co_qualname', code.co_name)}"] += 1

    sys.setprofile(note)
    try:
        status = main(arguments)
    finally:
        sys.setprofile(None)
    if status:
        raise SystemExit(f"the pull failed with the exit status {status}")
    return calls


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as top, contextlib.redirect_stdout(sys.stderr):
        counted = count_calls(Path(top))
    sys.stdout.write(f"{sum(counted.values())} calls of package functions\n")
    for function, number in counted.most_common(SHOWN):
        sys.stdout.write(f"{number:6} {function}\n")
