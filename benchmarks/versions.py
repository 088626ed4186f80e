"""The two versions of pfstorage: their installation and their commands."""

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
    """Return the arguments, for either version, that send a message to the Swift at *port*."""
    text = json.dumps({"action": action, "meta": meta})
    return ("--ipSwift", "127.0.0.1", "--portSwift", str(port), "--msg", text)


@functools.cache
def new_version(cache: Path) -> Version:
    """Return the version of this checkout, in an environment with its dependencies only.

    The current environment may have other packages, which would also be imported.
    """
    needs = hashlib.sha256((REPOSITORY / "setup.py").read_bytes()).hexdigest()[:8]
    with tempfile.TemporaryDirectory() as directory:  # a copy, because a build writes files into its sources
        sources = Path(directory, "sources")
        shutil.copytree(REPOSITORY, sources, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info"))
        home = environment(cache, f"pfstorage-{__version__}-{needs}", [str(sources)])
    return Version(__version__, str(home / "bin" / "python"), str(REPOSITORY / "bin" / "pfstorage"))


@functools.cache
def old_version(cache: Path) -> Version:
    """Return the published version, in its own environment."""
    wanted = [f"pfstorage=={PUBLISHED}", "legacy-cgi; python_version >= '3.13'"]
    home = environment(cache, f"pfstorage-{PUBLISHED}", wanted)
    return Version(PUBLISHED, str(home / "bin" / "python"), str(home / "bin" / "pfstorage"))


def environment(cache: Path, name: str, wanted: list[str]) -> Path:
    """Return the directory of an environment of this interpreter. Create it if it does not exist."""
    home = cache.resolve() / f"{name}-python{sys.version_info[0]}.{sys.version_info[1]}"
    installed = home / "installed"  # written last, so that an unfinished environment is created again
    if not installed.exists():
        print(f"installing {name} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        subprocess.run([home / "bin" / "python", "-m", "pip", "install", "-qq", *wanted], check=True)
        installed.touch()
    return home


def clean_environment(home: Path) -> Mapping[str, str]:
    """Return environment variables without settings for any client. The home directory is *home*.

    2.0.0.2 imports a debugger that writes its settings below the home directory.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home), "HOST_IP": "127.0.0.1"}
