"""Fake backends with the delays of the home lab that the router was conceived in, and a real router before them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.personas import CHAT, SEARCH, classifies, finds, says
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.upstream import FakeUpstream, Plain, Recorded, Reply, fake_upstream

CLASSIFICATION_S = 1.0
PRIMARY_TTFT_S = 0.05
XAI_TTFT_S = 0.4
SEARCH_S = 1.5

COMPLEX_WORD, ENRICH_WORD = "prove", "today"


@dataclass(frozen=True)
class Lab:
    """The router, the primary to compare it with, and the fakes' own clocks."""

    router: RunningRouter
    classifier: FakeUpstream
    primary: FakeUpstream
    xai: FakeUpstream


def _classifier(request: Recorded) -> Reply:
    """Decides by a word in the question, after the time that a reasoning 8B takes."""
    question = request.raw_body.rpartition(b"user: ")[2].decode()
    label = "COMPLEX" if COMPLEX_WORD in question else "ENRICH" if ENRICH_WORD in question else "MODERATE"
    return classifies(label, delay=CLASSIFICATION_S)(request)


@contextmanager
def laboratory(threads: int = 72) -> Iterator[Lab]:
    """All of it, until the block ends."""
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        classifier.on(CHAT, _classifier)
        primary.on(CHAT, says(*["word "] * 50, ttft=PRIMARY_TTFT_S, gap=0.004))
        xai.on(CHAT, says(*["word "] * 50, ttft=XAI_TTFT_S, gap=0.01))
        xai.on(SEARCH, finds("Findings.", delay=SEARCH_S))
        xai.on("/v1/models", Plain({"data": []}))
        settings = {
            "ROUTER_URL": classifier.url,
            "PRIMARY_URL": primary.url,
            "XAI_API_URL": xai.url,
            "XAI_API_KEY": "benchmark-key",
            "THREADS": str(threads),
        }
        with tempfile.TemporaryDirectory() as folder, running_router(Path(folder), **settings) as router:
            router.wait_for_log(r"Classifier probed: .*", timeout=30)
            yield Lab(router, classifier, primary, xai)
