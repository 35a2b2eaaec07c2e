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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks.backend import COMPLEX_WORD, ENRICH_WORD, Timing
from benchmarks.report import Cell, Report, Section
from benchmarks.rig import Endpoint, Server, Timed, backend, p50, p99, router, text_in

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
    """The backends, and a router for each strategy, by its name."""

    primary: Server
    classifier: Server
    routers: Mapping[str, Server]
    folders: Mapping[str, Path]


@contextmanager
def home_lab(folder: Path, scale: float, strategies: Mapping[str, Mapping[str, str]] = STRATEGIES) -> Iterator[HomeLab]:
    """All of it, until the block ends."""
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
            name: running.enter_context(router(folders[name], **common, **settings))
            for name, settings in strategies.items()
        }
        yield HomeLab(primary, classifier, routers, folders)


def _chains(folder: Path) -> Path:
    """The search is a server of its own here, since it takes its own time."""
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
    """The router, its backends where they can be asked directly, and where its log is. ``kinds`` are the questions
    that have a backend; ``answer_tokens`` ends their answers,
    ``context_tokens`` is how long a context is tried."""

    routed: Endpoint
    primary: Endpoint | None = None
    classifier: Endpoint | None = None
    log: Path | None = None
    kinds: Sequence[str] = tuple(QUESTIONS)
    answer_tokens: int | None = None
    context_tokens: int = 8_000

    @property
    def limit(self) -> Mapping[str, int]:
        """The field of a request that ends its answer, if there is to be one."""
        return {} if self.answer_tokens is None else {"max_tokens": self.answer_tokens}


