"""The Valkey that 'serve' starts for several workers on one machine."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest
from valkey import Valkey
from valkey.exceptions import ValkeyError

from ai_router.shared.own_server import OwnServer, start_own_server
from tests.fakes.router import eventually


def answers(server: OwnServer) -> bool:
    try:
        return bool(Valkey.from_url(server.url).ping())
    except ValkeyError:
        return False


def test_only_its_owner_can_reach_it(tmp_path: Path) -> None:
    server = start_own_server(tmp_path / "valkey.log")
    try:
        assert answers(server)
        socket = Path(server.url.removeprefix("unix://"))
        assert stat.S_IMODE(socket.stat().st_mode) == 0o700
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert Valkey.from_url(server.url, decode_responses=True).config_get("port") == {"port": "0"}
    finally:
        server.stop()


def test_its_folder_goes_with_it(tmp_path: Path) -> None:
    server = start_own_server(tmp_path / "valkey.log")
    folder = Path(server.url.removeprefix("unix://")).parent
    server.stop()
    assert not answers(server)
    assert not folder.exists()


def test_it_is_started_again_when_it_was_killed(tmp_path: Path) -> None:
    server = start_own_server(tmp_path / "valkey.log")
    try:
        pid = Valkey.from_url(server.url).info("server")["process_id"]
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: not answers(server) or Valkey.from_url(server.url).info()["process_id"] != pid)
        assert eventually(lambda: answers(server))
    finally:
        server.stop()


@pytest.mark.parametrize("setting", ["save", "appendonly"])
def test_it_keeps_nothing_on_disk(tmp_path: Path, setting: str) -> None:
    server = start_own_server(tmp_path / "valkey.log")
    try:
        assert list(Valkey.from_url(server.url, decode_responses=True).config_get(setting).values()) in (["no"], [""])
    finally:
        server.stop()
