"""One timed request, and what many of them amount to."""

from __future__ import annotations

import http.client
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson


@dataclass(frozen=True)
class Timed:
    """One request; milliseconds from sending it."""

    status: int
    first_ms: float
    """To the first event with data of a stream; of a plain answer, to its end."""
    whole_ms: float
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Endpoint:
    """A server that speaks the OpenAI API. Each client has a connection of its own, kept alive."""

    url: str
    model: str
    key: str | None = None

    def connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=600)

    def ask(
        self, connection: http.client.HTTPConnection, text: str, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> Timed:
        """One chat request, read to its end."""
        body = orjson.dumps({"model": self.model, "messages": [{"role": "user", "content": text}], **fields})
        sent = {"Content-Type": "application/json", **(headers or {})}
        if self.key:
            sent["Authorization"] = f"Bearer {self.key}"
        started = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", body, sent)
        response = connection.getresponse()
        received, first_ms = b"", None
        if fields.get("stream"):
            while b"data:" not in received:
                portion = response.read1(65536)
                if not portion:
                    break
                received += portion
            first_ms = (time.perf_counter() - started) * 1000
        received += response.read()
        whole_ms = (time.perf_counter() - started) * 1000
        answered = {name.lower(): value for name, value in response.getheaders()}
        return Timed(response.status, first_ms or whole_ms, whole_ms, answered, received)


def text_in(answer: Timed) -> str:
    """Content, or reasoning where a reasoning model's budget left no content (a plain answer's)."""
    message = orjson.loads(answer.body)["choices"][0]["message"]
    return message.get("content") or message.get("reasoning") or message.get("reasoning_content") or ""


def p50(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def p99(values: Sequence[float]) -> float:
    """The 99th percentile, or the largest of fewer than 100."""
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def settled(url: str, key: str | None = None) -> None:
    """Have a router write what it keeps of the requests so far: it does so before it looks for a session, here for one
    that there is not. A server without sessions has nothing to write."""
    connection = Endpoint(url, "").connect()
    connection.request("GET", f"/api/sessions/{'0' * 32}", headers={"Authorization": f"Bearer {key}"} if key else {})
    connection.getresponse().read()
    connection.close()
