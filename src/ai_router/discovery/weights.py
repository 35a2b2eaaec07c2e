"""GGUF files on this machine that the embedded model could be."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDERS = (
    ".cache/llama.cpp",
    ".cache/huggingface/hub",
    ".lmstudio/models",
    ".cache/lm-studio/models",
    ".local/share/Jan/data/llamacpp/models",
    "models",
)
"""Below the home directory: where llama.cpp, huggingface_hub, LM Studio and Jan keep what they download."""
_MAX_DEPTH = 6
_MAX_FOLDERS = 5000
_SECOND_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}\.gguf$")


@dataclass(frozen=True, slots=True)
class FoundFile:
    """``bytes``: of the file, or of its first part."""

    path: Path
    bytes: int


def find_weights(home: Path, folders: Sequence[str] = FOLDERS) -> Sequence[FoundFile]:
    """The GGUF files of whole models, the smallest first: on a CPU, that is the one which answers soonest."""
    found = [file for folder in folders for file in _files(home / folder)]
    return sorted(found, key=lambda file: file.bytes)


def _files(folder: Path) -> Iterator[FoundFile]:
    for seen, (place, below, names) in enumerate(os.walk(folder)):
        if seen > _MAX_FOLDERS or len(Path(place).relative_to(folder).parts) >= _MAX_DEPTH:
            below.clear()
        for name in names:
            path = Path(place, name)
            if name.lower().endswith(".gguf") and _is_model(name) and path.is_file():
                yield FoundFile(path, path.stat().st_size)


def _is_model(name: str) -> bool:
    """Not the eyes of one (mmproj), not its second part, not one for embeddings."""
    return not _SECOND_PART.search(name) and not re.search(r"mmproj|embed|rerank|bge-", name, re.IGNORECASE)
