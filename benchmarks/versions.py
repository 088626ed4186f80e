"""The two versions: how each is called, and where the published one is installed."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pfstorage._version import __version__

PUBLISHED = "2.0.0.2"
REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Version:
    """A version of pfstorage: its *python*, and the *script* that is its command."""

    name: str
    python: str
    script: str

    def command(self, *arguments: str) -> list[str]:
        return [self.python, self.script, *arguments]


def message(port: int, action: str, **meta: Any) -> tuple[str, ...]:
    """Return the arguments with which either version sends a message to the Swift at *port*."""
    text = json.dumps({"action": action, "meta": meta})
    return ("--ipSwift", "127.0.0.1", "--portSwift", str(port), "--msg", text)


@functools.cache
def new_version(cache: Path) -> Version:
    """Return the version of this checkout, in an environment that has what it depends on.

    That is no environment for development: what else is installed there is imported, too.
    """
    needs = hashlib.sha256((REPOSITORY / "setup.py").read_bytes()).hexdigest()[:8]
    with tempfile.TemporaryDirectory() as directory:  # a build leaves files beside its sources
        sources = Path(directory, "sources")
        shutil.copytree(REPOSITORY, sources, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info"))
        home = environment(cache, f"pfstorage-{__version__}-{needs}", [str(sources)])
    return Version(__version__, str(home / "bin" / "python"), str(REPOSITORY / "bin" / "pfstorage"))


@functools.cache
def old_version(cache: Path) -> Version:
    """Return the published version."""
    wanted = [f"pfstorage=={PUBLISHED}", "legacy-cgi; python_version >= '3.13'"]
    home = environment(cache, f"pfstorage-{PUBLISHED}", wanted)
    return Version(PUBLISHED, str(home / "bin" / "python"), str(home / "bin" / "pfstorage"))


def environment(cache: Path, name: str, wanted: list[str]) -> Path:
    """Return the directory of an environment of this interpreter, which is made unless it is there."""
    home = cache.resolve() / f"{name}-python{sys.version_info[0]}.{sys.version_info[1]}"
    installed = home / "installed"  # written last: an environment that was not finished is made anew
    if not installed.exists():
        print(f"installing {name} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        subprocess.run([home / "bin" / "python", "-m", "pip", "install", "-qq", *wanted], check=True)
        installed.touch()
    return home


def clean_environment(home: Path) -> Mapping[str, str]:
    """Return an environment that sets nothing for any client, nor leads it to anybody's files.

    2.0.0.2 imports a debugger that writes its settings below the home directory.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home), "HOST_IP": "127.0.0.1"}
