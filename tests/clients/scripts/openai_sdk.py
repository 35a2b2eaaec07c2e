"""openai for Python: chat completions, responses, completions, embeddings; sync, async, with the stream helpers."""

from __future__ import annotations

import asyncio
import json
import sys

import openai
from pydantic import BaseModel

URL, WHAT = sys.argv[1:3]
SDK = openai.OpenAI(base_url=f"{URL}/v1", api_key="x", max_retries=0, timeout=60)
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
CHAT_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS, "strict": True}}
TOOL = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": True}
QUESTION = "Say hello."


class Weather(BaseModel):
    city: str
    degrees: int


def question() -> None:
    answer = SDK.responses.create(model="auto", input=QUESTION, max_output_tokens=20)
    assert answer.output_text, answer
    again = SDK.responses.create(model="auto", input="And again.", previous_response_id=answer.id, max_output_tokens=20)
    assert again.output_text, again
    numbers = [event.sequence_number for event in SDK.responses.create(model="auto", input=QUESTION, stream=True)]
    assert numbers == list(range(len(numbers))), numbers
    messages = [{"role": "user", "content": QUESTION}]
    chat = SDK.chat.completions.create(model="auto", messages=messages, max_tokens=20)
    assert chat.choices[0].message.content
    text = SDK.completions.create(model="auto", prompt="Once upon a time", max_tokens=5)
    assert text.choices[0].text
    parts = SDK.completions.create(model="auto", prompt="Once upon a time", max_tokens=5, stream=True)
    assert "".join(part.choices[0].text for part in parts)
    assert len(SDK.embeddings.create(model="auto", input="hello").data[0].embedding) == 512
    asyncio.run(question_async())


async def question_async() -> None:
    async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="x", max_retries=0, timeout=60) as sdk:
        answers = await asyncio.gather(
            *(sdk.responses.create(model="auto", input=QUESTION, max_output_tokens=10) for _ in range(3))
        )
        assert all(answer.output_text for answer in answers)
        kinds = []
        async for event in await sdk.responses.create(model="auto", input=QUESTION, stream=True, max_output_tokens=10):
            kinds.append(event.type)
        assert kinds[0] == "response.created", kinds
        assert kinds[-1] in ("response.completed", "response.incomplete"), kinds


def tools() -> None:
    items: list = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = SDK.responses.create(model="auto", input=items, tools=[TOOL])
    (call,) = [item for item in answer.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"city": "Paris"}
    items += answer.output
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"})
    with SDK.responses.stream(model="auto", input=items, tools=[TOOL]) as stream:
        assert "18" in stream.get_final_response().output_text
    messages: list = [{"role": "user", "content": "What is the weather in Paris?"}]
    with SDK.chat.completions.stream(model="auto", messages=messages, tools=[CHAT_TOOL]) as stream:
        message = stream.get_final_completion().choices[0].message
    assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Paris"}


def structured() -> None:
    answer = SDK.responses.parse(model="auto", input="The weather?", text_format=Weather)
    assert answer.output_parsed == Weather(city="Paris", degrees=18)
    messages = [{"role": "user", "content": "The weather?"}]
    chat = SDK.chat.completions.parse(model="auto", messages=messages, response_format=Weather)
    assert chat.choices[0].message.parsed == Weather(city="Paris", degrees=18)


def errors() -> None:
    for wrong, kind in (({"background": True}, openai.BadRequestError), ({"model": "nobody"}, openai.NotFoundError)):
        try:
            SDK.responses.create(**{"model": "auto", "input": "x", **wrong})
        except kind:
            continue
        raise AssertionError(wrong)


question()
if WHAT == "everything":
    tools()
    structured()
    errors()
sys.stdout.write("ok\n")
