"""An Ollama with some models, of which not all are in memory: loading one may put another out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.fakes.personas import CHAT, says
from tests.fakes.upstream import FakeUpstream, Plain, Recorded, Reply

CATALOGUE = """
[providers.den]
base_url = "{url}"
local = true
default_model = "small"

[chains]
moderate = ["primary", "den"]
"""
"""With a server of its own, at ``url``, that may stand in for the primary."""


class FakeOllama:
    """``room``: how many models fit into memory. ``loaded``: those that are, the newest last; may be changed."""

    def __init__(self, upstream: FakeUpstream, models: Sequence[str], room: int) -> None:
        self.upstream = upstream
        self.models = models
        self.room = room
        self.loaded: list[str] = []
        self.replies: dict[str, Callable[[Recorded], Reply]] = {name: says(f"from {name}") for name in models}
        """What each of them says; may be changed."""
        upstream.on("/v1/models", self._listing)
        upstream.on("/api/version", Plain({"version": "0.15.0"}))
        upstream.on("/api/tags", Plain({"models": [{"name": name, "details": {}} for name in models]}))
        upstream.on("/api/ps", self._running)
        upstream.on(CHAT, self._answer)

    def load(self, model: str) -> None:
        """Have it in memory, the newest; the oldest goes where there is no room."""
        self.loaded = [*(name for name in self.loaded if name != model), model][-self.room :]

    def _listing(self, _: Recorded) -> Reply:
        return Plain({"object": "list", "data": [{"id": name, "owned_by": "library"} for name in self.models]})

    def _running(self, _: Recorded) -> Reply:
        return Plain({"models": [{"name": name} for name in self.loaded]})

    def _answer(self, request: Recorded) -> Reply:
        model = request.body["model"]
        self.load(model)
        return self.replies[model](request)
