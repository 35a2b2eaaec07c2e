"""Print the entries of the first lock file that the second one does not have."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path


def entries(lock: Path) -> Iterator[str]:
    """Each requirement with its hash lines; comments and blank lines are dropped."""
    entry: list[str] = []
    for line in lock.read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            if entry:
                yield "\n".join(entry)
            entry = [line]
        elif line.startswith(" "):
            entry.append(line)
    if entry:
        yield "\n".join(entry)


if __name__ == "__main__":
    known = set(entries(Path(sys.argv[2])))
    for wanted in entries(Path(sys.argv[1])):
        if wanted not in known:
            sys.stdout.write(f"{wanted}\n")
