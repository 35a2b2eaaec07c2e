"""langchain-openai: through chat completions and through the Responses API; tools, structured outputs, embeddings."""

from __future__ import annotations

import sys

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

URL, WHAT = sys.argv[1:3]


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    degrees: int


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"18 degrees in {city}"


def model(*, responses: bool) -> ChatOpenAI:
    return ChatOpenAI(
        model="auto",
        base_url=f"{URL}/v1",
        api_key="x",
        max_retries=0,
        use_responses_api=responses,
        max_completion_tokens=50,
    )


def question() -> None:
    for responses in (False, True):
        assert model(responses=responses).invoke("Say hello.").text
        assert "".join(part.text for part in model(responses=responses).stream("Say hello."))
    vectors = OpenAIEmbeddings(
        model="auto", base_url=f"{URL}/v1", api_key="x", check_embedding_ctx_length=False, max_retries=0
    )
    assert len(vectors.embed_query("hello")) == 512


def tools() -> None:
    for responses in (False, True):
        able = model(responses=responses).bind_tools([get_weather])
        messages: list = [HumanMessage("What is the weather in Paris?")]
        answer = able.invoke(messages)
        (call,) = answer.tool_calls
        assert call["args"] == {"city": "Paris"}
        messages += [answer, ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])]
        assert "18" in able.invoke(messages).text


def structured() -> None:
    for responses in (False, True):
        for method in ("json_schema", "function_calling"):
            found = model(responses=responses).with_structured_output(Weather, method=method).invoke("The weather?")
            assert found == Weather(city="Paris", degrees=18), found


question()
if WHAT == "everything":
    tools()
    structured()
sys.stdout.write("ok\n")
