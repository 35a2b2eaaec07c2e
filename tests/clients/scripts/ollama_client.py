"""ollama for Python: chat, generate, streams, tools, formats, embeddings, and what it asks about models."""

from __future__ import annotations

import json
import sys

import ollama

URL, WHAT = sys.argv[1:3]
SDK = ollama.Client(host=URL, timeout=60)
HELLO = [{"role": "user", "content": "Say hello."}]
BRIEF = {"num_predict": 20}


def get_weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: its name
    """
    return f"18 degrees in {city}"


def question() -> None:
    assert "auto" in [model.model for model in SDK.list().models]
    assert "completion" in SDK.show("auto:latest").capabilities
    assert SDK.chat(model="auto", messages=HELLO, options=BRIEF).message.content
    parts = list(SDK.chat(model="auto:latest", messages=HELLO, stream=True, options=BRIEF))
    assert "".join(part.message.content or "" for part in parts)
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert SDK.generate(model="auto", prompt="Say hello.", options=BRIEF).response
    assert len(SDK.embed(model="auto", input="hello").embeddings[0]) == 512


def tools() -> None:
    messages: list = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = SDK.chat(model="auto", messages=messages, tools=[get_weather])
    (call,) = answer.message.tool_calls or ()
    assert dict(call.function.arguments) == {"city": "Paris"}
    result = get_weather(**call.function.arguments)
    messages += [answer.message, {"role": "tool", "content": result, "tool_name": call.function.name}]
    assert "18" in (SDK.chat(model="auto", messages=messages, tools=[get_weather]).message.content or "")


def structured() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}}}
    answer = SDK.chat(model="auto", messages=HELLO, format=schema)
    assert json.loads(answer.message.content or "") == {"city": "Paris", "degrees": 18}


def errors() -> None:
    try:
        SDK.chat(model="nobody", messages=HELLO)
    except ollama.ResponseError as problem:
        assert problem.status_code == 404
    else:
        raise AssertionError("a model that nobody knows was found")


question()
if WHAT == "everything":
    tools()
    structured()
    errors()
sys.stdout.write("ok\n")
