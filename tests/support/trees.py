"""Trees of files, written, read and linked."""

from __future__ import annotations

from pathlib import Path

import pytest


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    """Write *files*, content by relative path, below *root*; return it."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def read_tree(root: Path) -> dict[str, bytes]:
    """Return the contents of the files below *root*, by relative path."""
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


@pytest.fixture
def linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, by the path of a shell that entered it through a link."""
    write_tree(tmp_path, {"real/data/a": b"aaa", "real/data/d/b": b"b"})
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "link")
    monkeypatch.setenv("PWD", f"{tmp_path}/link")
    return tmp_path / "link"
