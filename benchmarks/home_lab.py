"""The home lab that the router was made for, simulated: its backends' timing, the six measurements, the strategies.

The timing model, in seconds of the real thing (``scale`` makes all of it faster):

- the classifier, an 8B that reasons: first token after 0.03 to 0.06, then 183 to 346 tokens of thinking at 192 a second
  (0.95 to 1.8 s in all); constrained to one token it answers with its first;
- the primary, a 30B with 3B active: first token after 0.048 to 0.089, then 233 tokens a second;
- xAI: 7 to 11 s, its first token after most of that; its web search 11 to 26 s.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from benchmarks.backend import COMPLEX_WORD, ENRICH_WORD, Timing
from benchmarks.load import p50, p99
from benchmarks.report import Cell, Report, Section
from benchmarks.rig import Endpoint, Server, Timed, backend, router

CLASSIFIER = Timing(ttft_s=(0.03, 0.06), tokens_per_s=192, tokens=264, classifies=True)
PRIMARY = Timing(ttft_s=(0.048, 0.089), tokens_per_s=233, tokens=120)
XAI = Timing(ttft_s=(6.0, 10.0), tokens_per_s=200, tokens=200, per_chunk=4)
SEARCH = Timing(ttft_s=(11.0, 26.0), tokens=1)

STRATEGIES: Mapping[str, Mapping[str, str]] = {
    "sequential": {"CLASSIFIER_MODE": "reasoning", "SPECULATION": "off", "FAST_ROUTING": "off"},
    "speculative": {"CLASSIFIER_MODE": "reasoning", "SPECULATION": "always", "FAST_ROUTING": "off"},
    "constrained": {"CLASSIFIER_MODE": "constrained", "SPECULATION": "always", "FAST_ROUTING": "off"},
    "fast path": {},
}
"""From the first design's to today's, which is the router's defaults."""


@dataclass(frozen=True)
class HomeLab:
    """The backends; routers and their folders, by the strategy's name."""

    primary: Server
    classifier: Server
    routers: Mapping[str, Server]
    folders: Mapping[str, Path]


@contextmanager
def home_lab(folder: Path, scale: float, strategies: Mapping[str, Mapping[str, str]] = STRATEGIES) -> Iterator[HomeLab]:
    """The simulated backends with a router for each strategy in front of them, until the block ends."""
    with ExitStack() as running:
        classifier = running.enter_context(backend(CLASSIFIER.scaled(scale), folder / "classifier"))
        primary = running.enter_context(backend(PRIMARY.scaled(scale), folder / "primary"))
        xai = running.enter_context(backend(XAI.scaled(scale), folder / "xai"))
        search = running.enter_context(backend(SEARCH.scaled(scale), folder / "search"))
        common = {
            "ROUTER_URL": classifier.url,
            "PRIMARY_URL": primary.url,
            "XAI_API_URL": xai.url,
            "XAI_API_KEY": "benchmark-key",
            "PERPLEXITY_API_URL": search.url,
            "PERPLEXITY_API_KEY": "benchmark-key",
            "CATALOGUE_FILE": str(_chains(folder)),
        }
        folders = {name: folder / name.replace(" ", "-") for name in strategies}
        routers = {
            name: running.enter_context(router(folders[name], {**common, **settings}))
            for name, settings in strategies.items()
        }
        yield HomeLab(primary, classifier, routers, folders)


