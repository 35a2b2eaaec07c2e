"""The official OpenAI SDK as the client, against a real router."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import openai
import pytest

from tests.end_to_end.conftest import Lab
from tests.fakes.personas import CHAT, DONE, chunk, completion, says
from tests.fakes.upstream import Plain, Stream

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def sdk(lab: Lab) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{lab.router.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_a_plain_answer(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="auto", messages=HELLO)
    assert answer.choices[0].message.content == "from the primary"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 8


def test_a_stream(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(model="auto", messages=HELLO, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "from the primary"


def test_a_stream_with_usage(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model="auto", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    assert [chunk.usage.total_tokens for chunk in stream if chunk.usage] == [8]


def test_a_stream_of_tool_calls(lab: Lab, sdk: openai.OpenAI) -> None:
    deltas = [
        {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
    ]
    lab.primary.on(CHAT, Stream([*map(chunk, deltas), chunk({}, "tool_calls"), DONE]))
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    calls = [
        call
        for part in sdk.chat.completions.create(model="auto", messages=HELLO, stream=True, tools=[tool])
        for call in part.choices[0].delta.tool_calls or []
    ]
    assert "".join(call.function.arguments or "" for call in calls if call.function) == '{"a": 1}'


def test_keep_alives_of_a_search_are_not_seen(lab: Lab, sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(model="enrich", messages=HELLO, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "from the primary"


def test_the_headers_can_be_read(sdk: openai.OpenAI) -> None:
    raw = sdk.chat.completions.with_raw_response.create(model="auto", messages=HELLO)
    assert raw.headers["x-router-route"] == "primary"


def test_models(sdk: openai.OpenAI) -> None:
    assert "auto" in [model.id for model in sdk.models.list()]
    assert sdk.models.retrieve("primary").id == "primary"
    assert sdk.models.retrieve("xai/grok-4.7").owned_by == "xai"


def test_bad_input_is_a_bad_request_error_naming_the_field(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.chat.completions.create(model="auto", messages=[])
    assert caught.value.param == "messages"


def test_an_unknown_model_is_a_not_found_error(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist here"):
        sdk.chat.completions.create(model="gpt-99", messages=HELLO)


def test_a_backend_s_message_is_in_the_exception(lab: Lab, sdk: openai.OpenAI) -> None:
    lab.primary.on(CHAT, Plain({"error": "out of memory"}, status=500))
    with pytest.raises(openai.InternalServerError, match="out of memory"):
        sdk.chat.completions.create(model="primary", messages=HELLO)


def test_a_stream_that_dies_raises(lab: Lab, sdk: openai.OpenAI) -> None:
    lab.primary.on(CHAT, Stream([chunk({"content": "first"})], ending="reset"))
    seen = []
    with pytest.raises(openai.APIError, match="connection broke"):
        seen.extend(sdk.chat.completions.create(model="auto", messages=HELLO, stream=True))
    assert len(seen) == 1


def test_a_stream_closed_by_the_client_aborts_the_backend(lab: Lab, sdk: openai.OpenAI) -> None:
    lab.primary.on(CHAT, Stream([chunk({"content": "first"})], ending="hang"))
    stream = sdk.chat.completions.create(model="auto", messages=HELLO, stream=True)
    next(iter(stream))
    stream.close()
    assert lab.primary.wait_for(CHAT).gone.wait(5)


def test_many_clients_at_once_get_their_own_answers(lab: Lab, sdk: openai.OpenAI) -> None:
    lab.primary.on(CHAT, lambda request: says(request.body["messages"][-1]["content"], gap=0.01)(request))
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        stream = sdk.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": f"number {number}"}], stream=bool(number % 2)
        )
        if number % 2:
            answers[number] = "".join(part.choices[0].delta.content or "" for part in stream)
        else:
            answers[number] = stream.choices[0].message.content

    threads = [threading.Thread(target=ask, args=[number]) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"number {number}" for number in range(32)}


def test_reasoning_is_kept(lab: Lab, sdk: openai.OpenAI) -> None:
    lab.primary.on(CHAT, Plain(completion("42", reasoning="6 * 7", reasoning_content="older")))
    message = sdk.chat.completions.create(model="auto", messages=HELLO).choices[0].message
    assert (message.model_extra or {})["reasoning"] == "6 * 7"
    assert (message.model_extra or {})["reasoning_content"] == "older"


@pytest.mark.parametrize("model", ["auto", "primary", "gpt-4o", "claude-haiku-5.5"])
def test_a_model_that_may_be_asked_can_be_retrieved(sdk: openai.OpenAI, model: str) -> None:
    assert sdk.models.retrieve(model).id == model
