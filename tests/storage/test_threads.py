"""Threads in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_router.storage.lazy_store import lazy_threads
from ai_router.storage.thread_rows import COMPLETE, INTERRUPTED, LEASE_S, STREAMING, Owner, ThreadNotFound
from ai_router.storage.threads import ThreadStore

MINE = Owner("org", "key-1")
SAID = {"role": "user", "content": "hello \U0001f600", "status": COMPLETE}
BEGUN = {"role": "assistant", "content": "", "status": STREAMING, "owner": "process"}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database: str, clock: Clock) -> Iterator[ThreadStore]:
    store = ThreadStore(database, clock)
    yield store
    store.close()


def thread(store: ThreadStore, owner: Owner = MINE) -> str:
    return str(store.create(owner.organization, owner.client or "")["id"])


def test_a_thread_is_there_for_its_owner_only(store: ThreadStore) -> None:
    made = thread(store)
    for owner in (MINE, Owner("org", None)):
        assert store.get(owner, made)["id"] == made
    for owner in (Owner("org", "key-2"), Owner("other", "key-1"), Owner("other", None)):
        assert store.page(owner, 10, None) == []
        with pytest.raises(ThreadNotFound):
            store.get(owner, made)
        with pytest.raises(ThreadNotFound):
            store.rename(owner, made, "theirs")
        with pytest.raises(ThreadNotFound):
            store.delete(owner, made)


def test_the_thread_that_was_used_last_is_the_first_of_a_page(store: ThreadStore, clock: Clock) -> None:
    made = []
    for _ in range(3):
        clock.now += 1
        made.append(thread(store))
    clock.now += 1
    store.add(made[0], SAID)
    page = store.page(MINE, 2, None)
    assert [row["id"] for row in page] == [made[0], made[2]]
    assert [row["id"] for row in store.page(MINE, 2, page[-1]["updated_at"])] == [made[1]]


def test_messages_come_back_in_their_order_and_by_pages(store: ThreadStore) -> None:
    made = thread(store)
    for number in range(5):
        store.add(made, {**SAID, "content": str(number)})
    assert [row["content"] for row in store.messages(made)] == list("01234")
    last = store.messages(made, limit=2)
    assert [row["content"] for row in last] == ["3", "4"]
    assert [row["content"] for row in store.messages(made, 2, last[0]["position"])] == ["1", "2"]


def test_a_message_is_finished_once(store: ThreadStore) -> None:
    made = thread(store)
    asked, begun = store.add(made, SAID, {**BEGUN, "lease_until": store.lease()})
    assert (asked["finished_at"], begun["finished_at"]) == (1000.0, None)
    store.finish(begun["id"], {"status": COMPLETE, "content": "hi", "details": {"cost_usd": None, "route": "primary"}})
    store.finish(begun["id"], {"status": "error", "content": "late"})
    kept = store.message(made, begun["id"])
    assert (kept["status"], kept["content"], kept["owner"], kept["finished_at"]) == (COMPLETE, "hi", None, 1000.0)
    assert kept["details"] == {"cost_usd": None, "route": "primary"}


def test_a_message_whose_lease_has_expired_is_interrupted_and_one_that_is_renewed_is_not(
    store: ThreadStore, clock: Clock
) -> None:
    made = thread(store)
    (begun,) = store.add(made, {**BEGUN, "lease_until": store.lease()})
    for _ in range(3):
        clock.now += LEASE_S - 1
        assert store.message(made, begun["id"])["status"] == STREAMING
        store.renew("process")
        store.renew("another")
    clock.now += LEASE_S + 1
    assert store.messages(made)[0]["status"] == INTERRUPTED
    store.finish(begun["id"], {"status": COMPLETE, "content": "too late"})
    assert store.message(made, begun["id"])["status"] == INTERRUPTED


def test_texts_may_have_a_nul_in_them(store: ThreadStore) -> None:
    made = thread(store)
    asked, begun = store.add(made, {**SAID, "content": "a\x00b"}, {**BEGUN, "lease_until": store.lease()})
    store.finish(begun["id"], {"status": "error", "content": "\x00", "error": {"message": "a\x00b"}})
    assert store.message(made, asked["id"])["content"] == "a\ufffdb"
    assert store.message(made, begun["id"])["content"] == "\ufffd"


def test_a_deleted_thread_takes_its_messages_along(store: ThreadStore) -> None:
    made, other = thread(store), thread(store)
    store.add(made, SAID)
    store.add(other, SAID)
    store.delete(MINE, made)
    assert (store.messages(made), len(store.messages(other))) == ([], 1)


def test_a_nameless_thread_gets_a_title_once(store: ThreadStore) -> None:
    made = thread(store)
    store.name_if_nameless(made, "first " + "x" * 300)
    store.name_if_nameless(made, "second")
    assert store.get(MINE, made)["title"].startswith("first x")
    assert len(store.get(MINE, made)["title"]) == 200


def test_the_store_is_opened_anew_where_its_file_is_gone_or_broken(tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    threads = lazy_threads(f"sqlite:///{path}")
    made = thread(threads.store())
    assert threads.store() is threads.store()
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"usage.db{end}").unlink(missing_ok=True)
    with pytest.raises(ThreadNotFound):
        threads.store().get(MINE, made)
    threads.close()
    path.write_bytes(b"no database" * 1000)
    assert thread(threads.store())
    assert list(tmp_path.glob("usage.db.broken-*"))
    threads.close()


def test_a_deleted_thread_gets_no_message_any_more(store: ThreadStore) -> None:
    gone = thread(store)
    store.delete(MINE, gone)
    with pytest.raises(ThreadNotFound):
        store.add(gone, SAID)
    assert store.messages(gone) == []


def test_a_message_gives_way_with_all_behind_it(store: ThreadStore) -> None:
    made = thread(store)
    first, second, third = (store.add(made, {**SAID, "content": text})[0] for text in ("one", "two", "three"))
    store.add(made, {**SAID, "content": "another two"}, replaces=second["position"])
    assert [row["content"] for row in store.messages(made)] == ["one", "another two"]
    assert {first["id"], third["id"]}.isdisjoint({store.messages(made)[-1]["id"]})
