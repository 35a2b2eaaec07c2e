"""META_PRIORITY: a chat UI's own jobs are served after what people wait for, by a vLLM that knows priorities."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from tests.end_to_end.conftest import XAI_KEY, Lab, well_behaved
from tests.end_to_end.test_open_webui_feedback import TITLE_JOB
from tests.fakes.personas import CHAT, anew, says
from tests.fakes.router import running_router
from tests.fakes.upstream import Plain, Recorded, Reply, fake_upstream

REFUSAL = "Got priority 100 but Priority scheduling is not enabled."
"""What vLLM says that was started without --scheduling-policy priority."""


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with fake_upstream() as classifier, fake_upstream() as primary, fake_upstream() as xai:
        well_behaved(classifier, primary, xai)
        folder = tmp_path_factory.mktemp("priority")
        (folder / "catalogue.toml").write_text('[chains]\nmeta = ["primary", "xai"]\n')
        settings = {
            "PRIMARY_URL": primary.url,
            "XAI_API_URL": xai.url,
            "XAI_API_KEY": XAI_KEY,
            "CATALOGUE_FILE": str(folder / "catalogue.toml"),
            "META_PRIORITY": "100",
            "BACKOFF_S": "0.02",
        }
        with running_router(folder, **settings) as router:
            yield Lab(classifier, primary, xai, router)


def without_priorities(request: Recorded) -> Reply:
    if "priority" in request.body:
        return Plain({"error": {"message": REFUSAL, "type": "BadRequestError", "code": 400}}, status=400)
    return says("A title")(request)


def priorities(lab: Lab) -> list[int | None]:
    return [call.body.get("priority") for call in lab.primary.calls(CHAT)]


def test_a_title_is_served_later_and_an_answer_as_ever(lab: Lab) -> None:
    assert lab.router.chat(TITLE_JOB)[1]["x-router-route"] == "meta"
    lab.router.chat(anew(), model="primary")
    assert priorities(lab) == [100, None]


def test_a_client_that_names_one_keeps_it(lab: Lab) -> None:
    lab.router.chat(TITLE_JOB, priority=7)
    assert priorities(lab) == [7]


@pytest.mark.parametrize("stream", [True, False])
def test_a_server_without_priorities_is_asked_again_without_and_told_none_any_more(lab: Lab, *, stream: bool) -> None:
    lab.primary.on(CHAT, without_priorities)
    for _ in range(2):
        status, headers, body = lab.router.chat(TITLE_JOB, stream=stream)
        assert (status, headers["x-router-route"], b"A title" in body) == (200, "meta", True)
    assert priorities(lab) == [100, None, None]
    assert not lab.xai.calls(CHAT)
    lab.router.wait_for_log("primary takes no priorities, and is told none any more: .*")


def test_a_refusal_of_something_else_is_passed_on(lab: Lab) -> None:
    lab.primary.on(CHAT, Plain({"error": {"message": "no such field: banana", "code": 400}}, status=400))
    status, _, body = lab.router.chat(TITLE_JOB)
    assert (status, "banana" in orjson.loads(body)["error"]["message"]) == (400, True)
    assert priorities(lab) == [100]


def test_a_cloud_that_stands_in_is_told_none(lab: Lab) -> None:
    lab.primary.on(CHAT, Plain({"error": "boom"}, status=500))
    assert lab.router.chat(TITLE_JOB)[0] == 200
    assert "priority" not in lab.xai.calls(CHAT)[-1].body
