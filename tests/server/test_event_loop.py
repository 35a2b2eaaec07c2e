"""The loop on real sockets: requests reach a thread when they are whole, and clients wait for nobody but themselves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ai_router.errors import BodyTooLarge, InvalidRequest, Overloaded, SlowBody
from ai_router.server.connection import STAYING_THREADS, Connection
from ai_router.server.event_loop import EventLoop
from tests.fakes.loops import POLLERS, listening, running_loop, until

GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"


class Server:
    """Answers each request with its number once it may, and keeps what it was given."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.served: list[Connection] = []
        self.refusals: list[object] = []
        self.requests: list[bytes] = []
        self.changed = threading.Condition()

    def serve(self, loop: EventLoop, conn: Connection) -> None:
        with self.changed:
            self.served.append(conn)
            self.refusals.append(conn.refusal)
            self.requests.append(conn.reader.take())
            self.changed.notify_all()
        if conn.reader.method == "POST" and conn.refusal is None:
            assert self.may_answer.wait(30)
        conn.sock.sendall(b"answer")
        loop.threads.release(conn)
        if conn.refusal is None and conn.reader.complete:
            conn.renew(b"")
            loop.give_back(conn)
        else:
            loop.close(conn)

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.served) >= count, 10), len(self.served)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.may_answer.set()


Running = tuple[EventLoop, tuple[str, int]]


@contextmanager
def running(server: Server, poller: str = "epoll", **changes: float) -> Iterator[Running]:
    with running_loop(poller, server.serve, **changes) as loop:
        try:
            yield loop, listening(loop)
        finally:
            # Whatever failed, the threads that answer must end.
            server.may_answer.set()


@contextmanager
def client(address: tuple[str, int], data: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=10) as sock:
        sock.sendall(data)
        yield sock


@pytest.mark.parametrize("poller", POLLERS)
def test_a_request_is_served_in_whatever_portions_it_comes(server: Server, poller: str) -> None:
    with running(server, poller) as (_, address), client(address) as sock:
        for byte in (POST[:7], POST[7:40], POST[40:-1], POST[-1:]):
            assert not server.served
            sock.sendall(byte)
        assert sock.recv(100) == b"answer"
        assert server.requests == [POST]


@pytest.mark.parametrize("poller", POLLERS)
def test_a_connection_is_kept_for_the_next_request(server: Server, poller: str) -> None:
    with running(server, poller) as (_, address), client(address) as sock:
        for _ in range(3):
            sock.sendall(GET)
            assert sock.recv(100) == b"answer"


def test_ninety_clients_that_drip_hold_no_thread(server: Server) -> None:
    with running(server) as (_, address):
        slow = [socket.create_connection(address) for _ in range(90)]
        for number, sock in enumerate(slow):
            sock.sendall(POST[: -1 - number % 40])
        with client(address, GET) as sock:
            assert sock.recv(100) == b"answer"
        assert server.requests == [GET]
        for sock in slow:
            sock.close()


def test_only_so_many_requests_that_ask_backends_hold_a_thread_and_others_are_served(server: Server) -> None:
    server.may_answer.clear()
    with running(server, waiting=2) as (_, address):
        socks = [socket.create_connection(address, timeout=10) for _ in range(4)]
        for sock in socks:
            sock.sendall(POST)
        server.wait_for(2)
        with client(address, GET) as sock:
            assert sock.recv(100) == b"answer"
        assert len(server.served) == 3, "two hold a thread, two wait, and the look at health is served"
        server.may_answer.set()
        for sock in socks:
            assert sock.recv(100) == b"answer"
            sock.close()


def test_threads_stay_with_their_connections_only_while_few_are_busy(server: Server) -> None:
    """Else those connections are served again and again, and all others wait for the loop."""
    server.may_answer.clear()
    sizes = {"threads": STAYING_THREADS + 2, "backend_threads": STAYING_THREADS + 1}
    with running(server, **sizes) as (loop, address), ExitStack() as clients:
        for number in range(STAYING_THREADS):
            clients.enter_context(client(address, POST))
            server.wait_for(number + 1)
        assert loop.threads.may_stay()
        clients.enter_context(client(address, POST))
        server.wait_for(STAYING_THREADS + 1)
        assert not loop.threads.may_stay()


