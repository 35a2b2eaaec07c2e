"""Keys: every endpoint but the open ones wants one, and the time of a refusal tells nothing."""

from __future__ import annotations

import hmac
from collections.abc import Iterator

import pytest
from flask import Flask

from ai_router.app import create_app
from ai_router.config_loading import load_settings
from ai_router.runtime import close_app
from ai_router.web.access import Keys, is_open

KEY = "a-key-of-the-test-1"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    environment = {"PRIMARY_URL": "http://127.0.0.1:9", "DATA_DIR": str(tmp_path_factory.mktemp("data"))}
    app = create_app(load_settings({**environment, "TELEMETRY": "off", "AI_ROUTER_API_KEYS": KEY}, dotenv=None))
    yield app
    close_app(app)


def test_every_endpoint_but_the_open_ones_refuses_whoever_shows_no_key(locked: Flask) -> None:
    client, refused = locked.test_client(), 0
    for rule in locked.url_map.iter_rules():
        path = rule.rule.replace("<", "").replace(">", "").replace("path:", "")
        for method in (rule.methods or set()) - {"OPTIONS"}:
            status = client.open(path, method=method, headers={"x-api-key": f"{KEY}2"}).status_code
            assert (status == 401) == (not is_open(path)), f"{method} {path}: {status}"
            refused += status == 401
    assert refused > 40


def test_all_keys_are_compared_in_constant_time_whichever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(shown: bytes, key: bytes) -> bool:
        compared.append(key)
        return shown == key

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys = Keys(["first-key-1", "second-key-2"], "admin-key-3")
    for shown in ("first-key-1", "admin-key-3", "nobodys"):
        compared.clear()
        keys.caller("", shown)
        assert compared == [b"first-key-1", b"second-key-2", b"admin-key-3"]
