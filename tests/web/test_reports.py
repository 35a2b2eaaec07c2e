"""A few look-ups at a time, and none for ever."""

from __future__ import annotations

import threading

import pytest

from ai_router.errors import Overloaded, StoreUnavailable
from ai_router.web.reports import Lookups


def test_what_the_database_says_is_what_is_returned_and_what_it_raises_is_raised() -> None:
    lookups = Lookups()
    assert lookups.of_database(lambda: 3) == 3

    def fails() -> int:
        raise StoreUnavailable("gone")

    with pytest.raises(StoreUnavailable) as caught:
        lookups.of_database(fails)
    assert caught.value.detail == "gone"


def test_there_are_only_so_many_places() -> None:
    lookups = Lookups(at_once=1)
    with lookups.place(), pytest.raises(Overloaded), lookups.place():
        pass
    with lookups.place():
        pass


def test_a_database_that_hangs_is_not_waited_for_and_keeps_its_place_until_it_ends() -> None:
    lookups, hanging = Lookups(at_once=1, patience_s=0.01), threading.Event()
    with pytest.raises(StoreUnavailable):
        lookups.of_database(lambda: hanging.wait(30))
    with pytest.raises(Overloaded):
        lookups.of_database(lambda: 1)
    hanging.set()
    for thread in threading.enumerate():
        if thread.name == "look-up":
            thread.join(10)
    with lookups.place():
        pass
