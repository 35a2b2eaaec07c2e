"""What pages that show what happens are sent."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import orjson
import pytest

from ai_router.console.live import MAX_READERS_OF_ONE, LivePart, LiveView
from ai_router.errors import Overloaded, ShuttingDown, StoreUnavailable
from tests.fakes.router import eventually


class Reader:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def send(self, event: bytes) -> None:
        self.events.put(event)

    def end(self) -> None:
        self.events.put(b"")

    def next(self) -> tuple[str, object]:
        name, data, *_ = self.events.get(timeout=10).decode().splitlines()
        return name.removeprefix("event: "), orjson.loads(data.removeprefix("data: "))


class Source:
    """A part whose value a test sets. ``looked``: released for each look."""

    def __init__(self) -> None:
        self.value: object = 1
        self.looked = threading.Semaphore(0)
        self.asked_for: list[str | None] = []

    def read(self, sees: str | None) -> object:
        self.asked_for.append(sees)
        self.looked.release()
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    def looks(self, count: int = 2) -> None:
        """Wait until it has been looked at that often from now on."""
        while self.looked.acquire(blocking=False):
            pass
        for _ in range(count):
            assert self.looked.acquire(timeout=10)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def view(source: Source) -> Iterator[LiveView]:
    view = LiveView([LivePart("part", 0.005, source.read)])
    yield view
    view.close()


def test_a_reader_gets_what_is_and_then_what_changes(view: LiveView, source: Source) -> None:
    reader = Reader()
    view.join(reader, None)
    assert reader.next() == ("part", 1)
    source.looks()
    source.value = 2
    assert reader.next() == ("part", 2)
    assert reader.events.empty()


def test_one_that_comes_later_gets_what_is_known_at_once(view: LiveView, source: Source) -> None:
    first, second = Reader(), Reader()
    view.join(first, None)
    first.next()
    view.join(second, None)
    assert second.next() == ("part", 1)


def test_each_client_is_sent_its_own(view: LiveView, source: Source) -> None:
    one, admin = Reader(), Reader()
    view.join(one, "key-1")
    view.join(admin, None)
    assert one.next() == admin.next() == ("part", 1)
    assert set(source.asked_for) == {"key-1", None}


def test_nobody_looks_where_nobody_watches(view: LiveView, source: Source) -> None:
    leave = view.join(Reader(), None)
    source.looks()
    leave()
    assert eventually(lambda: not any(thread.name == "live-part" for thread in threading.enumerate()))


def test_who_comes_back_is_sent_what_is_then(view: LiveView, source: Source) -> None:
    view.join(Reader(), None)()
    assert eventually(lambda: not any(thread.name == "live-part" for thread in threading.enumerate()))
    source.value = 3
    reader = Reader()
    view.join(reader, None)
    assert reader.next() == ("part", 3)


def test_who_comes_back_among_others_is_not_sent_what_was(view: LiveView, source: Source) -> None:
    view.join(Reader(), None)
    one = Reader()
    leave = view.join(one, "key-1")
    assert one.next() == ("part", 1)
    leave()
    source.looks(4)
    source.value = 2
    again = Reader()
    view.join(again, "key-1")
    assert again.next() == ("part", 2)


def test_when_it_is_closed_readers_are_told_and_no_more_are_taken(view: LiveView) -> None:
    reader = Reader()
    view.join(reader, None)
    reader.next()
    view.close()
    assert reader.events.get(timeout=10) == b""
    with pytest.raises(ShuttingDown):
        view.join(Reader(), None)


def test_one_client_cannot_take_all_connections(view: LiveView) -> None:
    for _ in range(MAX_READERS_OF_ONE):
        view.join(Reader(), "key-1")
    with pytest.raises(Overloaded):
        view.join(Reader(), "key-1")
    view.join(Reader(), "key-2")


def test_a_part_that_cannot_be_read_says_so_and_goes_on(view: LiveView, source: Source) -> None:
    source.value = StoreUnavailable("down", "the database does not answer")
    reader = Reader()
    view.join(reader, None)
    name, told = reader.next()
    assert (name, told) == ("part", {"error": "the database does not answer"})
    source.value = 4
    assert reader.next() == ("part", 4)


def test_a_defect_of_ours_is_no_end_either(view: LiveView, source: Source) -> None:
    source.value = KeyError("defect")
    reader = Reader()
    view.join(reader, None)
    assert reader.next() == ("part", {"error": "see the log"})
    source.value = 5
    assert reader.next() == ("part", 5)
