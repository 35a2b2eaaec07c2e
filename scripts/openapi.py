"""Write what the router serves at /openapi.json from docs/openapi.yaml: ``python -m scripts.openapi``.

A test compares the two. The router reads JSON, so that it needs no parser of YAML.
"""

from __future__ import annotations

from pathlib import Path

import orjson
import yaml

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "docs/openapi.yaml"
PACKAGED = ROOT / "src/ai_router/web/openapi.json"


def as_json(source: str) -> bytes:
    """The description as JSON."""
    return orjson.dumps(yaml.safe_load(source), option=orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    PACKAGED.write_bytes(as_json(SOURCE.read_text()))