def six(target: Target, report: Report, repetitions: int) -> None:
    """All six."""
    routes(target, report, max(1, repetitions // 10))
    throughput(target, report)
    long_context(target, report)
    at_once(target, report)
    first_token(target, report, repetitions)
    overhead(target, report, repetitions)


def question(kind: str) -> str:
    """One of that kind; COMPLEX another each time, so that it is not known already."""
    return QUESTIONS[kind].format(next(_numbers)) if "{}" in QUESTIONS[kind] else QUESTIONS[kind]


def routes(target: Target, report: Report, repetitions: int) -> None:
    """What each route takes, from the client and as the router's own REQUEST lines have it."""
    rows: list[Sequence[Cell]] = []
    for kind in target.kinds:
        report.begin(f"1 routes: {kind}")
        for stream in (False, True):
            answers = [once(target.routed, question(kind), stream=stream, **target.limit) for _ in range(repetitions)]
            told = _told(target, answers[-1])
            first = p50([answer.first_ms for answer in answers]) if stream else None
            whole = p50([answer.whole_ms for answer in answers])
            headers = answers[-1].headers
            by = ", ".join(headers.get(f"x-router-{name}", "?") for name in ("route", "decided-by", "speculation"))
            name = f"{kind}, {'streamed' if stream else 'plain'}"
            rows.append((name, first, whole, *(told.get(timing) for timing in _TIMINGS), by))
    columns = ("", "first", "whole", "classification", "enrichment", "inference", "total", "route, by, speculation")
    title = "1. Each route (ms; first and whole from the client, the rest from the log)"
    report.add(Section(title, columns, rows, bars="whole"))


def _told(target: Target, answer: Timed) -> Mapping[str, float]:
    """The timings of the request's own line in the log, or of its session where the log is not at hand."""
    session = answer.headers.get("x-session-id", "")
    if target.log is None:
        connection = target.routed.connect()
        key = {"Authorization": f"Bearer {target.routed.key}"} if target.routed.key else {}
        connection.request("GET", f"/api/sessions/{session}", headers=key)
        body = connection.getresponse().read()
        connection.close()
        return orjson.loads(body).get("timings", {}) if body.startswith(b"{") else {}
    for _ in range(200):
        found = re.search(rf"^REQUEST session={session} .*$", target.log.read_text(), re.MULTILINE)
        if found:
            return {name: float(ms) for name, ms in re.findall(r"(\w+_ms)=(\d+)", found[0])}
        time.sleep(0.01)
    return {}


def throughput(target: Target, report: Report) -> None:
    """Tokens a second of the models themselves, asked directly."""
    rows = []
    for name, endpoint in (("classifier", target.classifier), ("primary", target.primary)):
        if endpoint is None:
            continue
        report.begin(f"2 throughput: {name}")
        options = {"include_usage": True}
        answer = once(endpoint, "Write two hundred words about bees.", stream=True, stream_options=options)
        tokens = _tokens(answer)
        seconds = (answer.whole_ms - answer.first_ms) / 1000
        rows.append((name, tokens, answer.first_ms, tokens / seconds if seconds > 0 else None))
    if rows:
        report.add(Section("2. Throughput of the models", ("", "tokens", "first (ms)", "tokens/s"), rows))


def _tokens(answer: Timed) -> int:
    found = re.findall(rb'"completion_tokens":\s*(\d+)', answer.body)
    return int(found[-1]) if found else answer.body.count(b"data:")


def long_context(target: Target, report: Report) -> None:
    """A context of about so many tokens, and no max_tokens but the target's."""
    report.begin("3 long context")
    answer = once(target.routed, _SENTENCE * (target.context_tokens // _SENTENCE_TOKENS), **target.limit)
    said = len(text_in(answer)) if answer.status == 200 else 0
    row = (f"HTTP {answer.status}", answer.whole_ms, said)
    title = f"3. Long context, {target.context_tokens:,} tokens"
    report.add(Section(title, ("", "whole (ms)", "characters back"), [row]))


def at_once(target: Target, report: Report, clients: int = 10) -> None:
    """Ten clients at the same time."""
    report.begin("4 ten at once")
    with ThreadPoolExecutor(clients) as pool:
        started = time.perf_counter()
        answers = list(pool.map(lambda _: once(target.routed, SHORT, **target.limit), range(clients)))
        took_ms = (time.perf_counter() - started) * 1000
    fine = sum(answer.status == 200 for answer in answers)
    row = (f"{fine} of {clients} answered", took_ms, max(answer.whole_ms for answer in answers))
    report.add(Section(f"4. {clients} requests at once", ("", "all (ms)", "slowest (ms)"), [row]))


def first_token(target: Target, report: Report, repetitions: int) -> None:
    """The first event of a stream, directly and through the router, in turn."""
    if target.primary is not None:
        report.begin("5 first token")
        pairs = alternating(
            repetitions,
            {
                "direct": lambda: once(_known(target.primary), SHORT, stream=True).first_ms,
                "routed": lambda: once(target.routed, SHORT, stream=True).first_ms,
            },
        )
        report.add(compared("5. First token of a MODERATE stream (ms)", pairs, "direct"))


def overhead(target: Target, report: Report, repetitions: int) -> None:
    """A plain answer whose model the client names, directly and through the router, in turn."""
    if target.primary is not None:
        named = Endpoint(target.routed.url, "primary", target.routed.key)
        report.begin("6 overhead")
        pairs = alternating(
            repetitions,
            {
                "direct": lambda: once(_known(target.primary), SHORT, max_tokens=1).whole_ms,
                "routed": lambda: once(named, SHORT, max_tokens=1).whole_ms,
            },
        )
        report.add(compared("6. A plain answer of the primary, named by the client (ms)", pairs, "direct"))


def _known(endpoint: Endpoint | None) -> Endpoint:
    if endpoint is None:
        raise ValueError("no primary to ask directly")
    return endpoint


def once(endpoint: Endpoint, text: str, **fields: object) -> Timed:
    """One request on a connection of its own."""
    connection = endpoint.connect()
    try:
        return endpoint.ask(connection, text, **fields)
    finally:
        connection.close()


def alternating(turns: int, kinds: Mapping[str, Callable[[], float]]) -> Mapping[str, list[float]]:
    """Each kind once a turn, so that whatever the machine does to one it does to all."""
    values: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(turns):
        for name, measure in kinds.items():
            values[name].append(measure())
    return values


def compared(title: str, values: Mapping[str, Sequence[float]], base: str, note: str = "") -> Section:
    """p50 and p99 of each, and what it adds to the base in the same turn."""
    rows = []
    for name, series in values.items():
        added = [mine - its for mine, its in zip(series, values[base], strict=True)]
        extra = (None, None) if name == base else (p50(added), p99(added))
        rows.append((name, p50(series), p99(series), *extra))
    return Section(title, ("", "p50", "p99", "added p50", "added p99"), rows, note, bars="p50")


_UNCLEAR = "what about the tall one, number {}"
"""A question that nobody can decide without asking the classifier."""


def strategies(folder: Path, report: Report, scale: float, repetitions: int) -> None:
    """From the sequential baseline to today's default, in turn: until the first event of a stream."""
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
                    answer = once(Endpoint(server.url, "auto"), text(number), stream=True)
                    times.setdefault((name, kind), []).append(answer.first_ms)
    rows: list[Sequence[Cell]] = []
    for name in lab.routers:
        rows.append((name, *(p50(times[name, kind]) for kind in kinds)))
    note = f"Simulated backends at {scale:g} of real time; an unclear question is another each time."
    report.add(
        Section("Strategies: first event of a stream (ms, p50)", ("", *kinds), rows, note, bars="unclear question")
    )
