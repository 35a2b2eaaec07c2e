"""Servers that load models on demand: what is in memory is asked first, and nobody is put out in turn."""

from __future__ import annotations

from pathlib import Path

from tests.end_to_end.test_fast_path import UNCLEAR
from tests.fakes.ollama import CATALOGUE, FakeOllama
from tests.fakes.personas import CHAT, anew, classifies
from tests.fakes.router import eventually, running_router
from tests.fakes.upstream import fake_upstream

_WITHIN_S = 40.0
"""Servers are asked every two seconds."""


def test_the_model_that_is_in_memory_is_asked_first(tmp_path: Path) -> None:
    with fake_upstream() as one, fake_upstream() as other:
        big = FakeOllama(one, ["big"], 1)
        den = FakeOllama(other, ["small"], 1)
        den.load("small")
        catalogue = tmp_path / "catalogue.toml"
        catalogue.write_text(CATALOGUE.format(url=other.url))
        settings = {"PRIMARY_URL": one.url, "PRIMARY_MODEL": "big", "CATALOGUE_FILE": str(catalogue)}
        with running_router(tmp_path, **settings) as router:

            def headers() -> dict[str, str]:
                # Whoever asks the primary has its model loaded. It is put out again, as by another program.
                found: dict[str, str] = router.chat(anew("thanks"))[1]
                big.loaded.clear()
                return found

            found = eventually(lambda: found if (found := headers())["x-router-route"] == "den" else None, _WITHIN_S)
            assert found["x-router-model"] == "small"
            assert "primary's model is not in memory: den is asked" in found["x-router-reason"]


def test_classifier_and_primary_do_not_put_each_other_out_in_turn(tmp_path: Path) -> None:
    with fake_upstream() as upstream:
        server = FakeOllama(upstream, ["judge", "big"], 1)
        server.replies["judge"] = classifies("MODERATE")
        settings = {
            "PRIMARY_URL": upstream.url,
            "PRIMARY_MODEL": "big",
            "ROUTER_URL": upstream.url,
            "ROUTER_MODEL": "judge",
            "SHADOW_SHARE": "0",
            "SPECULATION": "off",
        }
        with running_router(tmp_path, **settings) as router:
            router.wait_for_log(r"Classifier probed: mode=constrained in \d+ms")
            router.wait_for_log("Fast path: the sentence vectors are loaded", timeout=30)
            reason = "not asked, its model and the primary's put each other out of memory"
            found = eventually(
                lambda: reason if reason in router.chat(anew(UNCLEAR))[1]["x-router-reason"] else None, _WITHIN_S
            )
            assert found
            router.wait_for_log("Classifier and primary put each other out of memory at .*")
            asked = len([call for call in upstream.calls(CHAT) if call.body["model"] == "judge"])
            assert router.chat(anew(UNCLEAR))[1]["x-router-decided-by"] != "classifier"
            assert len([call for call in upstream.calls(CHAT) if call.body["model"] == "judge"]) == asked
            assert server.loaded == ["big"]
