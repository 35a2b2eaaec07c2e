"""Values that all processes see, and what happens while the server is away."""

from __future__ import annotations

from ai_router.shared.start import ALONE
from tests.fakes.router import eventually
from tests.fakes.valkey import RunningValkey
from tests.shared.conftest import Join


def test_what_one_keeps_another_gets(join: Join) -> None:
    one, other = join(), join()
    one.values.put("kept", b"this", 60)
    one.values.flush()
    assert other.values.get(["kept", "unknown"]) == [b"this", None]


def test_a_deleted_value_is_gone(join: Join) -> None:
    one, other = join(), join()
    one.values.put("deleted", b"this", 60)
    one.values.delete("deleted")
    one.values.flush()
    assert other.values.get(["deleted"]) == [None]


def test_a_value_has_its_time_to_live(join: Join, valkey: RunningValkey) -> None:
    one = join()
    one.values.put("short", b"this", 90)
    one.values.flush()
    assert 80 < valkey.client().ttl("ai-router:short") <= 90


def test_alone_nobody_knows_anything() -> None:
    ALONE.values.put("kept", b"this", 60)
    assert ALONE.values.get(["kept"]) is None


def test_without_the_server_nobody_knows_and_it_is_found_again(join: Join, valkey: RunningValkey) -> None:
    one = join()
    valkey.stop()
    assert one.values.get(["kept"]) is None
    assert one.client is not None
    assert not one.client.works
    valkey.start()
    assert eventually(lambda: one.client.works)
    one.values.put("kept", b"again", 60)
    one.values.flush()
    assert one.values.get(["kept"]) == [b"again"]
