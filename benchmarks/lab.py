"""Fake backends on the tests' own sockets, which see a connection end, and a real router before them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.personas import CHAT, classifies, says
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.upstream import FakeUpstream, Plain, fake_upstream


@dataclass(frozen=True)
class Lab:
    """The router and the fakes."""

    router: RunningRouter
    classifier: FakeUpstream
    primary: FakeUpstream
    xai: FakeUpstream


@contextmanager
def laboratory() -> Iterator[Lab]:
    """All of it, until the block ends."""
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        classifier.on(CHAT, classifies("MODERATE"))
        primary.on(CHAT, says("word"))
        xai.on("/v1/models", Plain({"data": []}))
        settings = {
            "ROUTER_URL": classifier.url,
            "PRIMARY_URL": primary.url,
            "XAI_API_URL": xai.url,
            "XAI_API_KEY": "benchmark-key",
        }
        with tempfile.TemporaryDirectory() as folder, running_router(Path(folder), **settings) as router:
            router.wait_for_log(r"Classifier probed: .*", timeout=30)
            yield Lab(router, classifier, primary, xai)
