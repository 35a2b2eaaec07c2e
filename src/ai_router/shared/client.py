"""The connection to Redis or Valkey, and whether it works.

No request waits for a server that is down: after a failure nothing is asked of it until ``check`` has found it again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from valkey import Valkey
from valkey.backoff import NoBackoff
from valkey.exceptions import ValkeyError
from valkey.retry import Retry

from ai_router.errors import RouterError

log = logging.getLogger(__name__)

T = TypeVar("T")

_CONNECT_S = 0.5
_ANSWER_S = 0.25
"""A server in the same network answers within a millisecond. A request waits so long once, and then no more."""
_CLIENT_NAME = "ai-router"


class SharedUnavailable(RouterError):
    """503: Redis cannot be reached, and this cannot be answered without it."""

    status, code, retry_after_s = 503, "shared_state_unavailable", 2

    def __init__(self, message: str = "the state that this router's processes share cannot be reached") -> None:
        super().__init__(message)


class SharedClient:
    """``url``: redis://, rediss:// or unix://. Safe from any thread. Connects when it is first used."""

    def __init__(self, url: str) -> None:
        # Any: half of its methods are without types, or with those of its asynchronous brother.
        self._client: Any = Valkey.from_url(
            url,
            socket_timeout=_ANSWER_S,
            socket_connect_timeout=_CONNECT_S,
            client_name=_CLIENT_NAME,
            retry=Retry(NoBackoff(), 0),
        )
        self._lock = threading.Lock()
        self._scripts: dict[str, Any] = {}
        self.last_error: str | None = None
        """Why the last command failed; None: it has not."""

    @property
    def works(self) -> bool:
        """Whether the last command worked, or none was sent yet."""
        return self.last_error is None

    def call(self, command: Callable[[Any], T]) -> T:
        """What ``command`` returns, called with valkey's client. Raises SharedUnavailable, at once while the server is
        down."""
        if self.last_error is not None:
            raise SharedUnavailable
        return self._attempt(command)

    def run(self, script: str, keys: Sequence[str], args: Sequence[str | bytes | float]) -> Any:
        """What a Lua script returns. Raises SharedUnavailable."""
        return self.call(lambda client: self._script(script)(keys=keys, args=args, client=client))

    def check(self, command: Callable[[Any], T]) -> T:
        """The same as ``call``, also while the server is thought to be down. Raises SharedUnavailable."""
        return self._attempt(command)

    def listen(self) -> Any:
        """A subscription, on a connection of its own, for one thread."""
        return self._client.pubsub()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()
        self._client.connection_pool.disconnect()

    def failed(self, problem: Exception) -> None:
        """A command has failed: nothing is asked until ``check`` has worked."""
        words = str(problem) or type(problem).__name__
        if self.last_error is None:
            log.warning("Shared state: Redis cannot be reached, each process decides for itself: %s", words)
        self.last_error = words

    def _attempt(self, command: Callable[[Any], T]) -> T:
        try:
            found = command(self._client)
        except (ValkeyError, OSError) as problem:
            self.failed(problem)
            raise SharedUnavailable from problem
        if self.last_error is not None:
            self.last_error = None
            log.info("Shared state: Redis answers again")
        return found

    def _script(self, source: str) -> Any:
        with self._lock:
            found = self._scripts.get(source)
            if found is None:
                found = self._scripts[source] = self._client.register_script(source)
            return found
