"""anthropic for Python: messages, streams, tools, counting."""

from __future__ import annotations

import asyncio
import json
import sys

import anthropic

URL, WHAT = sys.argv[1:3]
SDK = anthropic.Anthropic(base_url=URL, api_key="x", max_retries=0, timeout=60)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "the weather", "input_schema": SCHEMA}
HELLO = [{"role": "user", "content": "Say hello."}]


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def question() -> None:
    answer = SDK.messages.create(model="claude-sonnet-5-5", max_tokens=20, system="Be brief.", messages=HELLO)
    assert text_of(answer), answer
    assert answer.usage.output_tokens > 0
    with SDK.messages.stream(model="auto", max_tokens=20, messages=HELLO) as stream:
        assert "".join(stream.text_stream)
        assert stream.get_final_message().stop_reason in ("end_turn", "max_tokens")
    assert SDK.messages.count_tokens(model="auto", messages=HELLO).input_tokens > 0
    asyncio.run(question_async())


async def question_async() -> None:
    async with anthropic.AsyncAnthropic(base_url=URL, api_key="x", max_retries=0, timeout=60) as sdk:
        answers = await asyncio.gather(
            *(sdk.messages.create(model="auto", max_tokens=10, messages=HELLO) for _ in range(3))
        )
        assert all(text_of(answer) for answer in answers)


def tools() -> None:
    messages: list = [{"role": "user", "content": "What is the weather in Paris?"}]
    with SDK.messages.stream(model="auto", max_tokens=100, messages=messages, tools=[TOOL]) as stream:
        answer = stream.get_final_message()
    assert answer.stop_reason == "tool_use"
    (call,) = [block for block in answer.content if block.type == "tool_use"]
    assert call.input == {"city": "Paris"}
    messages.append({"role": "assistant", "content": answer.content})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "18 degrees"}
    messages.append({"role": "user", "content": [result]})
    assert "18" in text_of(SDK.messages.create(model="auto", max_tokens=100, messages=messages, tools=[TOOL]))


def structured() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}}}
    answer = SDK.messages.create(
        model="auto",
        max_tokens=100,
        messages=HELLO,
        extra_body={"output_config": {"format": {"type": "json_schema", "schema": schema}}},
    )
    assert json.loads(text_of(answer)) == {"city": "Paris", "degrees": 18}


def errors() -> None:
    try:
        SDK.messages.create(model="nobody", max_tokens=10, messages=HELLO)
    except anthropic.NotFoundError as problem:
        assert problem.body["error"]["type"] == "not_found_error", problem.body
    else:
        raise AssertionError("a model that nobody knows was found")


question()
if WHAT == "everything":
    tools()
    structured()
    errors()
sys.stdout.write("ok\n")
