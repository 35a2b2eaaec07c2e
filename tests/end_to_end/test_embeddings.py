"""Embeddings: who makes them, and that nobody else does when that one is down."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest

from tests.fakes.router import RunningRouter, running_router
from tests.fakes.upstream import FakeUpstream, Plain, fake_upstream

EMBEDDINGS = "/v1/embeddings"
NANO = "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-FP8"
LOCAL = "universal-sentence-encoder-multilingual-3"
VECTOR = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "theirs"}


@pytest.fixture(scope="module")
def primary() -> Iterator[FakeUpstream]:
    with fake_upstream() as fake:
        yield fake


@pytest.fixture(scope="module")
def router(primary: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRouter]:
    """Its primary makes none."""
    with running_router(tmp_path_factory.mktemp("vectors"), PRIMARY_URL=primary.url) as router:
        yield router


def ask(router: RunningRouter, path: str = EMBEDDINGS, **payload: Any) -> tuple[int, Any]:
    connection = router.connection()
    try:
        connection.request("POST", path, orjson.dumps(payload), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, orjson.loads(response.read())
    finally:
        connection.close()


def near(first: list[float], second: list[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


def test_what_means_the_same_is_near_whatever_its_language(router: RunningRouter) -> None:
    texts = ["A cat sits on the mat", "Ein Kater sitzt auf der Matte", "Stock markets fell sharply"]
    with openai.OpenAI(base_url=f"{router.url}/v1", api_key="x", max_retries=0) as sdk:
        made = sdk.embeddings.create(model="text-embedding-3-small", input=texts)
    cat, kater, markets = (entry.embedding for entry in made.data)
    assert made.model == LOCAL
    assert len(cat) == 512
    assert near(cat, cat) == pytest.approx(1, abs=1e-3)
    assert near(cat, kater) > 0.6
    assert near(cat, markets) < 0.3


def test_a_long_text_is_read_to_its_end(router: RunningRouter) -> None:
    beginning = "The harvest was good this year. " * 40
    with_end = beginning + "Quantum computers factor large numbers. " * 40
    _, made = ask(router, model="auto", input=[beginning, with_end])
    first, second = (entry["embedding"] for entry in made["data"])
    assert near(first, second) < 0.99


def test_both_encodings_say_the_same(router: RunningRouter) -> None:
    _, plain = ask(router, model="auto", input="hi", encoding_format="float")
    _, packed = ask(router, model="auto", input="hi", encoding_format="base64")
    unpacked = struct.unpack("<512f", base64.b64decode(packed["data"][0]["embedding"]))
    assert list(unpacked) == pytest.approx(plain["data"][0]["embedding"], abs=1e-6)


@pytest.mark.parametrize(
    ("payload", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [1, 2, 3]}, "input"),
        ({"input": ["x"] * 2_049}, "input"),
        ({"input": "x" * 200_001}, "input"),
        ({"input": "x", "dimensions": 64}, "dimensions"),
        ({"input": "x", "model": 5}, "model"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(router: RunningRouter, payload: dict[str, Any], param: str) -> None:
    status, body = ask(router, **payload)
    assert (status, body["error"]["param"]) == (400, param)


def test_ollamas_clients_get_theirs(router: RunningRouter) -> None:
    status, made = ask(router, "/api/embed", model="auto:latest", input=["a", "b"])
    assert (status, [len(vector) for vector in made["embeddings"]]) == (200, [512, 512])
    assert len(ask(router, "/api/embeddings", model="auto", prompt="a")[1]["embedding"]) == 512


def test_what_is_missing_is_told_by_the_name_that_its_client_knows(router: RunningRouter) -> None:
    for path, field in (("/api/embeddings", "prompt"), ("/api/embed", "input")):
        status, body = ask(router, path, model="auto")
        assert status == 400
        assert f"'{field}' is required" in str(body)


def test_the_primary_that_makes_none_is_asked_once(router: RunningRouter, primary: FakeUpstream) -> None:
    for _ in range(2):
        assert ask(router, model="auto", input="hi")[0] == 200
    assert len(primary.calls(EMBEDDINGS)) <= 1


def test_a_primary_that_makes_them_makes_them(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(EMBEDDINGS, Plain(VECTOR), Plain({"error": "down"}, status=503))
    with running_router(tmp_path, PRIMARY_URL=upstream.url, PRIMARY_MODEL="nano") as router:
        status, made = ask(router, model="auto", input=[1, 2, 3], dimensions=1)
        assert (status, made["model"]) == (200, "theirs")
        assert upstream.calls(EMBEDDINGS)[0].body == {"model": "nano", "input": [[1, 2, 3]], "dimensions": 1}
        # Vectors of another model would be worth nothing beside these.
        assert ask(router, model="auto", input="hi")[0] == 503


def test_a_server_of_ones_own_goes_before_all(tmp_path: Path, primary: FakeUpstream, upstream: FakeUpstream) -> None:
    upstream.on(EMBEDDINGS, Plain(VECTOR))
    upstream.on("/v1/models", Plain({"data": [{"id": "bge-m3"}]}))
    settings = {"PRIMARY_URL": primary.url, "EMBEDDINGS_URL": f"{upstream.url}/v1"}
    with running_router(tmp_path, **settings) as router:
        assert ask(router, model="auto", input="hi")[1]["model"] == "theirs"
        ask(router, model="my-model", input="hi")
        assert [call.body["model"] for call in upstream.calls(EMBEDDINGS)] == ["bge-m3", "my-model"]
        upstream.on(EMBEDDINGS, Plain({"detail": "Not Found"}, status=404))
        assert ask(router, model="my-model", input="hi")[0] == 404


@pytest.mark.parametrize("broken", [{"data": []}, {"data": [{}]}, {"data": None}, []])
def test_an_answer_without_vectors_is_a_failure_of_the_server(
    tmp_path: Path, upstream: FakeUpstream, broken: Any
) -> None:
    upstream.on(EMBEDDINGS, Plain(broken))
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        assert ask(router, model="auto", input="hi")[0] == 502
        told = {"error": f"primary ({NANO}): the answer holds no embeddings"}
        assert ask(router, "/api/embed", model="auto", input="hi") == (502, told)


def test_no_backend_is_sent_an_address_or_a_key_of_the_body(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(EMBEDDINGS, Plain(VECTOR))
    with running_router(tmp_path, PRIMARY_URL=upstream.url) as router:
        ask(router, model="auto", input="hi", api_base="http://evil", api_key="k", user="me")
    assert upstream.calls(EMBEDDINGS)[0].body == {"model": NANO, "input": ["hi"], "user": "me"}
