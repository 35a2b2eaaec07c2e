"""A primary for real clients: it calls a tool, reads its result, fills a schema in, or says hello; in any API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from ai_router.apis import ClientApi, ClientForm
from tests.client_apis.answers import chunks_of, completion
from tests.fakes.personas import DONE, event
from tests.fakes.upstream import Plain, Recorded, Reply, Stream

HELLO = "Hello from the primary."
RESULT = "It is 18 degrees in Paris."
FILLED = {"city": "Paris", "degrees": 18}


def answer_to(messages: list[dict[str, Any]], params: Mapping[str, Any]) -> dict[str, Any]:
    """What the model says to a request of chat completions."""
    tools = [tool["function"]["name"] for tool in params.get("tools") or ()]
    if messages[-1]["role"] == "tool":
        assert "18" in str(messages[-1]["content"]), messages
        if not any(name.startswith("final_result") for name in tools):
            return completion({"role": "assistant", "content": RESULT})
    if "get_weather" in tools and not any(message["role"] == "tool" for message in messages):
        return _calls("get_weather", {"city": "Paris"})
    if wanted := [name for name in tools if name != "get_weather"]:
        # A library that asks for a structured output by a tool.
        return _calls(wanted[0], FILLED)
    if params.get("response_format"):
        return completion({"role": "assistant", "content": orjson.dumps(FILLED).decode()})
    return completion({"role": "assistant", "content": HELLO})


def _calls(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": orjson.dumps(arguments).decode()}
    call = {"id": "call_1", "type": "function", "function": function}
    return completion({"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls")


def speaks_chat(request: Recorded) -> Reply:
    """Chat completions."""
    answer = answer_to(request.body["messages"], request.body)
    if not request.body.get("stream"):
        return Plain(answer)
    return Stream([*(event(chunk) for chunk in chunks_of(answer, 8)), DONE])


def speaks(api: ClientApi) -> Callable[[Recorded], Reply]:
    """The same in another API."""

    def reply(request: Recorded) -> Reply:
        asked = api.read(request.body)
        form = ClientForm(api, asked.client_fields, kept=asked.kept, prompt_tokens=5)
        answer = answer_to(list(asked.messages), asked.params)
        if not request.body.get("stream"):
            return Plain(api.answer(answer, form))
        writer = api.writer(form)
        return Stream([*(part for chunk in chunks_of(answer, 8) if (part := writer.chunk(chunk))), writer.end()])

    return reply
