"""Rerank, audio and images: passed on to whom the catalogue names."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import orjson
import pytest

from tests.fakes.router import RunningRouter, eventually, running_router
from tests.fakes.upstream import FakeUpstream, Plain, Stream, fake_upstream

SPEECH, TEXT = "/v1/audio/speech", "/v1/audio/transcriptions"
KEY = "openai-key-0123456789"


@pytest.fixture(scope="module")
def cloud() -> Iterator[FakeUpstream]:
    with fake_upstream() as fake:
        fake.on(SPEECH, Plain(raw=b"RIFF" * 50_000, content_type="audio/wav"))
        fake.on(TEXT, Plain({"text": "hello"}))
        yield fake


@pytest.fixture(scope="module")
def router(cloud: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    folder = tmp_path_factory.mktemp("doors")
    (folder / "mine.toml").write_text('[doors]\naudio = "openai"\nrerank = "primary"\nimages = "gemini"\n')
    settings = {"OPENAI_API_URL": cloud.url, "OPENAI_API_KEY": KEY, "CATALOGUE_FILE": str(folder / "mine.toml")}
    with running_router(folder, PRIMARY_URL=cloud.url, MAX_BODY_MB="1", **settings) as router:
        yield router


@pytest.fixture
def sdk(router: RunningRouter) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{router.url}/v1", api_key="a-client-s-own", max_retries=0) as client:
        yield client


def test_a_body_of_any_kind_goes_out_with_the_providers_key(sdk: openai.OpenAI, cloud: FakeUpstream) -> None:
    words = b"RIFF" + bytes(range(256)) * 100
    assert sdk.audio.transcriptions.create(model="whisper-1", file=("a.wav", words)).text == "hello"
    sent = cloud.calls(TEXT)[-1]
    assert sent.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert words in sent.raw_body


def test_an_answer_of_any_kind_comes_back(sdk: openai.OpenAI) -> None:
    with sdk.audio.speech.with_streaming_response.create(model="tts-1", voice="alloy", input="hi") as answer:
        assert answer.headers["content-type"] == "audio/wav"
        assert answer.headers["x-router-route"] == "openai"
        assert answer.read() == b"RIFF" * 50_000


def test_it_is_told_what_left(router: RunningRouter, sdk: openai.OpenAI) -> None:
    sdk.audio.transcriptions.create(model="whisper-1", file=("a.wav", b"RIFF"))
    left = eventually(lambda: orjson.loads(router.get("/api/egress")[2])["data"])
    assert (left[0]["backend"], left[0]["model"]) == ("openai", "audio")
    assert left[0]["bytes_sent"] > 0


def test_where_nobody_is_named_it_is_501_that_says_what_to_write(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        sdk.images.generate(model="x", prompt="a cat")
    assert (caught.value.status_code, caught.value.code) == (501, "not_set_up")
    assert 'images = "<provider>" under [doors]' in str(caught.value)


def test_an_error_of_the_provider_is_told_in_the_envelope(sdk: openai.OpenAI, cloud: FakeUpstream) -> None:
    cloud.on(SPEECH, Plain({"error": {"message": "no such voice", "param": "voice"}}, status=400))
    with pytest.raises(openai.BadRequestError, match="no such voice") as caught:
        sdk.audio.speech.create(model="tts-1", voice="nobody", input="hi")
    assert caught.value.param == "voice"


def test_half_an_answer_never_ends_like_a_whole_one(router: RunningRouter, cloud: FakeUpstream) -> None:
    cloud.on("/v1/rerank", Stream([b'{"results": ['], ending="reset", content_type="application/json"))
    connection = router.connection()
    connection.request("POST", "/v1/rerank", b'{"query": "x", "documents": []}')
    response = connection.getresponse()
    with pytest.raises(Exception, match=r"IncompleteRead|reset") as caught:
        response.read()
    assert type(caught.value).__name__ in ("IncompleteRead", "ConnectionResetError")
    connection.close()


def test_a_body_that_is_too_large_is_413(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        sdk.audio.transcriptions.create(model="whisper-1", file=("a.wav", bytes(1_100_000)))
    assert caught.value.status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/v1/audio/%2e%2e/fine_tuning/jobs",
        "/v1/audio/../files",
        "/v1/audio/speech%3Fx=1",
        "/v1/audio/a%20HTTP/1.1%0dX-Evil:%201",
        "/v1/audio/%00",
        "/v1/audio/%ff",
        "/v1/audio/...",
    ],
)
def test_no_other_endpoint_of_the_provider_can_be_reached(
    router: RunningRouter, cloud: FakeUpstream, path: str
) -> None:
    before = len(cloud.requests)
    connection = router.connection()
    connection.request("POST", path, b"{}")
    assert connection.getresponse().status == 404
    connection.close()
    assert not [call for call in cloud.requests[before:] if call.method == "POST"]
