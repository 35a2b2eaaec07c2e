"""A real server of decision models, with a small model in it that comes with its wheel."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.router import eventually, free_port

COMMAND = Path(sys.executable).parent / "sparrow-decider"


@contextmanager
def running_decider() -> Iterator[str]:
    """Its address."""
    port = free_port()
    with subprocess.Popen(
        [COMMAND, "serve", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            assert eventually(lambda: _answers(url))
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False
