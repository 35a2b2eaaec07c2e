"""What a vLLM, a llama.cpp and an xAI say, as scripts for the fake upstream (shapes: docs/design.md, "Upstreams")."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from tests.fakes.upstream import Plain, Recorded, Reply, Stream

CHAT = "/v1/chat/completions"
SEARCH = "/v1/responses"
_NUMBERS = itertools.count(1)


def anew(text: str = "hello") -> str:
    """A question that nobody has asked yet: what was found for one is kept for when it is asked again."""
    return f"({next(_NUMBERS)}) {text}"


def event(payload: Any) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def chunk(delta: Mapping[str, Any], finish_reason: str | None = None, **extra: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **extra})


def usage_chunk(prompt: int = 5, completion: int = 3) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [], "usage": usage})


def completion(text: str | None, *, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    }


def says(*words: str, ttft: float = 0.0, gap: float = 0.0, ending: str = "end") -> Callable[[Recorded], Reply]:
    """A chat model that answers with these words, streamed or plain as asked; as vLLM it sends usage when asked to."""

    def reply(request: Recorded) -> Reply:
        if not request.body.get("stream"):
            return Plain(completion("".join(words)), delay=ttft)
        portions = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": word}) for word in words)]
        portions.append(chunk({}, "stop"))
        if (request.body.get("stream_options") or {}).get("include_usage"):
            portions.append(usage_chunk())
        return Stream([*portions, DONE], ttft=ttft, gap=gap, ending=ending)

    return reply


def classifies(label: str, *, delay: float = 0.0, probability: float = 0.9) -> Callable[[Recorded], Reply]:
    """A vLLM classifier that honours structured_outputs.choice and, without it, thinks first and answers then."""

    def reply(request: Recorded) -> Reply:
        body = request.body
        if "structured_outputs" in body:
            return Plain(_constrained(label, body, probability), delay=delay)
        if body.get("stream"):
            return Stream(thinking_then(label), ttft=delay)
        return Plain(completion(f"<think>\nHm.\n</think>\n\n{label}"), delay=delay)

    return reply


def ignores_constraints(label: str) -> Callable[[Recorded], Reply]:
    """An older vLLM: unknown fields are ignored with a 200, and the model writes what it likes."""

    def reply(request: Recorded) -> Reply:
        if request.body.get("stream"):
            return Stream(thinking_then(label), gap=0.01, ending="hang")
        return Plain(completion("The sea is calm today and the gulls are loud."))

    return reply


def thinking_then(label: str) -> Sequence[bytes]:
    """A reasoning classifier's stream: it weighs every label, decides, and goes on to chat."""
    return [
        chunk({"role": "assistant", "content": ""}),
        chunk({"reasoning": "It could be COMPLEX or ENRICH or MODERATE..."}),
        chunk({"content": "\n\n"}),
        chunk({"content": label[:3]}),
        chunk({"content": label[3:]}),
        chunk({"content": ". Anything else"}),
    ]


def _constrained(label: str, body: Mapping[str, Any], probability: float) -> dict[str, Any]:
    choices = body["structured_outputs"]["choice"]
    assert label in choices
    one_token = body["max_tokens"] == 1
    answer = completion(label[:3] if one_token else label, finish_reason="length" if one_token else "stop")
    others = [choice for choice in choices if choice != label]
    top = [{"token": label[:3], "logprob": math.log(probability / 2)}]
    # The rest of the mass: half of it on tokens that no label begins with, as vLLM reports from before the constraint.
    top += [{"token": other[:3], "logprob": math.log((1 - probability) / 2 / len(others))} for other in others]
    top.append({"token": "<think>", "logprob": math.log(0.5)})
    answer["choices"][0]["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    return answer


def finds(text: str, *, delay: float = 0.0, urls: Sequence[str] = ("https://example.org/a",)) -> Plain:
    """xAI's /v1/responses with a web search's findings."""
    annotations = [{"type": "url_citation", "url": url} for url in urls]
    return Plain(
        {
            "id": "resp_1",
            "object": "response",
            "status": "completed",
            "output": [
                {"type": "web_search_call", "status": "completed"},
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": text, "annotations": annotations}],
                },
            ],
            "citations": list(urls),
            "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
        },
        delay=delay,
    )