def _chains(folder: Path) -> Path:
    """A catalogue in which the search is a server of its own: it takes other times than xAI's chat."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "chains.toml"
    path.write_text('[chains]\nsearch = ["perplexity"]\n')
    return path


SHORT = "Say hello in five words."
LONG_QUESTION = "Tell me about bees. " * 40
QUESTIONS: Mapping[str, str] = {
    "MODERATE short": SHORT,
    "MODERATE long": LONG_QUESTION,
    "COMPLEX": f"{COMPLEX_WORD} that there are infinitely many primes, case {{}}",
    "ENRICH": f"what is the weather {ENRICH_WORD}?",
    "META": "### Task:\nGenerate a concise title\n<chat_history>hi</chat_history>",
}
_SENTENCE, _SENTENCE_TOKENS = "The quick brown fox jumps over the lazy dog. ", 11
_TIMINGS = ("classification_ms", "enrichment_ms", "inference_ms", "total_ms")
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Target:
    """What the six measure: the router, its backends where they can be asked directly, and where its log is.

    ``kinds`` are the questions that have a backend, ``answer_tokens`` the most that their answers may have;
    ``context_tokens`` is how long the long context is.
    """

    routed: Endpoint
    primary: Endpoint | None = None
    classifier: Endpoint | None = None
    log: Path | None = None
    kinds: Sequence[str] = tuple(QUESTIONS)
    answer_tokens: int | None = None
    context_tokens: int = 8_000

    @property
    def limit(self) -> Mapping[str, int]:
        """The field of a request that limits its answer, if answers are limited."""
        return {} if self.answer_tokens is None else {"max_tokens": self.answer_tokens}


def six(target: Target, report: Report, repetitions: int) -> None:
    """All six measurements."""
    routes(target, report, max(1, repetitions // 10))
    throughput(target, report)
    long_context(target, report)
    at_once(target, report)
    first_token(target, report, repetitions)
    overhead(target, report, repetitions)


def question(kind: str) -> str:
    """A question of that kind; COMPLEX is another each time, so that its decision is not in the cache."""
    return QUESTIONS[kind].format(next(_numbers)) if "{}" in QUESTIONS[kind] else QUESTIONS[kind]


def routes(target: Target, report: Report, repetitions: int) -> None:
    """How long each route takes, as the client sees it and as the router's REQUEST lines say."""
    rows: list[Sequence[Cell]] = []
    for kind in target.kinds:
        report.begin(f"1 routes: {kind}")
        for stream in (False, True):
            answers = [target.routed.ask(question(kind), stream=stream, **target.limit) for _ in range(repetitions)]
            timings = _timings(target, answers[-1])
            first = p50([answer.first_ms for answer in answers]) if stream else None
            whole = p50([answer.whole_ms for answer in answers])
            headers = answers[-1].headers
            by = ", ".join(headers.get(f"x-router-{name}", "?") for name in ("route", "decided-by", "speculation"))
            name = f"{kind}, {'streamed' if stream else 'plain'}"
            rows.append((name, first, whole, *(timings.get(part) for part in _TIMINGS), by))
    columns = ("", "first", "whole", "classification", "enrichment", "inference", "total", "route, by, speculation")
    title = "1. Each route (ms; first and whole from the client, the rest from the log)"
    report.add(Section(title, columns, rows, bars="whole"))


def _timings(target: Target, answer: Timed) -> Mapping[str, float]:
    """The timings in the request's line of the log, or in its session where the log is not at hand; empty if neither
    is found."""
    session = answer.headers.get("x-session-id", "")
    if target.log is None:
        body = target.routed.get(f"/api/sessions/{session}")
        return orjson.loads(body).get("timings", {}) if body.startswith(b"{") else {}
    for _ in range(200):
        found = re.search(rf"^REQUEST session={session} .*$", target.log.read_text(), re.MULTILINE)
        if found:
            return {name: float(ms) for name, ms in re.findall(r"(\w+_ms)=(\d+)", found[0])}
        time.sleep(0.01)
    return {}


def throughput(target: Target, report: Report) -> None:
    """Tokens a second of the models, asked directly."""
    rows = []
    for name, endpoint in (("classifier", target.classifier), ("primary", target.primary)):
        if endpoint is None:
            continue
        report.begin(f"2 throughput: {name}")
        options = {"include_usage": True}
        answer = endpoint.ask("Write two hundred words about bees.", stream=True, stream_options=options)
        tokens = _tokens(answer)
        seconds = (answer.whole_ms - answer.first_ms) / 1000
        rows.append((name, tokens, answer.first_ms, tokens / seconds if seconds > 0 else None))
    if rows:
        report.add(Section("2. Throughput of the models", ("", "tokens", "first (ms)", "tokens/s"), rows))


def _tokens(answer: Timed) -> int:
    found = re.findall(rb'"completion_tokens":\s*(\d+)', answer.body)
    return int(found[-1]) if found else answer.body.count(b"data:")


