"""The other processes of this router: how many there are, and asking or telling all of them something.

A question goes to all over a channel of Redis, each answers over the asker's own channel, and the asker waits until as
many have answered as have heard it. So nothing has to be written down while requests are answered: who wants to know
what is under way, or to cancel it, asks.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import orjson
from valkey.exceptions import ValkeyError

from ai_router.shared.client import SharedClient, SharedUnavailable
from ai_router.shared.values import PREFIX

log = logging.getLogger(__name__)

Handler = Callable[[Any], Any]
"""Takes what was told, as JSON values, and returns the answer, of JSON values; None: nothing to say."""

_EVERYBODY = f"{PREFIX}peers"
_LIVING = f"{PREFIX}living"
_BEAT_S = 1.0
_LEASE_S = 5.0
"""How long a process counts that has not been heard of."""
_HANDLERS = 4

_BEAT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('EXPIRE', KEYS[1], 60)
return redis.call('ZCARD', KEYS[1])
"""
"""Note by the server's clock that a process lives; how many do."""


class Peers(Protocol):
    """The other processes. Safe from any thread."""

    @property
    def name(self) -> str:
        """The name of this process among them."""

    @property
    def count(self) -> int:
        """How many processes there are, with this one, as far as was last known."""

    def on(self, topic: str, handler: Handler) -> None:
        """Answer what others ask or tell about ``topic``. The handler runs on a thread of its own."""

    def tell(self, topic: str, payload: Any, to: str = "") -> None:
        """Tell all others, or the one named ``to``. They hear it in the order in which it was told. Returns at once;
        where they cannot be reached, they do not hear it."""

    def ask(self, topic: str, payload: Any, timeout_s: float) -> Sequence[Any]:
        """What the others answer, without those who have nothing to say or do not answer within ``timeout_s``.

        Raises SharedUnavailable."""


class NoPeers:
    """For a process that is alone."""

    name = ""
    count = 1

    def on(self, topic: str, handler: Handler) -> None: ...
    def tell(self, topic: str, payload: Any, to: str = "") -> None: ...
    def ask(self, topic: str, payload: Any, timeout_s: float) -> Sequence[Any]:  # noqa: ARG002 - nobody answers
        return ()


class _Question:
    """Answers, and how many are awaited."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._answers: list[Any] = []

    def answered(self, answer: Any) -> None:
        with self._changed:
            self._answers.append(answer)
            self._changed.notify_all()

    def wait(self, expected: int, timeout_s: float) -> Sequence[Any]:
        with self._changed:
            self._changed.wait_for(lambda: len(self._answers) >= expected, timeout_s)
            return [answer for answer in self._answers if answer is not None]


class RedisPeers:
    """The other processes at the same Redis. ``start`` begins to listen."""

    def __init__(self, client: SharedClient) -> None:
        self._client = client
        self.name = uuid.uuid4().hex
        self._handlers: dict[str, Handler] = {}
        self._questions: dict[str, _Question] = {}
        self._stop = threading.Event()
        self._listening = threading.Event()
        self._answering = ThreadPoolExecutor(_HANDLERS, thread_name_prefix="peers-answers")
        # One thread each, so that notices keep their order.
        self._telling = ThreadPoolExecutor(1, thread_name_prefix="peers-telling")
        self._told = ThreadPoolExecutor(1, thread_name_prefix="peers-told")
        self._listener = threading.Thread(target=self._listen, name="peers-listener", daemon=True)
        self._beat = threading.Thread(target=self._beat_repeatedly, name="peers-beat", daemon=True)
        self.count = 1

    def start(self) -> None:
        """Begin to listen and to be counted. Handlers that are added later miss what came before."""
        self._listener.start()
        self._beat.start()

    def wait_until_heard(self, timeout_s: float) -> bool:
        """Whether this process hears the others, waited for."""
        return self._listening.wait(timeout_s)

    def close(self) -> None:
        """Not counted any more. Idempotent."""
        self._stop.set()
        self._listener.join()
        self._beat.join()
        for executor in (self._answering, self._telling, self._told):
            executor.shutdown(wait=True)
        try:
            self._client.call(lambda redis: redis.zrem(_LIVING, self.name))
        except SharedUnavailable:
            log.debug("the lease of this process will run out by itself")

    def on(self, topic: str, handler: Handler) -> None:
        self._handlers[topic] = handler

    def tell(self, topic: str, payload: Any, to: str = "") -> None:
        if not self._stop.is_set():
            channel = _channel_of(to) if to else _EVERYBODY
            self._telling.submit(self._publish_quietly, channel, self._message(topic, payload))

    def ask(self, topic: str, payload: Any, timeout_s: float) -> Sequence[Any]:
        question, name = _Question(), uuid.uuid4().hex
        self._questions[name] = question
        try:
            heard_by = self._publish(_EVERYBODY, self._message(topic, payload, question=name))
            return question.wait(heard_by - self._listening.is_set(), timeout_s)
        finally:
            del self._questions[name]

    def _message(self, topic: str, payload: Any, *, question: str = "") -> bytes:
        return orjson.dumps({"topic": topic, "from": self.name, "payload": payload, "question": question})

    def _publish(self, channel: str, message: bytes) -> int:
        heard_by: int = self._client.call(lambda redis: redis.publish(channel, message))
        return heard_by

    def _publish_quietly(self, channel: str, message: bytes) -> None:
        try:
            self._publish(channel, message)
        except SharedUnavailable as problem:
            log.debug("a message to the other processes was not sent: %s", problem)

    # On the threads.

    def _beat_repeatedly(self) -> None:
        while True:
            try:
                self.count = max(1, int(self._client.check(self._beat_once)))
            except SharedUnavailable as problem:
                log.debug("not counted for now: %s", problem)
            if self._stop.wait(_BEAT_S):
                return

    def _beat_once(self, redis: Any) -> Any:
        return redis.eval(_BEAT, 1, _LIVING, self.name, _LEASE_S)

    def _listen(self) -> None:
        while not self._stop.is_set():
            subscription = self._client.listen()
            try:
                subscription.subscribe(_EVERYBODY, _channel_of(self.name))
                while not self._stop.is_set():
                    message = subscription.get_message(timeout=_BEAT_S / 4)
                    if message is None:
                        continue
                    if message["type"] == "message":
                        self._take(message["data"])
                    elif message["data"] == 2:  # both subscriptions are confirmed
                        self._listening.set()
            except (ValkeyError, OSError) as problem:
                self._listening.clear()
                self._client.failed(problem)
                self._stop.wait(_BEAT_S / 2)
            finally:
                subscription.close()

    def _take(self, data: bytes) -> None:
        message = orjson.loads(data)
        if (answered := message.get("answers")) is not None:
            if (question := self._questions.get(answered)) is not None:
                question.answered(message["payload"])
        elif message["from"] != self.name:
            (self._answering if message["question"] else self._told).submit(self._handle, message)

    def _handle(self, message: Any) -> None:
        answer = None
        try:
            # One of another version may know topics that this one does not.
            if (handler := self._handlers.get(message["topic"])) is not None:
                answer = handler(message["payload"])
        except Exception:  # at the edge of a background thread: the others are answered all the same
            log.exception("a message of another process (%s) was not understood", message["topic"])
        if message["question"]:
            told = orjson.dumps({"answers": message["question"], "payload": answer})
            self._publish_quietly(_channel_of(message["from"]), told)


def _channel_of(name: str) -> str:
    return f"{PREFIX}peer:{name}"
