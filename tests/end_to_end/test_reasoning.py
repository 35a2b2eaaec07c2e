"""The reasoning mode: chosen, or fallen back to because the server does not honour constraints."""

from __future__ import annotations

import time
from pathlib import Path

from tests.fakes.personas import CHAT, chunk, classifies, ignores_constraints, says, thinking_then
from tests.fakes.router import running_router
from tests.fakes.upstream import FakeUpstream, Recorded, Stream, fake_upstream

_NEVER_PROBED = {"CLASSIFIER_MODE": "reasoning"}


def streamed(upstream: FakeUpstream) -> Recorded:
    """The classification, which is streamed in this mode, apart from the call that warmed the server up."""
    return next(call for call in upstream.calls(CHAT) if call.body.get("stream"))


def test_a_server_that_needs_no_probe_is_warmed_up_with_the_very_prompt(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, classifies("COMPLEX"))
    with fake_upstream() as primary:
        settings = {"ROUTER_URL": upstream.url, "PRIMARY_URL": primary.url, **_NEVER_PROBED}
        with running_router(tmp_path, **settings, FAST_ROUTING="off") as router:
            router.wait_for_log(r"Classifier warmed up: mode=reasoning in \d+ms")
            router.chat()
            warming, asked = upstream.calls(CHAT)[0].body, streamed(upstream).body
            assert warming["max_tokens"] == 1
            assert warming["messages"][0] == asked["messages"][0]
            assert upstream.calls(CHAT)[0].connection == streamed(upstream).connection, "kept alive"


def test_a_server_that_ignores_constraints_is_found_out_and_asked_to_reason(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    upstream.on(CHAT, ignores_constraints("COMPLEX"))
    with fake_upstream() as primary:
        primary.on(CHAT, says("primary"))
        with running_router(tmp_path, FAST_ROUTING="off", ROUTER_URL=upstream.url, PRIMARY_URL=primary.url) as router:
            _, headers, _ = router.chat()
            assert headers["x-router-decided-by"] == "classifier"
            assert headers["x-router-reason"].startswith("classifier: COMPLEX")
            assert headers["x-router-confidence"] == "unknown"
            stderr = (tmp_path / "stderr.txt").read_text()
            assert (
                "WARNING Classifier nvidia/Nemotron-Orchestrator-8B does not honour structured_outputs.choice" in stderr
            )
            asked = upstream.calls(CHAT)[-1]
            assert "structured_outputs" not in asked.body
            assert asked.gone.wait(5), "its stream was not left"


def test_the_answer_is_left_as_soon_as_the_word_stands(tmp_path: Path, upstream: FakeUpstream) -> None:
    # After the word, this classifier would go on chatting for 20 s.
    upstream.on(CHAT, Stream([*thinking_then("ENRICH"), *[chunk({"content": "x"})] * 100], gap=0.2))
    with fake_upstream() as primary:
        primary.on(CHAT, says("primary"))
        with running_router(
            tmp_path, FAST_ROUTING="off", ROUTER_URL=upstream.url, PRIMARY_URL=primary.url, **_NEVER_PROBED
        ) as router:
            router.chat()
            asked = streamed(upstream)
            assert asked.gone.wait(5)
            assert asked.disconnected_at is not None
            word_stood_at = asked.arrived_at + 4 * 0.2
            assert asked.disconnected_at - word_stood_at < 0.3
            router.wait_for_log(r"Classification completed: ENRICH -> enrich in \d+ms \(finish_reason=early\)")


def test_the_word_is_found_in_reasoning_when_content_is_null(tmp_path: Path, upstream: FakeUpstream) -> None:
    thinking = [chunk({"reasoning": "MODERATE? No: a proof. So COMPLEX."}), chunk({"content": None}, "length")]
    upstream.on(CHAT, Stream([*thinking, b"data: [DONE]\n\n"]))
    with fake_upstream() as primary:
        primary.on(CHAT, says("primary"))
        with running_router(
            tmp_path, FAST_ROUTING="off", ROUTER_URL=upstream.url, PRIMARY_URL=primary.url, **_NEVER_PROBED
        ) as router:
            assert router.chat()[1]["x-router-reason"].startswith("classifier: COMPLEX")
            router.wait_for_log(r"Classification completed: COMPLEX -> xai in \d+ms \(finish_reason=length\)")


def test_a_silent_classifier_means_the_default_route_at_its_deadline(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, Stream([chunk({"reasoning": "hm"})], ending="hang"))
    settings = {**_NEVER_PROBED, "CLASSIFIER_TIMEOUT_S": "0.5"}
    with fake_upstream() as primary:
        primary.on(CHAT, says("primary"))
        with running_router(
            tmp_path, FAST_ROUTING="off", ROUTER_URL=upstream.url, PRIMARY_URL=primary.url, **settings
        ) as router:
            _, headers, _ = router.chat()
            assert headers["x-router-decided-by"] == "default"
            assert "no complete answer within 0.5 s" in headers["x-router-reason"]
            assert streamed(upstream).gone.wait(5)


def test_a_classifier_whose_event_never_ends_means_the_default_route(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, Stream([b"data: " + b"x" * 65536] * 20, ending="hang"))
    with fake_upstream() as primary:
        primary.on(CHAT, says("primary"))
        with running_router(
            tmp_path, FAST_ROUTING="off", ROUTER_URL=upstream.url, PRIMARY_URL=primary.url, **_NEVER_PROBED
        ) as router:
            status, headers, _ = router.chat()
            assert (status, headers["x-router-decided-by"]) == (200, "default")
            assert "an event is longer than" in headers["x-router-reason"]


def test_a_classifier_that_comes_up_later_is_probed_then(tmp_path: Path) -> None:
    with fake_upstream() as primary, fake_upstream() as gone:
        url = gone.url
        gone.close()
        primary.on(CHAT, says("primary"))
        with running_router(tmp_path, FAST_ROUTING="off", ROUTER_URL=url, PRIMARY_URL=primary.url) as router:
            started = time.monotonic()
            _, headers, _ = router.chat()
            assert headers["x-router-reason"].startswith("no decision from the classifier (connection refused)")
            assert time.monotonic() - started < 2, "a probe that failed must not hold up requests"


def test_classification_off_means_the_fast_path_decides(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, classifies("COMPLEX"))
    with fake_upstream() as primary:
        primary.on(CHAT, says("primary"))
        settings = {"ROUTER_URL": upstream.url, "PRIMARY_URL": primary.url, "CLASSIFIER_MODE": "off"}
        with running_router(tmp_path, **settings) as router:
            _, headers, _ = router.chat("prove that there are infinitely many primes")
            assert headers["x-router-decided-by"] == "fast"
            assert headers["x-router-reason"].startswith("fast path: reads like COMPLEX")
            assert router.chat("hello")[1]["x-router-route"] == "primary"
        assert not upstream.calls(CHAT)
