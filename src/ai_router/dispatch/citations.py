"""The pages that a web search has found, in the answer of ENRICH, so that programs can read them.

``citations``, a list of addresses, is a member of the answer, or of the first event of a stream, in every API; xAI and
Perplexity have it there. Chat completions have them in OpenAI's form as well: ``annotations`` of the message, or of a
chunk of their own behind the first one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import orjson

from ai_router.dispatch.splice import first_event, in_answer, with_member
from ai_router.dispatch.web_search import listed_sources
from ai_router.types import ChatRequest, Step

FIELD = "citations"
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_MESSAGE = re.compile(r'(?<!\\)"message"\s*:\s*(?=\{)')


def sources_of(steps: Iterable[Step]) -> Sequence[str]:
    """The pages that the web search of a request named; none, if it made none."""
    contexts = [step.detail.get("context") or "" for step in steps if step.kind == "enrichment"]
    return listed_sources(contexts[-1]) if contexts else []


def citing(request: ChatRequest, urls: Sequence[str]) -> ChatRequest:
    """The request, whose answer is written with these pages where its API has a place for them."""
    if request.client_form is None or not urls:
        return request
    return replace(request, client_form=replace(request.client_form, kept={**request.client_form.kept, FIELD: urls}))


def cited(body: bytes, urls: Sequence[str], *, is_chat: bool) -> bytes:
    """A whole answer with the pages in it. ``is_chat``: it is a chat completion."""
    return in_answer(_annotated(body, urls) if is_chat else body, FIELD, urls)


def cited_first(portion: bytes, urls: Sequence[str], *, is_chat: bool) -> bytes | None:
    """The beginning of a stream with the pages in it; None: there is no whole event in it yet."""
    found = first_event(portion)
    if found is None:
        return None
    start, end = found
    told = with_member(portion, end, FIELD, urls)
    if not is_chat:
        return told
    behind = _EVENT_END.search(told, end + len(told) - len(portion))
    at = behind.end() if behind is not None else len(told)
    return told[:at] + _annotations_chunk(portion[start : end + 1], urls) + told[at:]


def _annotated(body: bytes, urls: Sequence[str]) -> bytes:
    """A chat completion whose first message has the annotations; itself, if it has some already."""
    try:
        text = body.decode()
        found = _MESSAGE.search(text)
        if found is None:
            return body
        message, end = json.JSONDecoder().raw_decode(text, found.end())
    except ValueError:
        return body
    if message.get("annotations"):
        return body
    if "annotations" in message:
        # null, or none: nothing of the backend's is lost if the message is written anew.
        written = orjson.dumps({**message, "annotations": url_annotations(urls)})
        return text[: found.end()].encode() + written + text[end:].encode()
    at = len(text[: end - 1].encode())
    return with_member(body, at, "annotations", url_annotations(urls))


def _annotations_chunk(first: bytes, urls: Sequence[str]) -> bytes:
    """A chunk with nothing but the annotations, of the same answer as the ``first`` one."""
    try:
        like = orjson.loads(first)
    except orjson.JSONDecodeError:
        return b""
    named = {name: like[name] for name in ("id", "object", "created", "model") if name in like}
    choice = {"index": 0, "delta": {"annotations": url_annotations(urls)}, "finish_reason": None}
    return b"data: " + orjson.dumps({**named, "choices": [choice]}) + b"\n\n"


def url_annotations(urls: Iterable[str]) -> list[dict[str, Any]]:
    """The pages in the form of chat completions. Where in the text they belong is not known."""
    return [
        {
            "type": "url_citation",
            "url_citation": {"url": url, "title": urlsplit(url).hostname or url, "start_index": 0, "end_index": 0},
        }
        for url in urls
    ]
