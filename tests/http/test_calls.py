"""Calls and scopes: aborting from another thread, at any moment."""

from __future__ import annotations

import socket
import threading

import pytest

from ai_router.errors import ClientGone, SpeculationLost
from ai_router.http.calls import CancelScope, UpstreamCall


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def test_an_abort_wakes_a_blocked_read(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    call, woken = UpstreamCall(), threading.Event()
    call.hold_socket(ours, reused=False)
    reader = threading.Thread(target=lambda: (ours.recv(1), woken.set()))
    reader.start()
    call.abort(ClientGone())
    assert woken.wait(5)
    assert theirs.recv(1) == b"", "the peer must see the end"
    reader.join()


def test_a_call_aborted_before_it_has_a_socket_shuts_the_one_it_gets(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    call = UpstreamCall()
    call.abort(ClientGone())
    with pytest.raises(ClientGone):
        call.hold_socket(ours, reused=False)
    assert theirs.recv(1) == b""


def test_a_detached_socket_is_safe_from_a_late_abort(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    call = UpstreamCall()
    call.hold_socket(ours, reused=False)
    assert call.release_socket()
    call.abort(ClientGone())
    ours.send(b"x")
    assert theirs.recv(1) == b"x"


def test_a_socket_that_was_shut_is_reported_useless_on_detach(pair: tuple[socket.socket, socket.socket]) -> None:
    call = UpstreamCall()
    call.hold_socket(pair[0], reused=False)
    call.abort(ClientGone())
    assert not call.release_socket()


def test_the_first_reason_stays() -> None:
    call = UpstreamCall()
    call.abort(SpeculationLost("first"))
    call.abort(ClientGone())
    with pytest.raises(SpeculationLost):
        call.raise_if_aborted()


def test_a_scope_aborts_its_calls_and_all_later_ones() -> None:
    scope = CancelScope()
    before = scope.new_call()
    scope.abort(ClientGone())
    assert isinstance(before.reason, ClientGone)
    assert isinstance(scope.new_call().reason, ClientGone)
