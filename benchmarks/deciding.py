"""What the router adds to the first token of a MODERATE stream, by the stage of its head that decides."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ai_router.learning.examples import read_examples
from ai_router.routing.head.model import Head
from ai_router.routing.head.store import packaged_head
from ai_router.routing.prompt import last_user_text
from ai_router.types import Label
from benchmarks.backend import Timing
from benchmarks.home_lab import CLASSIFIER
from benchmarks.load import p50, p99
from benchmarks.report import Cell, Report, Section
from benchmarks.rig import ROOT, Endpoint, backend, router

PRIMARY = Timing(ttft_s=(0.05, 0.05), tokens_per_s=233, tokens=20)
EVERYDAY = ROOT / "datasets" / "test" / "everyday.jsonl"
WORDS, SLOW, CLASSIFIED = "the words decide", "the slow models decide", "the classifier decides"


def deciding(folder: Path, report: Report, repetitions: int) -> None:
    """Streams of everyday prompts that are MODERATE, from the primary directly and through the router, in turn."""
    prompts = dict(_by_stage(packaged_head()))
    with backend(CLASSIFIER, folder / "classifier") as classifier, backend(PRIMARY, folder / "primary") as primary:
        settings = {"ROUTER_URL": classifier.url, "PRIMARY_URL": primary.url}
        with router(folder / "router", settings) as server:
            direct, routed = Endpoint(primary.url, "m"), Endpoint(server.url, "auto")
            rows: list[Sequence[Cell]] = []
            for stage, texts in prompts.items():
                report.begin(f"first token: {stage}")
                asked = [texts[number % len(texts)] for number in range(max(repetitions, len(texts)))]
                pairs = [(direct.ask(text, stream=True), routed.ask(text, stream=True)) for text in asked]
                added = [through.first_ms - bare.first_ms for bare, through in pairs]
                by = {through.headers.get("x-router-decided-by", "?") for _, through in pairs}
                ms = p50([bare.first_ms for bare, _ in pairs])
                rows.append((stage, len(pairs), ms, p50(added), p99(added), ", ".join(sorted(by))))
    title = "First token of a MODERATE stream: what the router adds (ms)"
    report.add(Section(title, ("", "pairs", "direct p50", "added p50", "added p99", "decided by"), rows))


def _by_stage(head: Head) -> Iterator[tuple[str, Sequence[str]]]:
    """The prompts that the head takes for MODERATE, by who decides them."""
    found: Mapping[str, list[str]] = {WORDS: [], SLOW: [], CLASSIFIED: []}
    year = time.localtime().tm_year
    for example in read_examples([EVERYDAY]):
        first = head.first_guess(example.messages, year)
        guess = first.guess if first.final else head.second_guess(first, year)
        if example.label is Label.MODERATE and guess.label is Label.MODERATE and len(example.messages) == 1:
            stage = CLASSIFIED if not guess.sure else WORDS if first.final else SLOW
            found[stage].append(last_user_text(example.messages))
    return ((stage, texts) for stage, texts in found.items() if texts)
