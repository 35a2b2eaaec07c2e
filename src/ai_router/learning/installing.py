"""Putting a learned file in place, so that a running router never sees half of it."""

from __future__ import annotations

from pathlib import Path


def install(content: bytes, path: Path) -> None:
    """Write the file; its folder is made if it is not there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
