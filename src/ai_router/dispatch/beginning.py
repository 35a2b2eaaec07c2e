"""How an answer begins: its first words, and how probable its tokens were, where the backend tells that. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

_MARK = b'"logprobs":'
_DATA = b"data: "


class Beginning(NamedTuple):
    """The text until now, and the logarithms of the probabilities of its tokens; empty: the backend tells none."""

    text: str
    logprobs: tuple[float, ...] = ()


def logprobs_in_events(events: bytes) -> tuple[float, ...]:
    """Those in the chunks of a stream of chat completions. Clients that want them ask for them, which few do."""
    if _MARK not in events:
        return ()
    lines = (line.removeprefix(_DATA) for line in events.splitlines() if line.startswith(_DATA) and _MARK in line)
    return tuple(logprob for line in lines for logprob in _logprobs(line))


def logprobs_in_answer(body: bytes) -> tuple[float, ...]:
    """Those in a chat completion."""
    return tuple(_logprobs(body)) if _MARK in body else ()


def _logprobs(data: bytes) -> Iterator[float]:
    """Those of the first choice. What has another shape than OpenAI's has none."""
    try:
        tokens: Any = orjson.loads(data)["choices"][0]["logprobs"]["content"]
        found = [token["logprob"] for token in tokens]
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
        return
    yield from (logprob for logprob in found if isinstance(logprob, (int, float)))
