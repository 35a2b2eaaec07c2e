"""A few look-ups at a time, and none for ever; a look-up right after the start."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from ai_router.dispatch.in_flight import RequestLimit
from ai_router.errors import Overloaded, StoreUnavailable
from ai_router.storage.usage import UsageStore
from ai_router.storage.usage_rows import SpillFile, rows_of
from ai_router.storage.usage_writer import UsageWriter
from ai_router.web import access
from ai_router.web.reports import Lookups, usage_blueprint
from ai_router.web.requests import Ids
from tests.outcomes import FREE, outcome


class SlowDatabase:
    """A database that opens when ``may_open`` is set."""

    def __init__(self, path: Path) -> None:
        self.opening, self.may_open = threading.Event(), threading.Event()
        self._url = f"sqlite:///{path}"

    def open(self) -> UsageStore:
        self.opening.set()
        self.may_open.wait(30)
        return UsageStore(self._url)


@contextmanager
def usage_client(database: SlowDatabase, folder: Path, lookups: Lookups) -> Iterator[FlaskClient]:
    """A client of an application that has just started, with one request counted; errors are raised in the test."""
    usage = UsageWriter(database.open, SpillFile(folder / "unsaved.jsonl"), keep_days=3650)
    usage.start()
    usage.put(rows_of(outcome(), FREE, lambda _: True))
    app = Flask(__name__)
    app.testing = True
    access.init_app(app, access.Keys(None), Ids(), RequestLimit(10), None)
    app.register_blueprint(usage_blueprint(usage, None, lambda: None, lookups))
    yield app.test_client()
    database.may_open.set()
    usage.close()


def test_usage_asked_for_right_after_the_start_is_told_when_the_database_is_open(tmp_path: Path) -> None:
    database = SlowDatabase(tmp_path / "usage.db")
    with usage_client(database, tmp_path, Lookups()) as client, ThreadPoolExecutor() as askers:
        asked = askers.submit(client.get, "/api/usage?from=2026-11-01&to=2026-11-30")
        assert database.opening.wait(10)
        assert not asked.done()
        database.may_open.set()
        response = asked.result(30)
        assert response.status_code == 200
        assert response.json["total"]["requests"] == 1


def test_usage_is_unavailable_if_the_database_takes_longer_to_open_than_a_look_up_may(tmp_path: Path) -> None:
    database = SlowDatabase(tmp_path / "usage.db")
    with usage_client(database, tmp_path, Lookups(timeout_s=0.01)) as client, pytest.raises(StoreUnavailable):
        client.get("/api/usage")


def test_what_the_database_says_is_what_is_returned_and_what_it_raises_is_raised() -> None:
    lookups = Lookups()
    assert lookups.query(lambda: 3) == 3

    def fails() -> int:
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable) as caught:
        lookups.query(fails)
    assert caught.value.detail == "gone"


def test_there_are_only_so_many_places() -> None:
    lookups = Lookups(limit=1)
    with lookups.slot(), pytest.raises(Overloaded), lookups.slot():
        pass
    with lookups.slot():
        pass


def test_a_database_that_hangs_is_not_waited_for_and_keeps_its_place_until_it_ends() -> None:
    lookups, hanging = Lookups(limit=1, timeout_s=0.01), threading.Event()
    with pytest.raises(StoreUnavailable):
        lookups.query(lambda: hanging.wait(30))
    with pytest.raises(Overloaded):
        lookups.query(lambda: 1)
    hanging.set()
    for thread in threading.enumerate():
        if thread.name == "look-up":
            thread.join(10)
    with lookups.slot():
        pass
