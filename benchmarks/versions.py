"""The two versions: how each is called, and where the published one is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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


def new_version() -> Version:
    """Return the version of this checkout, under the interpreter that runs the benchmarks."""
    return Version(__version__, sys.executable, str(REPOSITORY / "bin" / "pfstorage"))


def old_version(cache: Path) -> Version:
    """Return the published version, which is installed below *cache* unless it is there.

    It gets an environment of its own, of the same interpreter.
    """
    home = cache.resolve() / f"pfstorage-{PUBLISHED}-python{sys.version_info[0]}.{sys.version_info[1]}"
    installed = home / "installed"  # written last: an environment that was not finished is made anew
    if not installed.exists():
        print(f"installing pfstorage {PUBLISHED} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        wanted = [f"pfstorage=={PUBLISHED}", "legacy-cgi; python_version >= '3.13'"]
        subprocess.run([home / "bin" / "python", "-m", "pip", "install", "-qq", *wanted], check=True)
        installed.touch()
    return Version(PUBLISHED, str(home / "bin" / "python"), str(home / "bin" / "pfstorage"))


def clean_environment(home: Path) -> Mapping[str, str]:
    """Return an environment that sets nothing for either version, nor leads it to anybody's files.

    2.0.0.2 imports a debugger that writes its settings below the home directory.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home), "HOST_IP": "127.0.0.1"}
