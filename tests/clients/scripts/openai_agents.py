"""openai-agents: its default is the Responses API."""

from __future__ import annotations

import asyncio
import sys

from agents import Agent, ModelSettings, Runner, function_tool, set_default_openai_client, set_tracing_disabled
from openai import AsyncOpenAI
from pydantic import BaseModel

URL, WHAT = sys.argv[1:3]
set_tracing_disabled(disabled=True)
set_default_openai_client(AsyncOpenAI(base_url=f"{URL}/v1", api_key="x", max_retries=0), use_for_tracing=False)


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    degrees: int


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"18 degrees in {city}"


# Without chance: the client takes an answer that was cut at its limit for a failure.
BRIEF = ModelSettings(max_tokens=300, temperature=0)


async def question() -> None:
    agent = Agent(name="a", instructions="Be brief.", model="auto", model_settings=BRIEF)
    assert (await Runner.run(agent, "Say hello.")).final_output
    streamed = Runner.run_streamed(agent, "Say hello.")
    kinds = [event.type async for event in streamed.stream_events()]
    assert "raw_response_event" in kinds
    assert streamed.final_output


async def tools() -> None:
    agent = Agent(name="a", model="auto", tools=[get_weather])
    assert "18" in (await Runner.run(agent, "What is the weather in Paris?")).final_output
    streamed = Runner.run_streamed(agent, "What is the weather in Paris?")
    assert [event async for event in streamed.stream_events()]
    assert "18" in streamed.final_output


async def structured() -> None:
    agent = Agent(name="a", model="auto", output_type=Weather)
    assert (await Runner.run(agent, "The weather?")).final_output == Weather(city="Paris", degrees=18)


async def main() -> None:
    await question()
    if WHAT == "everything":
        await tools()
        await structured()


asyncio.run(main())
sys.stdout.write("ok\n")
