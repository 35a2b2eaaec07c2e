"""Waiting for many sockets at once: with epoll where there is one, else with what ``selectors`` finds.

The only module that knows what only Linux has (epoll, eventfd). Everything but ``wake`` belongs to one thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
from collections.abc import Sequence
from typing import Protocol

READ = 1
"""Bytes can be received, or the other end has closed."""
WRITE = 2
"""Bytes can be sent."""
CLOSED = 4
"""The other end has closed its sending half, or the connection is broken. Told once; watch again to be told again."""

Event = tuple[int, int]
"""A descriptor and what is so of it: READ, WRITE, CLOSED or several of them."""


class Poller(Protocol):
    """Sockets and what is waited for of each."""

    def watch(self, sock: socket.socket, interest: int) -> None:
        """Wait for this of ``sock`` from now on, and for nothing else of it; 0: for nothing."""

    def forget(self, sock: socket.socket) -> None:
        """Do not wait for ``sock`` any more. To be called before it is closed: its number may be another's then."""

    def poll(self, seconds: float) -> Sequence[Event]:
        """Wait until something is so, at most so long; empty also when woken."""

    def wake(self) -> None:
        """Let ``poll`` return at once. From any thread, and from a signal handler."""

    def close(self) -> None:
        """Give everything back."""


class EpollPoller:
    """With Linux's epoll and eventfd: the kernel tells a closed connection from one that has bytes to read."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._interests: dict[int, int] = {}
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, select.EPOLLIN)

    def watch(self, sock: socket.socket, interest: int) -> None:
        descriptor = sock.fileno()
        before = self._interests.get(descriptor)
        if before == interest:
            return
        self._interests[descriptor] = interest
        if before is None:
            self._epoll.register(descriptor, _epoll_events(interest))
        else:
            self._epoll.modify(descriptor, _epoll_events(interest))

    def forget(self, sock: socket.socket) -> None:
        if self._interests.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock.fileno())

    def poll(self, seconds: float) -> Sequence[Event]:
        found = []
        for descriptor, events in self._epoll.poll(seconds):
            if descriptor == self._wake:
                os.eventfd_read(self._wake)
                continue
            if events == _EPOLLIN:
                # By far the most frequent one. It is told only where it is waited for.
                found.append((descriptor, READ))
                continue
            interest = self._interests[descriptor]
            told = _events_of(events) & (interest | CLOSED)
            if told & CLOSED and not told & READ & interest:
                # A broken connection is reported for as long as it is registered at all.
                self._epoll.unregister(descriptor)
                del self._interests[descriptor]
            found.append((descriptor, told))
        return found

    def wake(self) -> None:
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        self._epoll.close()
        os.close(self._wake)


_EPOLLIN = getattr(select, "EPOLLIN", 0)


def _epoll_events(interest: int) -> int:
    events = 0
    if interest & READ:
        events |= select.EPOLLIN | select.EPOLLRDHUP
    if interest & WRITE:
        events |= select.EPOLLOUT
    if interest & CLOSED:
        events |= select.EPOLLRDHUP
    return events


def _events_of(events: int) -> int:
    found = 0
    if events & (select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
        found |= READ
    if events & (select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR):
        found |= WRITE
    if events & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
        found |= CLOSED
    return found


class SelectorPoller:
    """With ``selectors`` and a socket pair, for every other system.

    A closed connection looks readable there, so that it is found by peeking. Bytes that come while only CLOSED is
    waited for hide a close behind them: it is not told until they are read.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._interests: dict[int, tuple[socket.socket, int]] = {}
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def watch(self, sock: socket.socket, interest: int) -> None:
        descriptor = sock.fileno()
        before = self._interests.get(descriptor)
        if before is not None and before[1] == interest:
            return
        self._interests[descriptor] = (sock, interest)
        self._select(descriptor, interest)

    def forget(self, sock: socket.socket) -> None:
        if self._interests.pop(sock.fileno(), None) is not None:
            self._select(sock.fileno(), 0)

    def poll(self, seconds: float) -> Sequence[Event]:
        found = []
        for key, mask in self._selector.select(seconds):
            if key.fileobj is self._woken:
                with contextlib.suppress(BlockingIOError):
                    while self._woken.recv(4096):
                        pass
                continue
            if told := self._told(key.fd, mask):
                found.append((key.fd, told))
        return found

    def wake(self) -> None:
        # A full buffer wakes as well.
        with contextlib.suppress(BlockingIOError):
            self._waker.send(b"\0")

    def close(self) -> None:
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def _told(self, descriptor: int, mask: int) -> int:
        sock, interest = self._interests[descriptor]
        told = WRITE if mask & selectors.EVENT_WRITE and interest & WRITE else 0
        if mask & selectors.EVENT_READ:
            told |= READ & interest
            if interest & CLOSED and not told & READ:
                if _has_closed(sock):
                    told |= CLOSED
                    del self._interests[descriptor]
                # Told once; and bytes that nobody wants now would be reported over and over.
                self._select(descriptor, 0)
        return told

    def _select(self, descriptor: int, interest: int) -> None:
        events = selectors.EVENT_READ if interest & (READ | CLOSED) else 0
        events |= selectors.EVENT_WRITE if interest & WRITE else 0
        known = self._selector.get_map().get(descriptor)
        if known is None:
            if events:
                self._selector.register(descriptor, events)
        elif not events:
            self._selector.unregister(descriptor)
        elif known.events != events:
            self._selector.modify(descriptor, events)


def _has_closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def make_poller() -> Poller:
    """The best that this system has."""
    return EpollPoller() if hasattr(select, "epoll") and hasattr(os, "eventfd") else SelectorPoller()
