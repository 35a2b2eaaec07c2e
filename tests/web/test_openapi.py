"""docs/openapi.yaml against the routes, and what is served of it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ai_router import __version__
from ai_router.app import create_app
from ai_router.config_loading import load_settings
from ai_router.runtime import close_app
from ai_router.web.access import is_open
from scripts.openapi import PACKAGED, SOURCE, as_json
from tests.test_offered import spelled

METHODS = {"get", "post", "patch", "put", "delete"}
KEY = "a-key-of-the-test-1"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    environment = {"PRIMARY_URL": "http://127.0.0.1:9", "DATA_DIR": str(tmp_path_factory.mktemp("data"))}
    settings = load_settings({**environment, "TELEMETRY": "off", "AI_ROUTER_API_KEYS": KEY}, dotenv=None)
    app = create_app(settings)
    yield app
    close_app(app)


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    """The description, with the path items that it refers to in their places."""
    document = yaml.safe_load(SOURCE.read_text())
    document["paths"] = {path: followed(document, item) for path, item in document["paths"].items()}
    return document


def followed(document: dict[str, Any], item: Any) -> Any:
    while isinstance(item, dict) and "$ref" in item:
        found: Any = document
        for part in item["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        item = found
    return item


def operations(described: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, item in described["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    }


def test_what_is_served_is_the_page_as_json(app: Any) -> None:
    assert PACKAGED.read_bytes() == as_json(SOURCE.read_text()), "run 'make openapi'"
    answer = app.test_client().get("/openapi.json")
    assert (answer.status_code, answer.content_type, answer.data) == (200, "application/json", PACKAGED.read_bytes())


def test_who_has_it_already_is_not_sent_it_again(app: Any) -> None:
    etag = app.test_client().get("/openapi.json").headers["etag"]
    again = app.test_client().get("/openapi.json", headers={"if-none-match": etag})
    assert (again.status_code, again.data) == (304, b"")


def test_every_route_is_described_and_no_other(app: Any, described: dict[str, Any]) -> None:
    served = {
        f"{method} {spelled(rule.rule)}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert operations(described).keys() == served


def test_a_path_that_needs_no_key_is_described_so(described: dict[str, Any]) -> None:
    for name, operation in operations(described).items():
        assert is_open(name.partition(" ")[2]) == (operation.get("security") == []), name


def test_the_parameters_of_a_path_are_those_in_its_address(described: dict[str, Any]) -> None:
    for path, item in described["paths"].items():
        for method, operation in item.items():
            if method not in METHODS:
                continue
            listed = [
                followed(described, one) for one in (*item.get("parameters", ()), *operation.get("parameters", ()))
            ]
            in_path = {one["name"] for one in listed if one["in"] == "path"}
            assert in_path == {part.strip("{}") for part in path.split("/") if part.startswith("{")}, path


def test_the_version_is_the_packages(described: dict[str, Any]) -> None:
    assert described["info"]["version"] == __version__


def test_every_part_that_is_referred_to_is_there_and_used(described: dict[str, Any]) -> None:
    text = SOURCE.read_text()
    for kind, parts in described["components"].items():
        for name in parts if kind != "securitySchemes" else ():
            assert f'"#/components/{kind}/{name}"' in text, f"{kind}/{name} is not used"
    for line in text.splitlines():
        for reference in line.split('$ref: "')[1:]:
            followed(described, {"$ref": reference.partition('"')[0]})