def test_what_can_neither_be_served_nor_wait_is_refused_at_once_and_its_body_not_awaited(server: Server) -> None:
    server.may_answer.clear()
    with running(server, waiting=1) as (loop, address):
        socks = [socket.create_connection(address, timeout=10) for _ in range(3)]
        for sock in socks:
            sock.sendall(POST)
        server.wait_for(2)
        until(loop, lambda: loop.threads.awaited)
        with client(address, POST[:-3]) as late:
            assert late.recv(100) == b"answer"
        assert [type(refusal) for refusal in server.refusals] == [type(None), type(None), Overloaded]
        server.may_answer.set()
        for sock in socks:
            sock.close()


def test_who_waits_too_long_for_a_thread_is_refused(server: Server) -> None:
    server.may_answer.clear()
    with running(server, wait_s=0.1) as (_, address):
        socks = [socket.create_connection(address, timeout=10) for _ in range(3)]
        for sock in socks:
            sock.sendall(POST)
        server.wait_for(3)
        assert sum(isinstance(refusal, Overloaded) for refusal in server.refusals) == 1
        server.may_answer.set()
        for sock in socks:
            sock.close()


def of(key: bytes) -> bytes:
    """A request with this key for a backend."""
    return b"POST /chat HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: " + key + b"\r\nContent-Length: 5\r\n\r\nhello"


def test_where_no_more_may_wait_the_client_with_the_most_waiting_makes_room(server: Server) -> None:
    server.may_answer.clear()
    with running(server, waiting=3, backend_threads=1) as (loop, address), ExitStack() as clients:
        waiting = [clients.enter_context(client(address, of(b"many"))) for _ in range(4)]
        until(loop, lambda: len(loop.waiting) == 3)
        clients.enter_context(client(address, of(b"one")))
        server.wait_for(2)
        assert isinstance(server.refusals[1], Overloaded)
        assert server.served[1].client == "many"
        until(loop, lambda: sorted(conn.client for conn in loop.waiting) == ["many", "many", "one"])
        clients.enter_context(client(address, of(b"many")))
        server.wait_for(3)
        assert isinstance(server.refusals[2], Overloaded), "no other has more waiting than this one would have"
        assert len(waiting) == 4


def test_a_client_that_leaves_while_it_waits_takes_no_thread(server: Server) -> None:
    server.may_answer.clear()
    with running(server) as (loop, address):
        held = [socket.create_connection(address, timeout=10) for _ in range(2)]
        for sock in held:
            sock.sendall(POST)
        server.wait_for(2)
        with client(address, POST):
            until(loop, lambda: len(loop.waiting) == 1)
        until(loop, lambda: loop.open_connections == 2)
        server.may_answer.set()
        for sock in held:
            assert sock.recv(100) == b"answer"
            sock.close()
        assert len(server.served) == 2


@pytest.mark.parametrize("poller", POLLERS)
def test_a_client_that_leaves_while_it_is_served_is_noticed(server: Server, poller: str) -> None:
    noticed = threading.Event()

    def serve(loop: EventLoop, conn: Connection) -> None:
        conn.on_disconnect = noticed.set
        if conn.gone:
            noticed.set()
        assert noticed.wait(10)
        loop.close(conn)

    with running_loop(poller, serve) as loop:
        with client(listening(loop), POST):
            pass
        assert noticed.wait(10)


def test_a_body_that_is_late_is_refused(server: Server) -> None:
    with running(server, body_s=0.05) as (_, address), client(address, POST[:-1]) as sock:
        assert sock.recv(100) == b"answer"
        assert isinstance(server.refusals[0], SlowBody)


