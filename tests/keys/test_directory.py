"""The keys as a process knows them: found by their secrets, gone when they are revoked, good while the database is
away for a while."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ai_router.errors import StoreUnavailable
from ai_router.keys.directory import REFRESH_S, STALE_S, KeyDirectory
from ai_router.storage.keys import KeyNotFound, KeyStore
from ai_router.storage.lazy_store import LazyStore
from ai_router.virtual_key import DEFAULT_ROUTES, KeyLimits, VirtualKey, new_id, new_secret
from tests.fakes.postgres import running_postgres
from tests.fakes.router import eventually


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_postgres(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("postgres") if request.param == "postgres" else f"sqlite:///{tmp_path / 'keys.db'}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[KeyStore]:
    store = KeyStore(url, clock)
    yield store
    store.close()


@pytest.fixture
def directory(store: KeyStore, clock: Clock) -> KeyDirectory:
    directory = KeyDirectory(LazyStore(lambda: store), clock, clock)
    directory._tried.set()
    directory.refresh()
    return directory


def add(store: KeyStore, **fields: object) -> tuple[VirtualKey, bytes]:
    key, secret = VirtualKey(new_id(), "a name", routes=DEFAULT_ROUTES, **fields), new_secret()  # type: ignore[arg-type]
    store.create(key, secret)
    return key, secret.encode()


def test_a_key_is_found_by_its_secret_with_all_that_it_may_do(store: KeyStore, directory: KeyDirectory) -> None:
    limits = KeyLimits(1, 2, 3, 4.5, 6.0)
    key, secret = add(store, organization="acme", user="anna", models=("openai/*",), limits=limits)
    directory.refresh()
    assert directory.find(secret) == key == directory.key(key.id)


def test_another_secret_is_nobodys(store: KeyStore, directory: KeyDirectory) -> None:
    add(store)
    directory.refresh()
    assert directory.find(new_secret().encode()) is None
    assert directory.find(b"something else") is None


def test_a_revoked_key_is_dead_and_cannot_be_changed(store: KeyStore, directory: KeyDirectory) -> None:
    key, secret = add(store)
    directory.refresh()
    store.revoke(key.id)
    directory.refresh()
    assert directory.find(secret) is None
    for change in (lambda: store.revoke(key.id), lambda: store.rotate(key.id, new_secret(), 0)):
        with pytest.raises(KeyNotFound):
            change()


def test_a_key_expires(store: KeyStore, directory: KeyDirectory, clock: Clock) -> None:
    _, secret = add(store, expires_at=clock.now + 10)
    directory.refresh()
    assert directory.find(secret) is not None
    clock.now += 10
    assert directory.find(secret) is None


def test_a_new_secret_takes_the_place_of_the_old_one_at_once_or_later(
    store: KeyStore, directory: KeyDirectory, clock: Clock
) -> None:
    key, first = add(store)
    second, third = new_secret(), new_secret()
    store.rotate(key.id, second, 0)
    directory.refresh()
    assert directory.find(first) is None
    assert directory.find(second.encode()) == key
    store.rotate(key.id, third, 20)
    directory.refresh()
    assert directory.find(second.encode()) == directory.find(third.encode()) == key
    clock.now += 20
    assert directory.find(second.encode()) is None
    assert directory.find(third.encode()) == key


def test_while_the_database_is_away_what_is_known_is_good_for_a_while(
    store: KeyStore, directory: KeyDirectory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, secret = add(store)
    directory.refresh()

    def away() -> tuple[int, int]:
        raise StoreUnavailable("away")

    monkeypatch.setattr(store, "version", away)
    clock.now += STALE_S
    with pytest.raises(StoreUnavailable):
        directory.refresh()
    assert directory.find(secret) == key
    clock.now += 1
    with pytest.raises(StoreUnavailable):
        directory.find(secret)
    # What cannot be a virtual key needs no database to be refused.
    assert directory.find(b"something else") is None
    monkeypatch.undo()
    directory.refresh()
    assert directory.find(secret) == key


def test_only_a_digest_of_the_secret_is_in_the_database(url: str, store: KeyStore) -> None:
    _, secret = add(store)
    with store.begin() as connection:
        rows = connection.exec_driver_sql("select * from keys").all()
    assert secret.decode() not in repr(rows)


def test_a_running_directory_hears_of_a_revoked_key_within_seconds(url: str, store: KeyStore) -> None:
    key, secret = add(store)
    directory = KeyDirectory(LazyStore(lambda: KeyStore(url)))
    directory.start()
    try:
        assert directory.find(secret) == key
        store.revoke(key.id)
        assert eventually(lambda: directory.find(secret) is None, 2 * REFRESH_S + 1)
    finally:
        directory.close()
