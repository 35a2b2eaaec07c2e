"""Answers of threads that other processes give: reading and cancelling them from here.

The process that answers passes each event on to the one whose reader has come back, as it does to readers of its own.
Events may be lost on their way, and the other process may die: so the database is asked now and then, whether the
answer is still under way.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ai_router.errors import RequestCancelled
from ai_router.shared.client import SharedUnavailable
from ai_router.shared.peers import Peers
from ai_router.threads.answer import Reader, ThreadAnswer

log = logging.getLogger(__name__)

_ASK_S = 0.5
_LOOK_S = 5.0
"""How often the database is asked."""


class _ReaderElsewhere:
    """A reader at another process, which it is told about by the name of its stream. A Reader."""

    def __init__(self, peers: Peers, process: str, stream: str, on_end: Callable[[], object]) -> None:
        self._peers = peers
        self._process = process
        self._stream = stream
        self._on_end = on_end

    def send(self, event: bytes) -> None:
        self._peers.tell("thread_event", {"stream": self._stream, "event": event.decode()}, self._process)

    def end(self) -> None:
        self._on_end()
        self._peers.tell("thread_event", {"stream": self._stream, "event": None}, self._process)


@dataclass(frozen=True, slots=True)
class _Followed:
    """A stream that a reader of this process follows. ``is_over`` asks the database; ``on_lost`` ends the reader."""

    reader: Reader
    is_over: Callable[[], bool]
    on_lost: Callable[[], None]


class AnswersElsewhere:
    """``find``: an answer that is under way here, by its message; ``cancel_thread``: ends all of a thread here.

    Safe from any thread.
    """

    def __init__(
        self, peers: Peers, find: Callable[[str], ThreadAnswer | None], cancel_thread: Callable[[str], None]
    ) -> None:
        self._peers = peers
        self._find = find
        self._cancel_thread = cancel_thread
        self._lock = threading.Lock()
        self._leaving: dict[str, Callable[[], None]] = {}
        """How readers of other processes leave, by their streams."""
        self._followed: dict[str, _Followed] = {}
        self._watcher: threading.Thread | None = None
        self._closing = threading.Event()
        peers.on("follow_answer", self._let_follow)
        peers.on("unfollow_answer", self._let_leave)
        peers.on("thread_event", self._pass_on)
        peers.on("cancel_answer", self._cancel_here)
        peers.on("cancel_thread", cancel_thread)

    def close(self) -> None:
        """Stop asking the database."""
        self._closing.set()

    # For those who ask here.

    def follow(
        self,
        message: str,
        thread: str,
        after: int,
        reader: Reader,
        is_over: Callable[[], bool],
        on_lost: Callable[[], None],
    ) -> Callable[[], None] | None:
        """Send ``reader`` the events of an answer of another process, those after number ``after``. Returns the
        function by which it leaves; None: nobody answers that message.

        ``is_over`` asks the database whether the answer has ended; if it has and the reader has not heard of it,
        ``on_lost`` is called. Both run on a thread of their own. Raises SharedUnavailable.
        """
        stream = uuid.uuid4().hex
        with self._lock:
            self._followed[stream] = _Followed(reader, is_over, on_lost)
        asked = {"message": message, "thread": thread, "after": after, "stream": stream, "process": self._peers.name}
        found = False
        try:
            found = bool(self._peers.ask("follow_answer", asked, _ASK_S))
        finally:
            if not found:
                self._forget(stream)
        if not found:
            return None
        self._watch()

        def leave() -> None:
            if self._forget(stream) is not None:
                self._peers.tell("unfollow_answer", stream)

        return leave

    def cancel(self, message: str) -> bool:
        """End an answer of another process early; False if none is known to give it. Raises SharedUnavailable."""
        return any(self._peers.ask("cancel_answer", message, _ASK_S))

    def cancel_thread(self, thread: str) -> None:
        """End all answers of a thread early, at all other processes that can be reached."""
        try:
            self._peers.ask("cancel_thread", thread, _ASK_S)
        except SharedUnavailable:
            log.warning("other processes may still answer in a thread that was changed")

    def _forget(self, stream: str) -> _Followed | None:
        with self._lock:
            return self._followed.pop(stream, None)

    def _pass_on(self, payload: Mapping[str, Any]) -> None:
        stream, event = payload["stream"], payload["event"]
        if event is None:
            if (ended := self._forget(stream)) is not None:
                ended.reader.end()
        elif (followed := self._followed.get(stream)) is not None:
            followed.reader.send(event.encode())

    def _watch(self) -> None:
        with self._lock:
            if self._watcher is None:
                self._watcher = threading.Thread(target=self._look, name="thread-followers", daemon=True)
                self._watcher.start()

    def _look(self) -> None:
        suspected: set[str] = set()
        while not self._closing.wait(_LOOK_S):
            with self._lock:
                followed = dict(self._followed)
                if not followed:
                    self._watcher = None
                    return
            over = {stream for stream, one in followed.items() if one.is_over()}
            # Twice, since its last event may be on its way.
            for stream in over & suspected:
                if self._forget(stream) is not None:
                    followed[stream].on_lost()
            suspected = over

    # For other processes, whose readers ask there.

    def _let_follow(self, payload: Mapping[str, Any]) -> bool | None:
        answer = self._find(payload["message"])
        if answer is None or answer.thread != payload["thread"]:
            return None
        stream = payload["stream"]
        reader = _ReaderElsewhere(self._peers, payload["process"], stream, lambda: self._leaving.pop(stream, None))
        leave = answer.join(reader, payload["after"])
        with self._lock:
            if not answer.finished.is_set():
                self._leaving[stream] = leave
        return True

    def _let_leave(self, stream: str) -> None:
        with self._lock:
            leave = self._leaving.pop(stream, None)
        if leave is not None:
            leave()

    def _cancel_here(self, message: str) -> bool | None:
        answer = self._find(message)
        if answer is None:
            return None
        answer.cancel(RequestCancelled())
        return True
