"""A home lab to look at: a real router before backends that answer in sentences, with a day's traffic behind it.

For the console's pictures and its measurements. The decisions are real (the head's, and a scripted classifier's where
the head is not sure); what the models say is written here.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.fakes.personas import CHAT, DONE, SEARCH, chunk, classifies, event, finds
from tests.fakes.router import RunningRouter, running_router
from tests.fakes.upstream import FakeUpstream, Plain, Recorded, Reply, Stream, fake_upstream

EXAMPLES = Path(__file__).parents[1] / "datasets" / "calibration"
UMBRELLA = "What does an umbrella insurance cover?"
PROOF = "Prove that there are infinitely many primes of the form 4k+3, and point out where the argument fails for 4k+1."
NEWS = "Who is chancellor of Germany at the moment, and since when?"
TITLE = (
    "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.\n"
    '### Output:\nJSON format: { "title": "your concise title here" }\n### Chat History:\n<chat_history>\n'
    "USER: What does an umbrella insurance cover?\n</chat_history>"
)

_ANSWERS = {
    UMBRELLA: """An umbrella policy steps in where your other liability policies end. It usually covers:

- **injuries** to others that you are liable for,
- **damage** to what belongs to them,
- **legal costs**, also where the claim turns out to be unfounded.

It does *not* cover your own injuries, your own belongings, or what you did on purpose.

| You cause | Auto policy pays | Umbrella pays |
|---|---|---|
| 400,000 USD | 300,000 USD | 100,000 USD |

```python
def umbrella_pays(damage: int, auto_limit: int) -> int:
    return max(0, damage - auto_limit)
```
""",
    PROOF: """Suppose there were only finitely many primes p1, ..., pn of the form 4k+3. Consider

> N = 4 p1 p2 ... pn - 1

1. N has the form 4k+3, so it is odd and greater than 1.
2. A product of numbers of the form 4k+1 has that form again. So some prime factor q of N has the form 4k+3.
3. q is none of the pi, since each of them divides N + 1. That is a contradiction.

**For 4k+1** step 2 breaks: a number of the form 4k+1 may be a product of two primes of the form 4k+3, as 21 = 3 * 7.
""",
    NEWS: "Friedrich Merz has been chancellor of Germany since 6 May 2025, according to the sources below.",
}
_OTHERWISE = "That is a short answer from the model at home, as it gives a few hundred of them a day."


@dataclass(frozen=True, slots=True)
class ConsoleLab:
    """The router and its backends."""

    router: RunningRouter
    classifier: FakeUpstream
    primary: FakeUpstream
    xai: FakeUpstream


def _asked(request: Recorded) -> str:
    for message in reversed(request.body["messages"]):
        if message["role"] == "user":
            return str(message["content"])
    return ""


def speaks(gap: float, *, ttft: float = 0.05, tokens: int = 9) -> Callable[[Recorded], Reply]:
    """A model that knows the answers above, word by word."""

    def reply(request: Recorded) -> Reply:
        asked = _asked(request)
        text = next((answer for question, answer in _ANSWERS.items() if question in asked), _OTHERWISE)
        prompt = sum(len(str(message["content"])) for message in request.body["messages"]) // 4 + 8
        words = text.split(" ")
        usage = {"prompt_tokens": prompt, "completion_tokens": tokens * len(words) // 7}
        usage["total_tokens"] = sum(usage.values())
        if not request.body.get("stream"):
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return Plain({"object": "chat.completion", "choices": [choice], "usage": usage}, delay=ttft)
        pieces = [word if not number else f" {word}" for number, word in enumerate(words)]
        last = event({"object": "chat.completion.chunk", "choices": [], "usage": usage})
        portions = [*(chunk({"content": piece}) for piece in pieces), chunk({}, "stop"), last, DONE]
        return Stream(portions, ttft=ttft, gap=gap)

    return reply


def _weighs(request: Recorded) -> Reply:
    """A classifier of some seconds, that is not always sure."""
    asked = str(request.body["messages"][-1]["content"])
    label = "COMPLEX" if len(asked) % 5 == 0 else "MODERATE"
    reply = classifies(label, delay=0.6, probability=0.72 + (len(asked) % 7) / 30)
    return reply(request)


@contextmanager
def console_lab(folder: Path, **settings: str) -> Iterator[ConsoleLab]:
    """The lab, without traffic yet."""
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        classifier.on(CHAT, _weighs)
        primary.on(CHAT, speaks(0.025))
        xai.on(CHAT, speaks(0.02, ttft=0.4, tokens=14))
        sources = ("https://www.bundesregierung.de/breg-en/chancellor", "https://en.wikipedia.org/wiki/Friedrich_Merz")
        xai.on(SEARCH, finds("Friedrich Merz, since 6 May 2025.", delay=1.2, urls=sources))
        xai.on("/v1/models", Plain({"object": "list", "data": []}))
        values = {
            "ROUTER_URL": classifier.url,
            "PRIMARY_URL": primary.url,
            "PRIMARY_MODEL": "qwen3-30b-a3b",
            "XAI_API_URL": xai.url,
            "XAI_API_KEY": "xai-lab-key-0123456789",
            **settings,
        }
        with running_router(folder, **values) as router:
            router.wait_for_log(r"Classifier probed: .*")
            yield ConsoleLab(router, classifier, primary, xai)


def examples(count: int) -> list[str]:
    """So many prompts as people write them."""
    lines = [line for path in sorted(EXAMPLES.glob("*.jsonl")) for line in path.read_bytes().splitlines()]
    texts = [row["text"] for line in lines if isinstance((row := orjson.loads(line)).get("text"), str)]
    return texts[:: max(1, len(texts) // count)][:count]


def traffic(router: RunningRouter, count: int = 120) -> None:
    """A day of prompts, four at a time."""
    with ThreadPoolExecutor(4) as clients:
        for status in clients.map(lambda text: router.chat(text, stream=True)[0], examples(count)):
            assert status == 200, status


def ask(
    router: RunningRouter, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> Any:
    """The JSON that the router answers."""
    connection = http.client.HTTPConnection("127.0.0.1", router.port, timeout=30)
    try:
        connection.request(method, path, None if body is None else orjson.dumps(body), dict(headers or {}))
        return orjson.loads(connection.getresponse().read())
    finally:
        connection.close()
