"""How many tokens a request can have at most, whoever counts them. Pure.

A byte of text counts for a token: most text takes a fourth of that, but a table of digits does not. What a picture or a
file takes does not show in its bytes, or it is somewhere else. No request has more tokens than its model's context.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from ai_router.types import ChatRequest

_PICTURE_TOKENS = 32_768
"""More than any picture is known to take: one of 12 megapixels takes up to 14,364 (huggingface.co/datasets/
JOHNISKING/image-token-cost, November 2026)."""
_TEMPLATE_TOKENS = 200
"""More than what a chat template puts around messages, and the date before them."""
_TOOL_TOKENS = 2_000
"""An allowance for each tool of a provider's own. What they take could not be looked up or measured here."""
_SAID = ("input", "messages", "prompt", "system")
"""The fields of other APIs that have the conversation in them."""
_CONTENTS = ("content", "output", "source")
"""Where messages, items and parts have further parts."""
_PICTURES = frozenset({"computer_screenshot", "image", "image_url", "input_image"})
_FILES = frozenset({"container_upload", "file", "input_file", "input_video", "video", "video_url"})
_DATA = frozenset({"data", "file_data", "image_url", "url"})
_SOURCES_OF_FILES = ("base64", "file", "url")
"""Of a document in Anthropic's API; another one has its text in it."""


class _Media(NamedTuple):
    """A picture or a file in a request, and how many characters of the request it is."""

    is_file: bool
    chars: int


def most_input_tokens(request: ChatRequest, context: int) -> int:
    """The most tokens that the request can have for a model with so large a ``context``: as chat completions or in the
    form of its client's API, whichever is more."""
    params = sum(len(orjson.dumps(value)) for value in request.params.values())
    most = _most(request.messages, len(request.messages_json) + params, context)
    if (form := request.client_form) is not None:
        body = orjson.dumps(dict(form.fields))
        fields = orjson.loads(body)
        said = [fields.get(name) for name in _SAID]
        most = max(most, _most(said, len(body), context) + _of_built_in_tools(fields.get("tools")))
    return min(most + _TEMPLATE_TOKENS, context)


def _most(said: Any, size: int, context: int) -> int:
    media = list(_media_in(said))
    text = size - sum(one.chars for one in media)
    return text + sum(context if one.is_file else _PICTURE_TOKENS for one in media)


def _media_in(said: Any) -> Iterator[_Media]:
    """The pictures and files in messages and items, at whatever depth of their contents. What a tool was called with
    is text, whatever it looks like."""
    if isinstance(said, (list, tuple)):
        for one in said:
            yield from _media_in(one)
    elif isinstance(said, Mapping):
        kind, source = said.get("type"), said.get("source")
        if not isinstance(kind, str):
            kind = ""
        if kind in _PICTURES or kind in _FILES or (kind == "document" and _is_file(source)):
            yield _Media(kind not in _PICTURES, _chars_in(said))
        else:
            for name in _CONTENTS:
                yield from _media_in(said.get(name))


def _is_file(source: Any) -> bool:
    return isinstance(source, Mapping) and source.get("type") in _SOURCES_OF_FILES


def _chars_in(part: Mapping[str, Any]) -> int:
    """The characters of the data in a picture or file, which are as many bytes of JSON at least. Anything else that
    stands in it counts as text."""
    data = (len(value) for name, value in part.items() if name in _DATA and isinstance(value, str))
    return sum(data) + sum(_chars_in(inner) for inner in part.values() if isinstance(inner, Mapping))


def _of_built_in_tools(tools: Any) -> int:
    """The tokens of what a provider puts into the prompt for tools of its own (Anthropic's computer, text editor)."""
    kinds = [tool.get("type") for tool in tools if isinstance(tool, Mapping)] if isinstance(tools, list) else []
    return _TOOL_TOKENS * sum(kind not in (None, "custom", "function") for kind in kinds)
