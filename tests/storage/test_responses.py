"""Answers of the Responses API, in SQLite and in PostgreSQL, and what keeps them."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from ai_router.errors import StoreUnavailable
from ai_router.storage import responses as responses_module
from ai_router.storage.kept_response import KeptResponse
from ai_router.storage.lazy_store import LazyStore
from ai_router.storage.response_keeper import ResponseKeeper, ResponseNotFound
from ai_router.storage.responses import ResponseStore


@pytest.fixture
def store(database: str) -> Iterator[ResponseStore]:
    store = ResponseStore(database)
    yield store
    store.close()


def kept(name: str = "resp_1", client: str = "key-1", previous: str | None = None) -> KeptResponse:
    turn = [{"role": "user", "content": f"input of {name} \U0001f600 \x00"}]
    answer = {"id": name, "output": [{"type": "message", "role": "assistant", "content": f"answer of {name}"}]}
    return KeptResponse(name, client, previous, orjson.dumps(turn), orjson.dumps(answer))


def test_what_was_added_is_found_by_its_client_only(store: ResponseStore) -> None:
    store.add(kept())
    assert store.get("resp_1", "key-1") == kept()
    assert store.get("resp_1", "key-2") is None
    assert not store.delete("resp_1", "key-2")
    assert store.delete("resp_1", "key-1")
    assert store.get("resp_1", "key-1") is None


def test_two_clients_may_have_the_same_id(store: ResponseStore) -> None:
    store.add(kept(client="key-1"))
    store.add(kept(client="key-2"))
    store.add(kept(client="key-2", previous="x"))
    assert store.get("resp_1", "key-1") == kept(client="key-1")
    assert store.get("resp_1", "key-2") == kept(client="key-2", previous="x")


def test_so_many_are_kept_and_for_so_long(store: ResponseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses_module, "MAX_ROWS", 3)
    for number in range(5):
        store.add(kept(f"r{number}"))
    assert [store.get(f"r{number}", "key-1") is not None for number in range(5)] == [False, False, True, True, True]
    later = responses_module.time.time() + responses_module.KEEP_S + 1
    monkeypatch.setattr(responses_module.time, "time", lambda: later)
    store.add(kept("new"))
    assert store.get("r4", "key-1") is None


def unavailable() -> ResponseStore:
    raise StoreUnavailable("the disk is full")


def test_the_conversation_is_put_together_from_the_oldest_turn_on(store: ResponseStore) -> None:
    keeper = ResponseKeeper(LazyStore(lambda: store))
    for name, previous in (("a", None), ("b", "a")):
        store.add(kept(name, previous=previous))
    payload, extra = keeper.continued({"input": "next", "previous_response_id": "b"}, "key-1")
    assert [str(item["content"]).split(" \U0001f600")[0] for item in payload["input"]] == [
        "input of a",
        "answer of a",
        "input of b",
        "answer of b",
        "next",
    ]
    assert extra["input"] == [{"type": "message", "role": "user", "content": "next"}]
    keeper.close()


def test_a_turn_that_is_missing_is_not_found() -> None:
    keeper = ResponseKeeper(None)
    with pytest.raises(ResponseNotFound) as caught:
        keeper.continued({"input": "next", "previous_response_id": "gone"}, "key-1")
    assert (caught.value.status, caught.value.param) == (404, "previous_response_id")
    keeper.close()


def test_a_database_that_is_down_is_said_to_be() -> None:
    keeper = ResponseKeeper(LazyStore(unavailable))
    with pytest.raises(StoreUnavailable):
        keeper.get("resp_1", "key-1")
    keeper.close()
