"""Virtual keys for tests."""

from __future__ import annotations

import subprocess
from typing import Any

import orjson

from tests.fakes.router import COMMAND, clean_environment


def keys_command(database: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``ai-router keys ...`` on this database."""
    return subprocess.run(
        [COMMAND, "keys", *arguments],
        env=clean_environment(DATABASE_URL=database, VIRTUAL_KEYS="on"),
        check=False,
        capture_output=True,
        text=True,
    )


def new_key(database: str, *options: str) -> tuple[str, str]:
    """(id, secret) of a new key."""
    made: Any = orjson.loads(keys_command(database, "create", "a test's", "--json", *options).stdout)
    return made["id"], made["secret"]
