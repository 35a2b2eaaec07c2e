"""The home lab that the router was conceived in, simulated: what each backend takes, and routers before them.

The timing model, in seconds of the real thing (``scale`` makes all of it faster):

- the classifier, an 8B that reasons: first token after 0.03 to 0.06, then 183 to 346 tokens of thinking at 192 a second
  (0.95 to 1.8 s in all); constrained to one token it answers with its first;
- the primary, a 30B with 3B active: first token after 0.048 to 0.089, then 233 tokens a second;
- xAI: 7 to 11 s, its first token after most of that; its web search 11 to 26 s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.backend import Timing
from benchmarks.rig import Server, backend, router

CLASSIFIER = Timing(ttft_s=(0.03, 0.06), tokens_per_s=192, tokens=264, classifies=True)
PRIMARY = Timing(ttft_s=(0.048, 0.089), tokens_per_s=233, tokens=120)
XAI = Timing(ttft_s=(6.0, 10.0), tokens_per_s=200, tokens=200, per_chunk=4)
SEARCH = Timing(ttft_s=(11.0, 26.0), tokens=1)

STRATEGIES: Mapping[str, Mapping[str, str]] = {
    "sequential": {"CLASSIFIER_MODE": "reasoning", "SPECULATION": "off", "FAST_ROUTING": "off"},
    "speculative": {"CLASSIFIER_MODE": "reasoning", "SPECULATION": "always", "FAST_ROUTING": "off"},
    "constrained": {"CLASSIFIER_MODE": "constrained", "SPECULATION": "always", "FAST_ROUTING": "off"},
    "fast path": {"CLASSIFIER_MODE": "constrained", "SPECULATION": "auto", "FAST_ROUTING": "on"},
}
"""From the first design's to today's."""


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