def test_a_body_that_is_cut_off_is_refused(server: Server) -> None:
    with running(server) as (_, address), client(address, POST[:-1]) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b"answer"
        assert isinstance(server.refusals[0], InvalidRequest)


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_refused_before_it_is_read(server: Server, announced: bool) -> None:
    framing = b"Content-Length: 9999999" if announced else b"Transfer-Encoding: chunked"
    with (
        running(server, max_body=10) as (_, address),
        client(address, b"POST / HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n\r\n") as sock,
    ):
        if not announced:
            sock.sendall(b"40000\r\n" + b"x" * 0x40000)
        assert sock.recv(100) == b"answer"
        assert isinstance(server.refusals[0], BodyTooLarge)


def large(size: int) -> bytes:
    """The headers of a request with a body of this size."""
    return b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size


def test_large_bodies_are_counted_from_their_headers_to_the_end_of_their_answers(server: Server) -> None:
    with running(server, max_body=400_000, max_bodies=500_000) as (loop, address), ExitStack() as clients:
        first = clients.enter_context(client(address, large(300_000)))
        until(loop, lambda: loop.open_connections == 1)
        assert clients.enter_context(client(address, large(300_000))).recv(100) == b"answer"
        assert isinstance(server.refusals[0], Overloaded)
        assert clients.enter_context(client(address, POST)).recv(100) == b"answer"
        assert server.refusals[1] is None, "small ones are not counted"
        first.sendall(b"x" * 300_000)
        assert first.recv(100) == b"answer"
        until(loop, lambda: loop._bodies._left == 500_000)
        again = clients.enter_context(client(address, large(300_000)))
        again.sendall(b"x" * 300_000)
        assert again.recv(100) == b"answer"
        assert [type(refusal) for refusal in server.refusals] == [Overloaded, *[type(None)] * 3]


def test_a_body_of_unknown_length_is_counted_as_it_comes(server: Server) -> None:
    chunked = b"POST /chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with running(server, max_body=400_000, max_bodies=200_000) as (_, address), client(address, chunked) as sock:
        sock.sendall(b"30000\r\n" + b"x" * 0x30000 + b"\r\n30000\r\n" + b"x" * 10_000)
        assert sock.recv(100) == b"answer"
        assert isinstance(server.refusals[0], Overloaded)


def test_who_may_not_ask_is_answered_before_the_body_is_read(server: Server) -> None:
    request = b"POST / HTTP/1.1\r\nHost: localhost\r\nX-API-Key: wrong\r\nContent-Length: 100\r\n\r\n"
    with running(server) as (_, address), client(address, request) as sock:
        assert sock.recv(100) == b"answer"
        assert server.refusals == [None], "the application says why"


def test_a_client_that_asks_whether_to_send_its_body_is_told_to_go_on(server: Server) -> None:
    headers = b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    with running(server) as (_, address), client(address, headers) as sock:
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert sock.recv(100) == b"answer"


def test_silent_connections_end_at_their_deadline_and_do_not_count_as_requests(server: Server) -> None:
    with (
        running(server, headers_s=0.05) as (_, address),
        client(address) as silent,
        client(address, GET[:5]) as dripping,
    ):
        assert (silent.recv(1), dripping.recv(1)) == (b"", b"")
        assert not server.served


def test_with_too_many_connections_the_oldest_silent_one_goes(server: Server) -> None:
    with running(server, connections=3) as (_, address):
        socks = [socket.create_connection(address, timeout=10) for _ in range(3)]
        with client(address, GET) as sock:
            assert sock.recv(100) == b"answer"
        assert socks[0].recv(1) == b""
        socks[2].sendall(GET)
        assert socks[2].recv(100) == b"answer"
        for sock in socks:
            sock.close()


def test_the_answer_is_not_lost_to_a_client_that_still_sends(server: Server) -> None:
    with running(server, max_body=10) as (_, address):
        for _ in range(20):
            head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n"
            with client(address, head + b"x" * 300_000) as sock:
                assert sock.recv(100) == b"answer"
                assert sock.recv(100) == b""
