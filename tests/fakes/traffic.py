"""Traffic of all kinds through a router and its fakes, so that each of its metrics has something to say."""

from __future__ import annotations

import re
from typing import Any

from tests.fakes.clients import RawClient
from tests.fakes.personas import CHAT, DONE, SEARCH, chunk, classifies, finds, says
from tests.fakes.router import RunningRouter, eventually
from tests.fakes.upstream import FakeUpstream, Hang, Plain, Stream

SETTINGS = {"KEEPALIVE_S": "0.2", "BACKOFF_S": "0.02", "BREAKER_FAILURES": "1000", "SHADOW_SHARE": "1"}
"""What a router for it needs besides addresses and keys: short waits, and every fast decision compared."""

PLAIN = "write a birthday poem for my grandmother"
UNCLEAR = "flurb gnozzle wex qanto brindlemop trask velluni"
"""To the head, that is: the classifier is asked."""

_BROKEN = Plain({"error": {"message": "broken"}}, status=500)
_LIMITED = Plain({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "1"})


class Traffic:
    """Has a router asked for everything it can do; ``key`` is one of its AI_ROUTER_API_KEYS."""

    def __init__(
        self, router: RunningRouter, classifier: FakeUpstream, primary: FakeUpstream, xai: FakeUpstream, key: str
    ) -> None:
        self._router, self._headers = router, {"x-api-key": key}
        self._classifier, self._primary, self._xai = classifier, primary, xai
        self._texts = 0

    def all_kinds(self) -> None:
        """Everything once."""
        self.answers()
        self.speculations()
        self.failures()
        self.odd_streams()
        self.endings()
        self.comparisons()

    def answers(self) -> None:
        """Each route, plain and streamed."""
        self._well_behaved()
        for stream in (False, True):
            self._ask(200, PLAIN, stream=stream)
            self._ask(200, UNCLEAR, stream=stream)
            for model in ("primary", "xai", "enrich"):
                self._ask(200, model=model, stream=stream)
            self._ask(200, headers={"x-task": "title_generation"}, stream=stream)

    def speculations(self) -> None:
        """One that is the answer, and one that is given up."""
        self._well_behaved()
        self._primary.on(CHAT, says("from ", "the ", "primary", ttft=0.1))
        for label in ("MODERATE", "COMPLEX"):
            self._classifier.on(CHAT, classifies(label, delay=0.2))
            self._ask(200, self._unheard())

    def failures(self) -> None:
        """The client's, a retry, a fallback, a wait, and an error that is told."""
        self._well_behaved()
        self._ask(400, messages=[])
        self._primary.on(CHAT, Plain({"error": {"message": "too long"}}, status=400))
        self._ask(400, model="primary")
        self._primary.on(CHAT, _BROKEN, says("at last"))
        self._ask(200, model="primary")
        self._primary.on(CHAT, _BROKEN)
        self._ask(502, model="primary")
        self._primary.on(CHAT, _LIMITED, says("at last"))
        self._ask(200, model="primary", stream=True)
        self._primary.on(CHAT, says("instead"))
        self._xai.on(CHAT, Plain({"error": {"message": "no"}}, status=401))
        self._classifier.on(CHAT, classifies("COMPLEX"))
        self._ask(200, self._unheard())

    def odd_streams(self) -> None:
        """One that holds something else than JSON and says nothing of its usage."""
        self._well_behaved()
        portions = [chunk({"content": "a"}), b"data: {no\n\n", chunk({"content": "b"}, "stop"), DONE]
        self._primary.on(CHAT, Stream(portions))
        self._ask(200, model="primary", stream=True)

    def endings(self) -> None:
        """A client that leaves, and one that says so."""
        self._well_behaved()
        self._primary.on(CHAT, Stream([chunk({"content": "first"})], ending="hang"), Hang())
        key = f"x-api-key: {self._headers['x-api-key']}\r\n"
        leaving, cancelled = RawClient(self._router.port), RawClient(self._router.port)
        leaving.send_chat(model="primary", stream=True, headers=key)
        leaving.read_until(b"first")
        leaving.leave()
        before = len(self._primary.calls(CHAT))
        cancelled.send_chat(model="primary", headers=f"{key}x-request-id: unwanted\r\n")
        self._primary.wait_for(CHAT, before + 1)
        connection = self._router.connection()
        connection.request("POST", "/v1/requests/unwanted/cancel", headers=self._headers)
        assert connection.getresponse().status == 200
        connection.close()
        cancelled.leave()

    def comparisons(self) -> None:
        """The classifier has been asked about what the head decided, and the backends how they are."""
        assert eventually(lambda: b"\nai_router_shadow_total{" in self.exposition())
        assert eventually(lambda: b"\nai_router_backend_up{" in self.exposition())

    def exposition(self) -> bytes:
        """What Prometheus would be told now."""
        return self._router.get("/metrics", self._headers)[2]

    def _well_behaved(self) -> None:
        self._classifier.on(CHAT, classifies("MODERATE"))
        self._primary.on(CHAT, says("from ", "the ", "primary"))
        self._xai.on(CHAT, says("from ", "xai"))
        self._xai.on(SEARCH, finds("It rains in Paris."))
        self._xai.on("/v1/models", Plain({"object": "list", "data": []}))

    def _unheard(self) -> str:
        """A text that no cache knows the decision of."""
        self._texts += 1
        return f"{UNCLEAR} {'x' * self._texts}"

    def _ask(self, expected: int, text: str = "hello", *, headers: dict[str, str] | None = None, **fields: Any) -> None:
        status, _, body = self._router.chat(text, {**self._headers, **(headers or {})}, **fields)
        assert status == expected, re.sub(rb"\s+", b" ", body)[:300]
