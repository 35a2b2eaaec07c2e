"""The paths that people write, and those that are meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_router.web.access import with_canonical_paths
from ai_router.web.paths import DEPLOYMENT, canonical_path, no_such_path


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("//v1//chat/completions/", "/v1/chat/completions"),
        ("/v1/models/", "/v1/models"),
        ("/models/xai/grok-4.7", "/v1/models/xai/grok-4.7"),
        ("/openai/v1/responses", "/v1/responses"),
        ("/openai/deployments/gpt-4o/chat/completions", "/v1/chat/completions"),
        ("/v1/health", "/health"),
        ("/health/", "/health"),
        ("/v1/api/tags", "/api/tags"),
        ("/api/threads/", "/api/threads"),
        ("/", "/"),
        ("/v1", "/v1"),
        ("/v1/", "/v1"),
        ("/nowhere", "/nowhere"),
    ],
)
def test_what_is_meant(asked: str, meant: str) -> None:
    assert canonical_path(asked)[0] == meant


@given(st.text(alphabet="/v1openaichtdmslr.", max_size=40).map(lambda text: "/" + text))
def test_what_is_meant_is_what_it_is_taken_for(path: str) -> None:
    meant, _ = canonical_path(path)
    assert canonical_path(meant) == (meant, "")
    assert meant.startswith("/")


def test_an_address_of_azures_names_the_model() -> None:
    seen = []

    def application(environ: dict[str, object], _start: object) -> list[bytes]:
        seen.append((environ["PATH_INFO"], environ.get(DEPLOYMENT)))
        return []

    app = with_canonical_paths(application)
    app({"PATH_INFO": "/openai/deployments/my-model/chat/completions"}, print)
    app({"PATH_INFO": "/v1/chat/completions"}, print)
    assert seen == [("/v1/chat/completions", "my-model"), ("/v1/chat/completions", None)]


def test_the_error_names_the_path_and_the_nearest_one() -> None:
    known = ["POST /v1/chat/completions", "GET /v1/models"]
    assert "there is no POST /v1/chat/completion here; did you mean POST /v1/chat/completions?" in str(
        no_such_path("POST", "/v1/chat/completion", known)
    )
    assert "did you mean" not in str(no_such_path("GET", "/wp-admin.php", known))
    assert len(str(no_such_path("GET", "/" + 5000 * "a", known))) < 400
