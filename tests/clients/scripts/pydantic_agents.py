"""pydantic-ai: its default for openai is the Responses API; chat completions and Anthropic's API as well."""

from __future__ import annotations

import sys

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

URL, WHAT = sys.argv[1:3]
OPENAI = OpenAIProvider(base_url=f"{URL}/v1", api_key="x")
MODELS = (
    OpenAIResponsesModel("auto", provider=OPENAI),
    OpenAIChatModel("auto", provider=OPENAI),
    AnthropicModel("claude-sonnet-5-5", provider=AnthropicProvider(base_url=URL, api_key="x")),
)


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    degrees: int


def question() -> None:
    for model in MODELS:
        assert Agent(model).run_sync("Say hello.", model_settings={"max_tokens": 50}).output


def tools() -> None:
    for model in MODELS:
        agent = Agent(model)

        @agent.tool_plain
        def get_weather(city: str) -> str:
            """The weather in a city."""
            return f"18 degrees in {city}"

        assert "18" in agent.run_sync("What is the weather in Paris?").output


def structured() -> None:
    for model in MODELS:
        assert Agent(model, output_type=Weather).run_sync("The weather?").output == Weather(city="Paris", degrees=18)


question()
if WHAT == "everything":
    tools()
    structured()
sys.stdout.write("ok\n")
