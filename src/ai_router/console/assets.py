"""The console's files: read once, when somebody first opens it, and kept compressed.

The page names its files below a folder that is called by a digest of all of them, so that browsers may keep them for
ever: another version has another name.
"""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

STATIC = Path(__file__).parent / "static"
PAGE = "index.html"
VERSION = "{{version}}"
"""Where the page has the digest."""
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent. ``body`` is compressed with gzip."""

    body: bytes
    media_type: str


class Assets:
    """All files by their path below STATIC. Safe from any thread."""

    def __init__(self, folder: Path = STATIC) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._files: Mapping[str, Asset] | None = None
        self._version = ""

    @property
    def version(self) -> str:
        """The digest of all files."""
        self._read()
        return self._version

    def find(self, name: str) -> Asset | None:
        """The file of that name; None if there is none."""
        return self._read().get(name)

    def _read(self) -> Mapping[str, Asset]:
        with self._lock:
            if self._files is None:
                raw = dict(_raw_files(self._folder))
                digest = hashlib.sha256()
                for name in sorted(raw):
                    digest.update(name.encode() + b"\0" + raw[name])
                self._version = digest.hexdigest()[:16]
                raw[PAGE] = raw[PAGE].replace(VERSION.encode(), self._version.encode())
                self._files = {
                    name.removesuffix(".gz"): Asset(_compressed(name, body), _TYPES[_suffix(name)])
                    for name, body in raw.items()
                }
        return self._files


def _raw_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file() and _suffix(path.name) in _TYPES:
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def _suffix(name: str) -> str:
    return Path(name.removesuffix(".gz")).suffix


def _compressed(name: str, body: bytes) -> bytes:
    return body if name.endswith(".gz") else gzip.compress(body, 9, mtime=0)
