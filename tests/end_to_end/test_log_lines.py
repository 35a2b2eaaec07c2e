"""The log lines of the contract, whole lines in exactly their shapes."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest

from tests.end_to_end.conftest import XAI_KEY, Lab
from tests.fakes.personas import CHAT, SEARCH, classifies, says
from tests.fakes.router import eventually, running_router
from tests.fakes.upstream import FakeUpstream, Plain


def test_a_plain_primary_request(lab: Lab) -> None:
    session = lab.router.chat("hello")[1]["x-session-id"]
    log = lab.router.wait_for_log
    log(r"Incoming request: messages=1 total_chars=5 stream=False")
    log(r"Classification completed: MODERATE -> primary in \d+ms \(finish_reason=length\)")
    log(r"Provider response: primary status=200 duration_ms=\d+ finish_reason=stop stream=false speculative=true")
    log(rf"REQUEST session={session} route=primary classification_ms=\d+ inference_ms=\d+ total_ms=\d+ stream=False")
    log(rf"Session saved: {session} write_ms=\d+ cleanup_ms=\d+")


def test_a_streamed_primary_request(lab: Lab) -> None:
    session = lab.router.chat("streamed!", stream=True)[1]["x-session-id"]
    log = lab.router.wait_for_log
    log(r"Incoming request: messages=1 total_chars=9 stream=True")
    log(r"Provider response: primary status=200 connect_ms=\d+ ttft_ms=\d+ stream=true speculative=true")
    log(
        rf"REQUEST session={session} route=primary classification_ms=\d+ inference_ms=\d+ total_ms=\d+ stream=True"
        r" ttft_ms=\d+"
    )


def test_an_xai_request(lab: Lab) -> None:
    lab.classifier.on(CHAT, classifies("COMPLEX"))
    session = lab.router.chat()[1]["x-session-id"]
    log = lab.router.wait_for_log
    log(r"Classification completed: COMPLEX -> xai in \d+ms \(finish_reason=length\)")
    log(r"Cancelled speculative primary \(route=xai\)")
    log(r"Provider response: xai status=200 duration_ms=\d+ finish_reason=stop stream=false")
    log(rf"REQUEST session={session} route=xai classification_ms=\d+ inference_ms=\d+ total_ms=\d+ stream=False")


def test_an_enrich_request(lab: Lab) -> None:
    lab.classifier.on(CHAT, classifies("ENRICH"))
    session = lab.router.chat()[1]["x-session-id"]
    log = lab.router.wait_for_log
    log(r"Enrichment context retrieved: \d+ chars in \d+ms")
    log(r"Provider response: primary status=200 duration_ms=\d+ finish_reason=stop stream=false")
    log(
        rf"REQUEST session={session} route=enrich classification_ms=\d+ enrichment_ms=\d+ inference_ms=\d+ total_ms=\d+"
        r" stream=False"
    )


def test_a_meta_request_has_no_classification_in_it(lab: Lab) -> None:
    session = lab.router.chat(headers={"x-task": "tags_generation"})[1]["x-session-id"]
    lab.router.wait_for_log(rf"REQUEST session={session} route=meta inference_ms=\d+ total_ms=\d+ stream=False")


def test_a_health_check(lab: Lab) -> None:
    def asked() -> bool:
        lab.router.get("/health")
        return any(re.fullmatch(r"Health check: status=healthy duration_ms=\d+", line) for line in lab.router.log())

    assert eventually(asked), "a report that /metrics had taken a moment ago is repeated, and not told again"


def test_every_line_of_a_session_is_one_line_and_holds_no_key(lab: Lab) -> None:
    lab.primary.on(CHAT, Plain({"error": {"message": f"line one\nREQUEST session=forged {XAI_KEY[:4]}"}}, status=500))
    lab.xai.on(SEARCH, Plain({}, status=500))
    session = lab.router.chat()[1]["x-session-id"]
    lab.router.wait_for_log(rf"REQUEST session={session} .*")
    assert not [line for line in lab.router.log() if line.startswith("REQUEST session=forged")]
    everything = "\n".join(lab.router.log()) + orjson.dumps(lab.router.session(session)).decode()
    assert XAI_KEY not in everything


@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
def test_a_provider_that_echoes_the_key_does_not_spread_it(lab: Lab, status: int) -> None:
    echo = Plain({"error": {"message": f"Token {XAI_KEY} is bad: Bearer {XAI_KEY}"}}, status=status)
    for path in (CHAT, SEARCH, "/v1/models"):
        lab.xai.on(path, echo)
    lab.primary.on(CHAT, Plain({}, status=500))
    answers = [lab.router.chat(model=model) for model in ("xai", "xai/grok-4.7", "enrich")]
    answers.append(lab.router.get("/health"))
    for _, headers, body in answers:
        assert XAI_KEY not in str(headers) + body.decode()


def test_no_key_is_in_any_file_that_the_router_wrote(lab: Lab) -> None:
    lab.router.chat(model="xai")
    lab.router.wait_for_log(r"Provider response: xai .*")
    for path in lab.router.data.rglob("*"):
        if path.is_file():
            assert XAI_KEY.encode() not in path.read_bytes()


def test_a_quick_request_is_not_called_slow(lab: Lab) -> None:
    """A slow one's line is tested in tests/telemetry/test_log_lines.py: the limits are seconds away."""
    session = lab.router.chat()[1]["x-session-id"]
    lab.router.wait_for_log(rf"REQUEST session={session} .*")
    assert not [line for line in lab.router.log() if line.startswith("SLOW_REQUEST")]


def test_timestamps_can_be_switched_on(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.on(CHAT, says("x"))
    with running_router(tmp_path, PRIMARY_URL=upstream.url, LOG_TIMESTAMPS="on") as router:
        router.chat()
        router.wait_for_log(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO Incoming request: messages=1 .*")
