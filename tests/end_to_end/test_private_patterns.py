"""What is in a text keeps a request in the local network: PRIVATE_PATTERNS, and [private] of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from ai_router.config_values import PRIVATE_KINDS
from ai_router.routing.private_text import KINDS
from tests.end_to_end.conftest import XAI_KEY, Lab, well_behaved
from tests.end_to_end.test_local_only import DOORS, HARD, LIVE, assert_nothing_left, shadowed
from tests.fakes.personas import CHAT, SEARCH, anew
from tests.fakes.router import running_router
from tests.fakes.upstream import Plain, fake_upstream

CARD = "my card is 4111 1111 1111 1111"
CUSTOMER = "about K-123456"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("private")
    catalogue = folder / "catalogue.toml"
    catalogue.write_text("[private]\ncustomers = '\\bK-\\d{6}\\b'\n[doors]\nrerank = 'xai'\n")
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        settings = {
            "ROUTER_URL": classifier.url,
            "PRIMARY_URL": primary.url,
            "XAI_API_URL": xai.url,
            "XAI_API_KEY": XAI_KEY,
            "CATALOGUE_FILE": str(catalogue),
            "PRIVATE_PATTERNS": "card",
            "SHADOW_SHARE": "1",
        }
        well_behaved(classifier, primary, xai)
        with running_router(folder, **settings) as router:
            router.wait_for_log(r"Classifier probed: mode=constrained in \d+ms")
            yield Lab(classifier, primary, xai, router)


@pytest.fixture
def lab(shared: Lab) -> Lab:
    shared.reset()
    return shared


def post(lab: Lab, path: str, body: Any) -> tuple[int, dict[str, str], bytes]:
    return lab.router._exchange("POST", path, orjson.dumps(body), None)


@pytest.mark.parametrize("text", [CARD, CUSTOMER], ids=["a card", "an own pattern"])
@pytest.mark.parametrize("door", DOORS)
def test_what_is_private_stays_by_whatever_door(lab: Lab, door: str, text: str) -> None:
    status, _, body = post(lab, door, {**DOORS[door](f"{anew(HARD)}\n{text}\n"), "stream": False})
    assert status == 200, body
    assert_nothing_left(lab)


def test_the_answer_says_what_was_found_and_does_not_repeat_it(lab: Lab) -> None:
    _, headers, _ = lab.router.chat(f"{anew(LIVE)}, {CARD}")
    assert headers["x-router-reason"] == "local-only: it has a card number in it"
    assert headers["x-router-decided-by"] == "policy"
    _, headers, _ = lab.router.chat(f"{anew(LIVE)}, {CUSTOMER}")
    assert headers["x-router-reason"] == "local-only: it has what 'customers' looks for in it"
    assert not [line for line in lab.router.log() if "4111" in line or "K-123456" in line]


def test_a_conversation_stays_for_as_long_as_it_is_sent_along(lab: Lab) -> None:
    turns = [{"role": "user", "content": CARD}, {"role": "assistant", "content": "Noted."}]
    status, headers, _ = post(lab, CHAT, {"messages": [*turns, {"role": "user", "content": anew(HARD)}]})
    assert (status, headers["x-router-route"]) == (200, "primary")
    assert_nothing_left(lab)


def test_without_any_of_it_a_request_goes_where_it_is_decided(lab: Lab) -> None:
    assert lab.router.chat(anew(HARD))[1]["x-router-route"] == "xai"
    assert lab.router.chat(anew(LIVE))[1]["x-router-route"] == "enrich"
    assert lab.xai.calls(SEARCH)
    shadowed(lab, 2)


def test_a_body_that_is_passed_on_is_looked_into(lab: Lab) -> None:
    lab.xai.on("/v1/rerank", Plain({"results": []}))
    assert post(lab, "/v1/rerank", {"query": "hello"})[0] == 200
    lab.xai.requests.clear()
    for kind in ("application/json", "application/x-www-form-urlencoded", "application/vnd.x+json", "text/plain"):
        body = orjson.dumps({"query": f"hello\n{CARD}"})
        status, _, answer = lab.router._exchange("POST", "/v1/rerank", body, {"Content-Type": kind})
        assert (status, orjson.loads(answer)["error"]["code"]) == (403, "not_local"), kind
    form = f'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n{CARD}\r\n--x--\r\n'.encode()
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert lab.router._exchange("POST", "/v1/rerank", form, headers)[0] == 403
    assert_nothing_left(lab)


def test_the_setting_names_what_there_is() -> None:
    assert set(PRIVATE_KINDS) == set(KINDS)