def long_context(target: Target, report: Report) -> None:
    """One request with a context of about ``context_tokens``, without max_tokens unless the target has a limit."""
    report.begin("3 long context")
    answer = target.routed.ask(_SENTENCE * (target.context_tokens // _SENTENCE_TOKENS), **target.limit)
    characters = len(answer.text()) if answer.status == 200 else 0
    row = (f"HTTP {answer.status}", answer.whole_ms, characters)
    title = f"3. Long context, {target.context_tokens:,} tokens"
    report.add(Section(title, ("", "whole (ms)", "characters back"), [row]))


def at_once(target: Target, report: Report, clients: int = 10) -> None:
    """Ten clients at the same time."""
    report.begin("4 ten at once")
    with ThreadPoolExecutor(clients) as pool:
        started = time.perf_counter()
        answers = list(pool.map(lambda _: target.routed.ask(SHORT, **target.limit), range(clients)))
        took_ms = (time.perf_counter() - started) * 1000
    fine = sum(answer.status == 200 for answer in answers)
    row = (f"{fine} of {clients} answered", took_ms, max(answer.whole_ms for answer in answers))
    report.add(Section(f"4. {clients} requests at once", ("", "all (ms)", "slowest (ms)"), [row]))


def first_token(target: Target, report: Report, repetitions: int) -> None:
    """The first event of a stream, from the primary directly and through the router, in turn."""
    if (direct := target.primary) is not None:
        report.begin("5 first token")
        pairs = [
            (direct.ask(SHORT, stream=True).first_ms, target.routed.ask(SHORT, stream=True).first_ms)
            for _ in range(repetitions)
        ]
        report.add(_compared("5. First token of a MODERATE stream (ms)", pairs))


def overhead(target: Target, report: Report, repetitions: int) -> None:
    """A plain answer whose model the client names, from the primary directly and through the router, in turn."""
    if (direct := target.primary) is not None:
        report.begin("6 overhead")
        named = replace(target.routed, model="primary")
        pairs = [
            (direct.ask(SHORT, max_tokens=1).whole_ms, named.ask(SHORT, max_tokens=1).whole_ms)
            for _ in range(repetitions)
        ]
        report.add(_compared("6. A plain answer of the primary, named by the client (ms)", pairs))


def _compared(title: str, pairs: Sequence[tuple[float, float]]) -> Section:
    """p50 and p99 of both, and of what the router adds within a pair. Pairs are direct and routed, in milliseconds."""
    direct, routed = zip(*pairs, strict=True)
    added = [router_ms - direct_ms for direct_ms, router_ms in pairs]
    rows = [
        ("direct", p50(direct), p99(direct), None, None),
        ("routed", p50(routed), p99(routed), p50(added), p99(added)),
    ]
    return Section(title, ("", "p50", "p99", "added p50", "added p99"), rows, bars="p50")


_UNCLEAR = "what about the tall one, number {}"
"""A question that cannot be decided without the classifier."""


def strategies(folder: Path, report: Report, scale: float, repetitions: int) -> None:
    """The time to the first event of a stream with each strategy, in turn."""
    kinds = {
        "plain question": lambda _: SHORT,
        "unclear question": _UNCLEAR.format,
        "COMPLEX": lambda _: question("COMPLEX"),
    }
    with home_lab(folder, scale) as lab:
        times: dict[tuple[str, str], list[float]] = {}
        for number in range(repetitions):
            for kind, text in kinds.items():
                for name, server in lab.routers.items():
                    report.begin(f"strategies: {name}, {kind}, {number + 1} of {repetitions}")
                    answer = Endpoint(server.url, "auto").ask(text(number), stream=True)
                    times.setdefault((name, kind), []).append(answer.first_ms)
    rows: list[Sequence[Cell]] = []
    for name in lab.routers:
        rows.append((name, *(p50(times[name, kind]) for kind in kinds)))
    note = f"Simulated backends at {scale:g} of real time; an unclear question is another each time."
    report.add(
        Section("Strategies: first event of a stream (ms, p50)", ("", *kinds), rows, note, bars="unclear question")
    )
