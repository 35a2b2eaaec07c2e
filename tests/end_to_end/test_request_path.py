"""How many of our files a reader has to open to follow one request."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.fakes.personas import CHAT, says
from tests.fakes.router import eventually, running_router
from tests.fakes.upstream import FakeUpstream

MOST = 30
ROOT = Path(__file__).parents[2]


def test_a_plain_request_for_a_named_route_enters_at_most_30_files(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, says("hello"))
    out = tmp_path / "files.jsonl"
    command = [sys.executable, "-m", "tests.fakes.profiled_router", str(out), "serve"]
    with running_router(tmp_path, command=command, PYTHONPATH=str(ROOT), PRIMARY_URL=upstream.url) as router:
        for _ in range(4):
            assert router.chat(model="primary")[0] == 200
        assert eventually(lambda: out.exists() and len(chats(out)) == 4)
        # The first one may make what the others find. And a request may be interrupted by the garbage collector, which
        # ends what a health check has left behind.
        files = set[str].intersection(*map(set, chats(out)[1:]))
        assert len(files) <= MOST, "\n".join(sorted(files))


def chats(out: Path) -> list[list[str]]:
    """The files of each chat request; the start is found by asking about health."""
    requests = [json.loads(line) for line in out.read_text().splitlines()]
    return [files for files in requests if "pipeline.py" in files]
