"""The Dockerfile, read for the tests."""

from __future__ import annotations

from tests.support.exchange import ROOT


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, each with its arguments, broken lines as one."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in lines)]
